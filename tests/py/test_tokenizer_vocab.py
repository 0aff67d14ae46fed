"""Folders with vocab.json and merges.txt and no tokenizer.json: the tokenizer that the class in tokenizer_config.json stands for, with the words of
SmolLM2. Against the package tokenizers, put together by hand; and (live) against what transformers' AutoTokenizer makes of the same folder."""

import json

import gguf
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from conftest import run_program
from places import MODEL
from test_tokenizer import compare, texts

QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
NAMES = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # ids 0 to 2 of SmolLM2's vocabulary; "inside": they stay in vocab.json
special = lambda text, **options: AddedToken(text, special=True, **options)
written = lambda token: {"content": token.content, "single_word": token.single_word, "lstrip": token.lstrip, "rstrip": token.rstrip,
                         "normalized": token.normalized, "special": token.special}
DECODER = [special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>", lstrip=True), AddedToken("<tool_call>", normalized=False),
           AddedToken("</tool_call>", normalized=False, single_word=True), AddedToken("Grüße")]
CASES = {
    "gpt2": dict(inside=True, config={"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"},
                 tokens=[special(NAMES[1]), special(NAMES[2]), special(NAMES[0])], ids=(1, 2)),
    "gpt2 with a space and BOS": dict(inside=True, config={"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True, "add_bos_token": True, "add_eos_token": True,
                                      "bos_token": "<|im_start|>", "eos_token": {"__type": "AddedToken", "content": "<|im_end|>", "lstrip": True}},
                                      space=True, around=True, tokens=[special(NAMES[1]), special(NAMES[2], lstrip=True), special(NAMES[0])], ids=(1, 2)),
    "gpt2 with more tokens": dict(inside=True, config={"tokenizer_class": "GPT2Tokenizer", "pad_token": "<pad>", "additional_special_tokens": [
        "<one>", {"__type": "AddedToken", "content": "<two>", "rstrip": True, "normalized": False}]},
        tokens=[special(NAMES[0]), special("<pad>"), special("<one>"), AddedToken("<two>", rstrip=True, normalized=False)], ids=(0, 0)),
    "codegen, tokens of its class": dict(inside=False, config={"tokenizer_class": "CodeGenTokenizer"}, tokens=[special("<|endoftext|>")], ids="new"),
    "qwen2": dict(inside=False, decoder=DECODER, config={"tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
                  "unk_token": None, "add_bos_token": False, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]},
                  tokens=[*DECODER[:2], special("<|im_end|>"), *DECODER[3:]], ids=(-1, 2)),
    "qwen2 as old folders are": dict(inside=False, config={"tokenizer_class": "Qwen2TokenizerFast"}, added={name: k for k, name in enumerate([*NAMES, "<tool_call>"])},
                                     map={"eos_token": {"content": "<|im_end|>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False},
                                          "pad_token": "<|endoftext|>", "additional_special_tokens": ["<|im_start|>"]},
                                     tokens=[special(NAMES[0]), special(NAMES[1]), special(NAMES[2]), AddedToken("<tool_call>")], ids=(-1, 2)),
}


@pytest.fixture(scope="module")
def words():
    """(words by id, merges) of SmolLM2; byte-level words alone."""
    if not MODEL.exists():
        pytest.fail(f"{MODEL} is missing: run scripts/setup")
    fields = gguf.GGUFReader(MODEL).fields
    return fields["tokenizer.ggml.tokens"].contents(), fields["tokenizer.ggml.merges"].contents(), fields["tokenizer.ggml.token_type"].contents()


def folder_of(case, words, path):
    tokens, merges, types = words
    if not case["inside"]:
        tokens = [t for t, kind in zip(tokens, types) if kind != 3]
    first = len(tokens)
    (path / "vocab.json").write_text(json.dumps({t: k for k, t in enumerate(tokens)}, ensure_ascii=False))
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    config = dict(case["config"])
    if "decoder" in case:
        config["added_tokens_decoder"] = {str(first + k): written(t) for k, t in enumerate(case["decoder"])}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    if "added" in case:
        (path / "added_tokens.json").write_text(json.dumps({t: first + k for t, k in case["added"].items()}))
    if "map" in case:
        (path / "special_tokens_map.json").write_text(json.dumps(case["map"]))
    return first


