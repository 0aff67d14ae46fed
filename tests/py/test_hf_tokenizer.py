"""A Hugging Face folder that we write from SmolLM2's GGUF file, as transformers reads it: the same ids, the same chats.

Needs transformers (no torch) and the GGUF file (scripts/setup).
"""
import json
import os
import pathlib

import pytest

transformers = pytest.importorskip("transformers")
from places import MODEL  # noqa: E402
from test_tokenizer import ask, texts  # noqa: E402


CHATS = [
    [{"role": "user", "content": "Hi"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2 = ?"}, {"role": "assistant", "content": "4"}],
    [{"role": "user", "content": "Übersetze: 你好, 1234!"}, {"role": "assistant", "content": "Hallo 🎉\n\n```py\nx = 1\n```"},
     {"role": "user", "content": "  und  \n weiter "}],
]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm2")
    for name, text in ask(["model", str(MODEL)], [{"hf": True}])[0].items():
        (folder / name).write_text(text)
    return transformers.AutoTokenizer.from_pretrained(folder)


def test_transformers_reads_what_we_write_with_the_same_ids(written):
    strings = texts("hf", 300)
    for options, request in (({}, {"add": True, "parse": True}), ({"add_special_tokens": False}, {"add": False, "parse": True}),
                             ({"split_special_tokens": True}, {"add": True, "parse": False}),
                             ({"split_special_tokens": True, "add_special_tokens": False}, {"add": False, "parse": False})):
        wanted = [written(s, **options).input_ids for s in strings]
        got = ask(["model", str(MODEL)], [{"encode": s, **request} for s in strings])
        bad = [(s, w, g) for s, w, g in zip(strings, wanted, got) if w != g]
        assert not bad, f"{options}: {len(bad)} differ, first: {bad[0]!r}"


def test_special_ids_are_the_models(written):
    assert (written.bos_token, written.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert written.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [1, 2]


def test_chats_of_harmless_content_equal_apply_chat_template(written):
    for messages in CHATS:
        for prompt in (False, True):
            wanted = written.apply_chat_template(messages, tokenize=True, add_generation_prompt=prompt, return_dict=False)
            [got] = ask(["model", str(MODEL)], [{"chat": messages, "add_generation_prompt": prompt}])
            assert got == wanted
            assert written.decode(got) == written.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)


GENERATION = {
    "turns": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}"
             "{% endgeneration %}{{ '\n' }}{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}",
    "in a macro, twice a turn": "{% macro answer(t) %}{% generation %}{{ t }}<|im_end|>{% endgeneration %}{% endmacro %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
                                "{% if m.role == 'assistant' %}{{ answer('think') }}{{ answer(m.content) }}{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}",
    "nothing generated": "{% for m in messages %}<|im_start|>{{ m.content }}{% if false %}{% generation %}x{% endgeneration %}{% endif %}<|im_end|>{% endfor %}",
}


@pytest.mark.parametrize("name", GENERATION)
def test_generation_blocks_give_the_training_mask_of_transformers(written, name):
    """Blocks that end in a token of their own, as templates have them (a token across the end of a block is learned there, not here)."""
    for messages in CHATS[1:]:
        wanted = written.apply_chat_template(messages, chat_template=GENERATION[name], tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        [got] = ask(["model", str(MODEL)], [{"train": messages, "template": GENERATION[name]}])
        assert got["ids"] == wanted["input_ids"]
        assert got["trained"] == wanted["assistant_masks"]
        assert any(got["trained"]) == (name != "nothing generated")
