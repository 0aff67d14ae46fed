"""Tokenizers that people have, against the packages `tokenizers` and `sentencepiece` and llama.cpp's expected ids (scripts/peers fetches
the files). SUPERSONIC_FUZZ_STRINGS sets the number of random strings for each; docs/testing.md has the long run.
"""
import json

import pytest

pytestmark = pytest.mark.live
pytest.importorskip("tokenizers")
from places import LLAMA_CPP  # noqa: E402
from test_tokenizer import STRINGS, ask, texts  # noqa: E402
import tokenizer_files as files  # noqa: E402

MODELS = LLAMA_CPP / "models"
VOCABULARIES = sorted(MODELS.glob("ggml-vocab-*.gguf"))
PAIRS = [p for p in VOCABULARIES if p.with_name(p.name + ".inp").exists()]
PIECES = sorted([*files.FOLDER.glob("*/*.model"), *files.FOLDER.glob("*/*.model.*")])


def name_of(path):
    return path.name


def compare(oracle, arguments, strings, spellings):
    """spellings: of special tokens; text that may not have them is compared where it has none, since the package finds whole words."""
    requests, wanted = [], []

    def want(request, value):
        requests.append(request), wanted.append(value)

    oracle.encode_special_tokens = False
    for text in strings:
        ids = oracle.encode(text, add_special_tokens=False).ids
        want({"encode": text, "add": False, "parse": True}, ids)
        want({"decode": ids, "skip": True}, oracle.decode(ids))
        want({"stream": ids, "skip": True}, oracle.decode(ids))
    oracle.encode_special_tokens = True
    for text in strings:
        if not any(s in text for s in spellings):
            want({"spans": [[text[: len(text) // 3], False], [text[len(text) // 3 :], False]]}, oracle.encode(text, add_special_tokens=False).ids)
    bad = [(r, w, g) for r, w, g in zip(requests, wanted, ask(arguments, requests)) if w != g]
    assert not bad, f"{len(bad)} of {len(wanted)} differ, first: {bad[0]!r}"


@pytest.mark.parametrize("name", files.json_files())
def test_tokenizer_json_of_a_package(name, tmp_path):
    oracle = files.json_files()[name]()
    path = files.FOLDER / name
    if path.suffix != ".json":
        path = tmp_path / "tokenizer.json"
        oracle.save(str(path))
    special = [t.content for t in oracle.get_added_tokens_decoder().values() if t.special]
    compare(oracle, ["json", str(path)], texts(name, STRINGS), special)


@pytest.mark.parametrize("path", PAIRS, ids=name_of)
def test_ids_are_those_that_llama_cpp_expects(path):
    inputs = path.with_name(path.name + ".inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    outputs = [[int(i) for i in line.split()] for line in path.with_name(path.name + ".out").read_text().split("\n")]
    got = ask(["model", str(path)], [{"encode": text, "add": False} for text in inputs])
    assert len(inputs) > 40 and [(t, w, g) for t, w, g in zip(inputs, outputs, got) if w != g] == []


@pytest.mark.parametrize("path", VOCABULARIES, ids=name_of)
def test_gguf_vocabulary(path):
    keys = files.keys(path)
    strings = texts(path.name, STRINGS)
    special = [t for t, kind in zip(keys["tokens"], keys.get("token_type", [])) if kind in (2, 3, 6) and t]
    if keys["model"] == "llama":
        compare_pieces(files.sentence_piece_of_gguf(path), ["model", str(path)], strings, keys, special)
        return
    oracle = files.oracle_of_gguf(path)
    if oracle is None:
        assert path.name in ("ggml-vocab-aquila.gguf", "ggml-vocab-gpt-neox.gguf")  # old files without the name of a pre-tokenizer
        return
    compare(oracle, ["model", str(path)], strings, special)


def compare_pieces(oracle, arguments, strings, keys, special):
    defined = [t for t, kind in zip(keys["tokens"], keys["token_type"]) if kind == 4]
    # A piece that users defined has no space in front of what follows it there; and "▁" is a space.
    strings = [s for s in strings if s and not any(d in s for d in [*defined, *special, "\0"])]
    got = ask(arguments, [{"encode": s, "add": False} for s in strings])
    wanted = [oracle.encode(s) for s in strings]
    bad = [(s, w, g) for s, w, g in zip(strings, wanted, got) if w != g]
    assert not bad, f"{len(bad)} of {len(strings)} differ, first: {bad[0]!r}"
    decoded = ask(arguments, [{"decode": ids} for ids in wanted] + [{"stream": ids} for ids in wanted])
    assert decoded[: len(wanted)] == decoded[len(wanted) :]
    assert decoded[: len(wanted)] == [oracle.decode(ids) for ids in wanted]


def sentence_piece_proto(path):
    """The pieces that users defined."""
    from sentencepiece import sentencepiece_model_pb2 as pb
    model = pb.ModelProto()
    model.ParseFromString(path.read_bytes())
    return [piece for piece in model.pieces if piece.type == 4]


@pytest.mark.parametrize("path", PIECES, ids=name_of)
def test_sentence_piece_model(path):
    import sentencepiece
    oracle = sentencepiece.SentencePieceProcessor(model_file=str(path))
    n = oracle.get_piece_size()
    kinds = [3 if oracle.is_control(i) else 2 if oracle.is_unknown(i) else 6 if oracle.is_byte(i) else 1 for i in range(n)]
    for piece in sentence_piece_proto(path):
        kinds[oracle.piece_to_id(piece.piece)] = piece.type
    keys = {"tokens": [oracle.id_to_piece(i) for i in range(n)], "token_type": kinds}
    special = [t for t, kind in zip(keys["tokens"], kinds) if kind != 1]
    compare_pieces(oracle, ["pieces", str(path)], texts(path.name, STRINGS), keys, special)


def test_a_folder_with_a_sentence_piece_model_alone(tmp_path):
    """tokenizer.model with tokenizer_config.json: its BOS, and tokens that were added."""
    (tmp_path / "tokenizer.model").write_bytes(PIECES[0].read_bytes())
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "eos_token": {"content": "<|end|>"},
              "added_tokens_decoder": {"700000": {"content": "<|end|>", "special": True, "normalized": False}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    plain, ended = ask(["model", str(tmp_path)], [{"encode": "Hello"}, {"encode": "Hello<|end|>", "parse": True}])
    assert plain[0] == 1 and ended == plain + [700000]