def oracle_of(case, path):
    t = Tokenizer(models.BPE.from_file(str(path / "vocab.json"), str(path / "merges.txt")))
    space = case.get("space", False)
    if case["config"]["tokenizer_class"].startswith("Qwen2"):
        t.normalizer = normalizers.NFC()
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(space, use_regex=False)])
    else:
        t.pre_tokenizer = pre_tokenizers.ByteLevel(space)
    t.decoder = decoders.ByteLevel()
    t.add_tokens(case["tokens"])
    if case.get("around"):
        bos, eos = case["config"]["bos_token"], case["config"]["eos_token"]["content"]
        t.post_processor = processors.TemplateProcessing(f"{bos} $A {eos}", special_tokens=[(x, t.token_to_id(x)) for x in (bos, eos)])
    return t


STRINGS = ["Hello world", " the quick brown fox 12345", "a<|im_end|> b<tool_call>c</tool_call> d", "  <|im_start|>user\nx", "<two>  x<one>y", "<pad><|endoftext|>",
           "Grüße, Gru\u0308\u00dfe und \u212b", "I'LL don't 'Ve", "x</tool_call>y"]


@pytest.mark.parametrize("name", CASES)
def test_ids_equal_those_of_the_package(words, tmp_path, name):
    case = CASES[name]
    folder_of(case, words, tmp_path)
    compare(oracle_of(case, tmp_path), ["model", str(tmp_path)], STRINGS + texts(name, 300))


@pytest.mark.live
@pytest.mark.parametrize("name", CASES)
def test_ids_equal_those_of_transformers(words, tmp_path, name):
    transformers = pytest.importorskip("transformers")
    case = CASES[name]
    first = folder_of(case, words, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(theirs).__name__.removesuffix("Fast") == case["config"]["tokenizer_class"].removesuffix("Fast")
    compare(theirs.backend_tokenizer, ["model", str(tmp_path)], STRINGS + texts(name, 300))
    bos, eos = (first, first) if case["ids"] == "new" else [k + first if not case["inside"] and k >= 0 else k for k in case["ids"]]
    assert (-1 if theirs.bos_token_id is None else theirs.bos_token_id, theirs.eos_token_id) == (bos, eos)


@pytest.mark.parametrize("name", CASES)
def test_bos_and_eos_are_those_that_the_files_name(words, supersonic, tmp_path, name):
    """As the probe writes them, and whether the folder still has its tokenizer after that."""
    case = CASES[name]
    first = folder_of(case, words, tmp_path)
    files = json.loads(run_program("tokenizer_probe", "model", tmp_path, input='{"hf": true}\n').stdout)
    back = Tokenizer.from_str(files["tokenizer.json"])
    bos, eos = (first, first) if case["ids"] == "new" else [k + first if not case["inside"] and k >= 0 else k for k in case["ids"]]
    config = json.loads(files["tokenizer_config.json"])
    text = lambda key: (config.get(key) or {}).get("content") if isinstance(config.get(key), dict) else config.get(key)
    assert (back.token_to_id(text("bos_token")) if text("bos_token") else -1, back.token_to_id(text("eos_token"))) == (bos, eos)
    for sample in STRINGS:
        assert back.encode(sample).ids == oracle_of(case, tmp_path).encode(sample).ids


def refused(folder, *wanted):
    done = run_program("supersonic", "tokenize", folder, "--text", "x", check=False)
    assert done.returncode == 5, (done.returncode, done.stderr)
    for word in wanted:
        assert word in done.stderr, (word, done.stderr)


def test_a_folder_with_the_words_alone_runs(supersonic, tiny_model, tmp_path):
    """And becomes a GGUF file that names the pre-tokenizer."""
    import shutil

    folder = tmp_path / "m"
    shutil.copytree(tiny_model("qwen2"), folder)
    whole = json.loads((folder / "tokenizer.json").read_text())
    plain = supersonic("tokenize", folder, "--text", "the thing, and 42 ones").stdout
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(whole["model"]["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\r\n" + "\r\n".join(" ".join(m) for m in whole["model"]["merges"]))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "GPT2Tokenizer"}))
    assert supersonic("tokenize", folder, "--text", "the thing, and 42 ones").stdout == plain
    supersonic("convert", folder, tmp_path / "m.gguf", "--no-verify")
    assert gguf.GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.pre"].contents() == "gpt-2"


