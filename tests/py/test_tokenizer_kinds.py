"""Unigram, WordPiece, WordLevel and the steps that go with them, against the `tokenizers` package: a small vocabulary is trained here for
each combination, and every normalizer, pre-tokenizer and decoder is tried by itself.
SUPERSONIC_FUZZ_STRINGS=20000 makes the long run.
"""
import base64
import json
import struct

import pytest

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

from test_tokenizer import EXTRA, PIPELINES as OTHER, STRINGS, WORDS, ask, corpus, texts  # noqa: E402

N, P, D = normalizers, pre_tokenizers, decoders
SPACES = Regex(" {2,}")


def charsmap(rules):
    """SentencePiece's compiled map of {text: replacement}: a double array with one block of 256 units a node."""
    trie = {}
    for key, value in rules.items():
        node = trie
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[None] = value
    units, blob = [0] * 256, b""

    # Every node's children lie in a block of their own: offset = position ^ block, whose low byte is the position's.
    def build(node, at):
        nonlocal blob
        block = len(units)
        units.extend([0] * 256)
        offset = at ^ block
        units[at] |= offset << 10
        assert offset < 1 << 21
        for byte, child in node.items():
            if byte is None:
                units[block] = 1 << 31 | len(blob)
                units[at] |= 1 << 8
                blob += child.encode() + b"\0"
                continue
            units[block ^ byte] |= byte
            build(child, block ^ byte)

    build(trie, 0)
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + blob


RULES = {"\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u3000": " ", "\u2003": " ", "\ufb01": "fi", "\u00bd": "1/2", "\u2460": "1", "\uff21": "A", "\u00e9": "e\u0301",
         "e\u0301": "\u00e9", "\u200b": "", "\u0085": " ", "\u0958": "\u0915\u093c", "\u212b": "\u00c5", "\u00a9": "(c)", "\uff9e": "\u3099", "a\u0323": "A", "\x7f": ""}


def described(normalizer=None, pre=None, decoder=None, model=None):
    part = {"version": "1.0", "added_tokens": [], "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": None, "decoder": decoder,
            "model": model or {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}}
    return json.dumps(part)


def precompiled(rules=RULES):
    text = described({"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap(rules)).decode()})
    return Tokenizer.from_str(text).normalizer


KNOWN = [t for t in [" ".join(WORDS)] * 20 + corpus() if set(t) <= set(" ".join(WORDS)) | set(map(chr, range(32, 127)))]


def train(model, trainer, normalizer=None, pre=None, decoder=None, post=None, extra=()):
    t = Tokenizer(model)
    for name, part in (("normalizer", normalizer), ("pre_tokenizer", pre), ("decoder", decoder)):
        if part is not None:
            setattr(t, name, part)
    t.train_from_iterator(KNOWN, trainer)  # whose alphabet is small, so that unknown characters are left to meet
    for token in extra:
        t.add_tokens([token])
    if post:
        t.post_processor = post(t)
    return t


def unigram(byte_fallback=False, **parts):
    t = train(models.Unigram(), trainers.UnigramTrainer(vocab_size=1200, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False), **parts)
    if byte_fallback:
        data = json.loads(t.to_str())
        data["model"]["vocab"] += [[f"<0x{b:02X}>", 0.0] for b in range(256)]
        data["model"]["byte_fallback"] = True
        t = Tokenizer.from_str(json.dumps(data))
    return t


def word_piece(prefix="##", **parts):
    return train(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=parts.pop("longest", 100), continuing_subword_prefix=prefix),
                 trainers.WordPieceTrainer(vocab_size=2500, special_tokens=["[UNK]", "[CLS]", "[SEP]"], continuing_subword_prefix=prefix,
                                           limit_alphabet=500, show_progress=False), **parts)


def word_level(**parts):
    return train(models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(vocab_size=800, special_tokens=["<unk>", "<s>"], show_progress=False), **parts)


def cls_sep(t):
    return processors.BertProcessing(("[SEP]", t.token_to_id("[SEP]")), ("[CLS]", t.token_to_id("[CLS]")))


def roberta(t):
    return processors.RobertaProcessing(("</s>", t.token_to_id("</s>")), ("<s>", t.token_to_id("<s>")))


T5 = dict(pre=P.Metaspace(), decoder=D.Metaspace())
PIPELINES = {
    "t5": lambda: unigram(normalizer=N.Sequence([precompiled(), N.Strip(left=False), N.Replace(SPACES, " ")]), **T5),
    "albert": lambda: unigram(normalizer=N.Sequence([N.Replace("``", '"'), N.NFKD(), N.StripAccents(), N.Lowercase(), N.Replace(SPACES, " ")]), post=roberta, **T5),
    "unigram_bytes": lambda: unigram(True, pre=P.Metaspace(prepend_scheme="first"), normalizer=N.Nmt(),
                                     decoder=D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)])),
    "unigram_whole": lambda: unigram(normalizer=N.NFKC(), pre=P.Metaspace(prepend_scheme="never", split=False), decoder=D.Metaspace(prepend_scheme="never"), extra=EXTRA),
    "unigram_scripts": lambda: unigram(pre=P.Sequence([P.WhitespaceSplit(), P.UnicodeScripts()]), decoder=D.Fuse()),
    "unigram_no_steps": lambda: unigram(),
    "bert": lambda: word_piece(normalizer=N.BertNormalizer(), pre=P.BertPreTokenizer(), decoder=D.WordPiece(), post=cls_sep),
    "bert_cased": lambda: word_piece(normalizer=N.BertNormalizer(lowercase=False), pre=P.BertPreTokenizer(), decoder=D.WordPiece(cleanup=False), extra=EXTRA),
    "bert_accents": lambda: word_piece(normalizer=N.BertNormalizer(strip_accents=False, handle_chinese_chars=False, clean_text=False), pre=P.BertPreTokenizer(), longest=7),
    "word_piece_prefix": lambda: word_piece("+", normalizer=N.NFC(), pre=P.Whitespace(), decoder=D.WordPiece("+")),
    "word_level": lambda: word_level(pre=P.Whitespace(), extra=EXTRA[:2]),
    "word_level_scripts": lambda: word_level(normalizer=N.Lowercase(), pre=P.UnicodeScripts(), decoder=D.WordPiece()),
    "word_level_fixed": lambda: word_level(pre=P.Sequence([P.CharDelimiterSplit(" "), P.FixedLength(length=3)])),
    "ctc": lambda: word_level(pre=P.Split("", "isolated"), decoder=D.CTC("<s>", "e")),
}


