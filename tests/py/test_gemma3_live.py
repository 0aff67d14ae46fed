"""Gemma 3 270M, a real file (Q4_K_M) with two rotations, windows and a tokenizer of its own, against llama.cpp."""

import json

import numpy as np
import pytest

from places import GEMMA

pytestmark = pytest.mark.live

TOKENS = 32


@pytest.fixture(scope="module")
def gemma():
    if not GEMMA.exists():
        pytest.fail(f"{GEMMA} is missing: run scripts/peers")
    return GEMMA


@pytest.fixture(scope="module")
def plain(supersonic, gemma, tmp_path_factory):
    """The same weights in f32, so that neither side rounds activations to 8 bits."""
    path = tmp_path_factory.mktemp("gemma") / "f32.gguf"
    supersonic("convert", gemma, path, "--type", "f32", "--no-verify")
    return path


@pytest.fixture(scope="module")
def starts(gemma):
    import prompts
    import smollm2

    model = smollm2.llama_cpp_model(gemma, vocab_only=True)
    return [model.tokenize(text.encode(), add_bos=True, special=False) for text in prompts.CONTINUE]


def test_texts_have_the_ids_that_llama_cpp_gives_them(supersonic, gemma, starts):
    import prompts

    for text, wanted in zip(prompts.CONTINUE, starts):
        ours = supersonic("tokenize", gemma, "--text", text, json_output=True)
        assert ours == wanted, text


def test_greedy_text_is_llama_cpps(tool, plain, starts):
    """Up to the first choice between two words that are as good as equal (0.01 of a logit)."""
    import smollm2

    starts = starts[:6]
    rows = smollm2.llama_cpp_greedy(plain, starts, TOKENS)
    done = tool("logits_probe", plain, "fp32", "--generate", TOKENS, input="".join(json.dumps(ids) + "\n" for ids in starts))
    equal = 0
    for line, (made, margins) in zip(done.stdout.splitlines(), rows):
        ours = json.loads(line)["continuation"]
        other = next((k for k in range(TOKENS) if ours[k] != made[k]), TOKENS)
        equal += other
        assert other == TOKENS or margins[other] < 0.01, (other, margins[other])
    assert equal >= 0.9 * TOKENS * len(starts)


def test_logits_beyond_the_window_are_llama_cpps(tool, plain, tmp_path):
    import llama_cpp
    import recipe

    ids = [2, *(recipe.below("gemma ids", 899, 200000) + 1000).tolist()]  # the window has 512
    model = llama_cpp.Llama(str(plain), n_ctx=1024, n_batch=1024, logits_all=True, type_k=0, type_v=0, flash_attn=False, verbose=False)
    model.eval(ids)
    wanted = model.scores[len(ids) - 1].astype(np.float64)
    done = tool("logits_probe", plain, "fp32", "--chunk", 256, "--out", tmp_path, input=json.dumps(ids) + "\n")
    ours = np.fromfile(json.loads(done.stdout)["last"], "<f4").astype(np.float64)
    assert np.linalg.norm(ours - wanted) <= 2e-3 * np.linalg.norm(wanted)