SMALL = {"a": 0, "b": 1, "ab": 2, "<s>": 3}


def small(path, config={"tokenizer_class": "GPT2Tokenizer", "unk_token": "<s>", "bos_token": "<s>", "eos_token": "<s>"}, vocab=SMALL, merges="a b\n", **others):
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "config.json").write_text("{}")
    (path / "vocab.json").write_text(vocab if isinstance(vocab, str) else json.dumps(vocab))
    (path / "merges.txt").write_bytes(merges if isinstance(merges, bytes) else merges.encode())
    for name, value in others.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return path


GPT2 = {"tokenizer_class": "GPT2Tokenizer"}
BAD = {
    "another class": (dict(config={"tokenizer_class": "CLIPTokenizer"}), ["tokenizer_config.json", "tokenizer_class", "CLIPTokenizer", "Qwen2Tokenizer"]),
    "no class": (dict(config={}), ["tokenizer_class", "not there"]),
    "a class that is a number": (dict(config={"tokenizer_class": 1}), ["tokenizer_class", "string"]),
    "a list of words": (dict(vocab=["a"]), ["vocab.json", "object"]),
    "an id that lies": (dict(vocab={"a": 1 << 40}), ["vocab.json", "'a'", "id"]),
    "two words of one id": (dict(vocab={"a": 0, "b": 0}), ["vocab.json", "same id"]),
    "words that are cut off": (dict(vocab='{"a": 0,'), ["vocab.json", "JSON"]),
    "a merge of one word": (dict(merges="#version: 0.2\na b\nab\n"), ["merges.txt", "line 3", "two tokens"]),
    "a merge of three words": (dict(merges="a b a\n"), ["merges.txt", "line 1", "two tokens"]),
    "a merge of unknown words": (dict(merges="a b\na c\n"), ["merges.txt", "line 2", "'c'"]),
    "a merge without its result": (dict(merges="b a\n"), ["merges.txt", "line 1", "'ba'"]),
    "merges that are not UTF-8": (dict(merges=b"a b\n\xff b\n"), ["merges.txt", "UTF-8"]),
    "an added token in a word's place": (dict(config=GPT2 | {"added_tokens_decoder": {"1": {"content": "<x>"}}}), ["'<x>'", "1", "'b'"]),
    "an added word with another id": (dict(config=GPT2 | {"added_tokens_decoder": {"9": {"content": "ab"}}}), ["'ab'", "9", "2"]),
    "an added id that is none": (dict(config=GPT2 | {"added_tokens_decoder": {"x": {"content": "<x>"}}}), ["added_tokens_decoder.x"]),
    "an added token without a text": (dict(added_tokens={"<x>": "7"}), ["added_tokens.json", "<x>", "integer"]),
    "a map that is a list": (dict(special_tokens_map=[]), ["special_tokens_map.json", "object"]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_by_name(tmp_path, case):
    change, wanted = BAD[case]
    refused(small(tmp_path, **change), str(tmp_path), *wanted)


def test_one_of_the_two_files_is_not_enough(tmp_path):
    for name in ("vocab.json", "merges.txt"):
        folder = tmp_path / name
        folder.mkdir()
        (small(folder) / name).unlink()
        refused(folder, "tokenizer.json", "vocab.json and merges.txt")