def compare(oracle, arguments, strings):
    """Ids of text with and without special tokens, and text of ids, as in test_tokenizer; special spellings in text that may not have them
    never become their ids, where the package may find them as ordinary words."""
    special = {i for i, t in oracle.get_added_tokens_decoder().items() if t.special}
    names = [t.content for t in oracle.get_added_tokens_decoder().values() if t.special]
    requests, wanted = [], []

    def want(request, value):
        requests.append(request), wanted.append(value)

    oracle.encode_special_tokens = False
    for text in strings:
        ids = oracle.encode(text).ids
        want({"encode": text, "parse": True}, ids)
        want({"spans": [[text, True]]}, oracle.encode(text, add_special_tokens=False).ids)
        for skip in (True, False):
            want({"decode": ids, "skip": skip}, oracle.decode(ids, skip_special_tokens=skip))
    oracle.encode_special_tokens = True
    plain = [t for t in strings if not any(name in t for name in names)]
    for text in plain:
        ids = oracle.encode(text, add_special_tokens=False).ids
        want({"encode": text, "add": False}, ids)
        want({"spans": [[text[: len(text) // 2], False], [text[len(text) // 2:], False]]}, ids)
    answers = ask(arguments, requests)
    bad = [(r, w, got) for r, w, got in zip(requests, wanted, answers) if w != got]
    assert not bad, f"{len(bad)} of {len(wanted)} differ, first: {bad[0]!r}"
    unknown = oracle.token_to_id("<unk>"), oracle.token_to_id("[UNK]")
    tricked = ask(arguments, [{"encode": t, "add": False} for t in strings])
    assert not [(t, ids) for t, ids in zip(strings, tricked) if special.difference(unknown) & set(ids)]


@pytest.mark.parametrize("name", PIPELINES)
def test_ids_and_text_equal_the_package(name, tmp_path):
    oracle = PIPELINES[name]()
    path = tmp_path / "tokenizer.json"
    oracle.save(str(path))
    compare(oracle, ["json", str(path)], texts(name, STRINGS))


@pytest.mark.parametrize("name", PIPELINES)
def test_written_json_gives_the_same_ids(name, tmp_path):
    path = tmp_path / "tokenizer.json"
    PIPELINES[name]().save(str(path))
    oracle = Tokenizer.from_file(str(path))  # reading may move a score by its last bit, which decides between equal splits
    again = Tokenizer.from_str(ask(["json", str(path)], [{"hf": True}])[0]["tokenizer.json"])
    strings = texts("again" + name, 300)
    assert [again.encode(s, add_special_tokens=False).ids for s in strings] == [oracle.encode(s, add_special_tokens=False).ids for s in strings]


STEPS = {  # a step by itself; a byte-level alphabet as model shows what it makes of a text
    **{f"normalizer {type(n).__name__} {i}": dict(normalizer=n) for i, n in enumerate([
        N.NFC(), N.NFD(), N.NFKC(), N.NFKD(), N.Lowercase(), N.Strip(), N.Strip(left=False), N.Strip(right=False), N.StripAccents(), N.Replace("a", "bb"),
        N.Replace(Regex(r"\s"), ""), N.Prepend("▁"), N.ByteLevel(), N.Nmt(), N.BertNormalizer(), N.BertNormalizer(clean_text=False),
        N.BertNormalizer(handle_chinese_chars=False, strip_accents=True, lowercase=False), precompiled(), N.Sequence([])])},
    **{f"pre {type(p).__name__} {i}": dict(pre=p) for i, p in enumerate([
        P.ByteLevel(), P.ByteLevel(False, use_regex=False), P.Metaspace(), P.Metaspace("_", "never", False), P.Metaspace("▁", "first", True), P.Whitespace(),
        P.WhitespaceSplit(), P.BertPreTokenizer(), P.Digits(True), P.Digits(False), P.UnicodeScripts(), P.CharDelimiterSplit("e"), P.FixedLength(length=4),
        *(P.Punctuation(b) for b in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous")),
        P.Split("", "isolated"), P.Split("", "removed"), P.Split(Regex(""), "isolated"), P.Split("e", "merged_with_next"), *(P.Split(Regex(r"\w+|\d"), b, invert=i) for b in ("removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous") for i in (False, True)),
        P.Sequence([])])},
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_by_itself(name, tmp_path):
    """The model is a BPE of single bytes, and words end in a token of their own, so that the ids tell the text and where it was cut."""
    parts = STEPS[name]
    letters = {letter: i for i, letter in enumerate(["<unk>", *sorted(P.ByteLevel.alphabet())])}
    vocab = {**letters, **{letter + "|": len(letters) + i for i, letter in enumerate(letters)}}
    oracle = Tokenizer(models.BPE(vocab=vocab, merges=[], end_of_word_suffix="|", unk_token="<unk>"))
    if "normalizer" in parts:
        oracle.normalizer = parts["normalizer"]
    oracle.pre_tokenizer = P.Sequence([*([parts["pre"]] if "pre" in parts else []), P.ByteLevel(False, use_regex=False)])
    path = tmp_path / "tokenizer.json"
    oracle.save(str(path))
    strings = texts("step" + name, STRINGS)
    got = ask(["json", str(path)], [{"encode": s, "add": False} for s in strings])
    bad = [(s, oracle.encode(s).tokens, ids) for s, ids in zip(strings, got) if ids != oracle.encode(s).ids]
    assert not bad, f"{len(bad)} of {len(strings)} differ, first: {bad[0]!r}"


DECODERS = {
    "none": None, "byte level": D.ByteLevel(), "replace": D.Replace("e", "--"), "replace regex": D.Replace(Regex("[aeiou]+"), "*"), "fuse": D.Fuse(),
    "byte fallback": D.ByteFallback(), "strip": D.Strip("e", 2, 1), "metaspace": D.Metaspace(), "metaspace never": D.Metaspace("e", "never"),
    "bpe": D.BPEDecoder("ing"), "word piece": D.WordPiece("##", True), "word piece bare": D.WordPiece("a", False), "ctc": D.CTC("e", "a", True),
    "ctc bare": D.CTC("the", "a", False),
    "llama": D.Sequence([D.Replace("▁", " "), D.ByteFallback(), D.Fuse(), D.Strip(" ", 1, 0)]),
    "after fuse": D.Sequence([D.Fuse(), D.Replace("th", "TT"), D.Strip("T", 3, 2), D.Metaspace("e", "always")]),
    "all after fuse": D.Sequence([D.Fuse(), D.ByteFallback(), D.ByteLevel(), D.WordPiece("T", True), D.BPEDecoder("s"), D.CTC("q", "i", True)]),
    "regex after fuse": D.Sequence([D.ByteFallback(), D.Fuse(), D.Replace(Regex("([a-z])\\1"), "2"), D.Strip("t", 1, 1)]),
    "bytes then strip": D.Sequence([D.ByteFallback(), D.Strip("\n", 1, 1), D.Fuse()]),
    "word piece then fuse": D.Sequence([D.WordPiece("##", True), D.Fuse(), D.Strip("T", 1, 1)]),
}


def decoded(oracle, ids):
    try:
        return oracle.decode(ids)
    except BaseException:  # it panics where a strip's two ends overlap
        return None


@pytest.mark.parametrize("name", DECODERS)
def test_each_decoder_decodes_and_streams(name, tmp_path):
    """Random ids, so that byte tokens, repetitions and affixes meet in every order; streamed pieces are whole characters (the probe
    refuses others) and make up the decoded text, unless byte tokens were no UTF-8."""
    import random
    rng = random.Random(name)
    pieces = ["the", "e", " e", "▁", "▁the", "##ing", "ing", "s", "a", "TT", "th", "t", "h", "T", "é", "▁é", "n't", " n't", ".", " .", "Ġthe", "Ċ", "Ã", "©", "ÃĢ", "中", "🎉",
              " do not", "'", "o", "do", " 's", "\n", "<0x0A>", "<0xC3>", "<0xA9>", "<0xE4>", "<0xB8>", "<0xAD>", "<0x41>", "<0xFF>", "q", "i", "aa", "\u0301"]
    vocab = {p: i for i, p in enumerate(dict.fromkeys(["<unk>", *pieces]))}
    oracle = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    if DECODERS[name] is not None:
        oracle.decoder = DECODERS[name]
    oracle.add_special_tokens(["<unk>", AddedToken("<special>", special=True)])
    path = tmp_path / "tokenizer.json"
    oracle.save(str(path))
    count = oracle.get_vocab_size()
    lists = [[rng.randrange(count) for _ in range(rng.randrange(12))] for _ in range(max(400, STRINGS // 3))]
    utf8 = [[vocab[p] for p in ("<0xE4>", "<0xB8>", "<0xAD>")], [vocab["<0x41>"], vocab["<0xC3>"], vocab["<0xA9>"]]]
    lists += [rng.choice(utf8) + ids[:3] + rng.choice(utf8) for ids in lists[:200]]
    lists, wanted = map(list, zip(*[(ids, text) for ids in lists if (text := decoded(oracle, ids)) is not None]))
    assert ask(["json", str(path)], [{"decode": ids} for ids in lists]) == wanted
    streamed = ask(["json", str(path)], [{"stream": ids} for ids in lists])
    bad = [(ids, w, s) for ids, w, s in zip(lists, wanted, streamed) if s != w and "\ufffd" not in w]
    assert not bad, f"{len(bad)} of {len(lists)} differ, first: {bad[0]!r}"


@pytest.mark.parametrize("what, word", [
    ({"normalizer": {"type": "Rot13"}}, "Rot13"), ({"pre_tokenizer": {"type": "Syllables"}}, "Syllables"), ({"decoder": {"type": "Morse"}}, "Morse"),
    ({"post_processor": {"type": "Wrap"}}, "Wrap"), ({"model": {"type": "Markov"}}, "Markov"),
    ({"model": {"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}, "merges": []}}, "model.dropout"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "precompiled_charsmap"),
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "A*=="}}, "base64"),
    ({"model": {"type": "Unigram", "vocab": [["a", "b"]]}}, "vocab[0]"),
    ({"model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "u", "continuing_subword_prefix": "", "max_input_chars_per_word": 9}}, "unk_token"),
])
def test_what_is_unknown_is_refused_by_name(what, word, tmp_path):
    import subprocess
    from places import BIN
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(described()), **what}))
    done = subprocess.run([BIN / "tokenizer_probe", "json", str(path)], input="", text=True, capture_output=True)
    assert done.returncode and word in done.stderr and str(path) in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["t5", "bert", "unigram_bytes", "word_piece_prefix"])
def test_bytes_that_are_no_text_are_replaced(name, tmp_path):
    """As Python's errors="replace" does it, which is how such bytes reach the package."""
    import random
    rng = random.Random(name)
    oracle = PIPELINES[name]()
    oracle.save(str(tmp_path / "tokenizer.json"))
    junk = []
    for text in texts("junk", STRINGS):
        data = bytearray(text.encode())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data) + 1) : rng.randrange(len(data) + 1)] = bytes(rng.randrange(128, 256) for _ in range(rng.randint(0, 4)))
        junk.append(bytes(data))
    got = ask(["json", str(tmp_path / "tokenizer.json")], [{"hex": data.hex(), "add": False, "parse": True} for data in junk])
    wanted = [oracle.encode(data.decode(errors="replace"), add_special_tokens=False).ids for data in junk]
    bad = [(data, w, g) for data, w, g in zip(junk, wanted, got) if w != g]
    assert not bad, f"{len(bad)} differ, first: {bad[0]!r}"


RUNS = {"letter": "a", "space": " ", "digit": "1", "line": "\n", "mark": "\u0301", "han": "\u4e2d", "emoji": "\U0001f389", "bracket": "<", "apostrophe": "'", "pair": "ab", "piece": "\u2581"}
LINEAR = {"llama2": OTHER["llama2"], "gemma": OTHER["gemma"], "gpt2": OTHER["gpt2"], "qwen2": OTHER["qwen2"], "o200k": OTHER["o200k"],
          **{name: PIPELINES[name] for name in ("t5", "albert", "unigram_whole", "unigram_bytes", "bert", "word_piece_prefix")}}


SMALL = 1 << 20 if STRINGS >= 5000 else 1 << 16  # bytes


@pytest.mark.parametrize("name", LINEAR)
def test_time_grows_linearly_with_the_text(name, tmp_path):
    """A text and one of eight times its size, each a single run that nothing cuts: quadratic work would take 64 times as long."""
    oracle = LINEAR[name]()
    oracle.save(str(tmp_path / "tokenizer.json"))
    requests = []
    for what, unit in RUNS.items():
        for size in (SMALL, 8 * SMALL):
            path = tmp_path / f"{what}{size}"
            path.write_text(unit * (size // len(unit.encode())), newline="")
            requests.append({"bench": str(path), "whole": True, "rounds": 2})
    answers = ask(["json", str(tmp_path / "tokenizer.json")], requests)
    slow = [(what, small["seconds"], large["seconds"]) for what, small, large in zip(RUNS, answers[::2], answers[1::2]) if large["seconds"] > 24 * small["seconds"] + 0.1]
    assert not slow, slow


DIGITS = [r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", r"\d{1,3}(?=(?:\d{3})*\b)", r"(?=(\d{3})+(?!\d))"]


@pytest.mark.parametrize("pattern", DIGITS)
def test_digits_are_grouped_from_the_end_in_linear_time(pattern, tmp_path):
    """Patterns of AFMoE, Aya and SuperBPE, for which a backtracking engine needs quadratic time."""
    import random
    rng = random.Random(pattern)
    letters = {letter: i for i, letter in enumerate(["<unk>", *sorted(P.ByteLevel.alphabet())])}
    vocab = {**letters, **{letter + "|": len(letters) + i for i, letter in enumerate(letters)}}
    oracle = Tokenizer(models.BPE(vocab=vocab, merges=[], end_of_word_suffix="|", unk_token="<unk>"))
    oracle.pre_tokenizer = P.Sequence([P.Split(Regex(pattern), "isolated"), P.ByteLevel(False, use_regex=False)])
    oracle.save(str(tmp_path / "tokenizer.json"))
    parts = ["1", "22", "333", "4444", "1234567", "\u0663\u0664", "\u00bd", "\u00b2", "a", "_", " ", ".", "\u0301", "\u4e2d", "-", "\n", "\u2460"]
    strings = ["".join(rng.choice(parts) for _ in range(rng.randint(1, 9))) for _ in range(STRINGS)]
    got = ask(["json", str(tmp_path / "tokenizer.json")], [{"encode": s, "add": False} for s in strings])
    bad = [(s, oracle.encode(s).tokens, ids) for s, ids in zip(strings, got) if ids != oracle.encode(s).ids]
    assert not bad, f"{len(bad)} differ, first: {bad[0]!r}"
    (tmp_path / "digits").write_text("7" * (1 << 23))
    [long] = ask(["json", str(tmp_path / "tokenizer.json")], [{"bench": str(tmp_path / "digits"), "whole": True, "rounds": 1}])
    assert long["tokens"] == 1 << 23 and long["seconds"] < 20
