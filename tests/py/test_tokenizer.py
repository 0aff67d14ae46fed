"""Our tokenizer against the `tokenizers` package, live: small vocabularies trained here for each pipeline shape, and real ones
where SUPERSONIC_TOKENIZER_DATA names a folder of tokenizer.json files (*.json) and of GGUF keys (keys/*.json).
SUPERSONIC_FUZZ_STRINGS=20000 makes the long run.
"""
import glob
import json
import os
import random
import subprocess
import unicodedata

import pytest

from places import BIN

tokenizers = pytest.importorskip("tokenizers")
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402

PROBE = BIN / "tokenizer_probe"
STRINGS = int(os.environ.get("SUPERSONIC_FUZZ_STRINGS", "1500"))
DATA = os.environ.get("SUPERSONIC_TOKENIZER_DATA", "")
SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<unk>", "<|endoftext|>"]

L3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
      r"|\s*[\r\n]+|\s+(?!\S)|\s+")
Q2 = L3.replace("{1,3}", "")
Q35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
       r"|\s*[\r\n]+|\s+(?!\S)|\s+")
UP, LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
END = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = (r"[^\r\n\p{L}\p{N}]?" + UP + "*" + LOW + "+" + END + r"|[^\r\n\p{L}\p{N}]?" + UP + "+" + LOW + "*" + END
         + r"|\p{N}{1,3}|" + TAIL)
TEKKEN = r"[^\r\n\p{L}\p{N}]?" + UP + "*" + LOW + r"+|[^\r\n\p{L}\p{N}]?" + UP + "+" + LOW + r"*|\p{N}|" + TAIL
GPT4 = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
        r"|\s+(?!\S)|\s")

SCRIPTS = [(0x41, 0x7B), (0xC0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x620, 0x66F),
           (0x900, 0x97F), (0xE00, 0xE5B), (0x1100, 0x11FF), (0x1F00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x218F),
           (0x3000, 0x30FF), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xFB00, 0xFB06), (0xFF00, 0xFFEF), (0x10400, 0x1044F),
           (0x1D400, 0x1D4FF), (0x1F300, 0x1F64F), (0x1F900, 0x1F9FF), (0xE0100, 0xE0110), (0x20000, 0x20100)]
WORDS = ("the of hello world don't I'LL we've it's they're CamelCase snake_case x1y22z333 3.14159 0xFF 12345678 def foo(self): "
         "return None; if (a<b && c>=d) { } // comment http://example.org/a?b=c#d résumé naïve Straße ÇA İstanbul ŉ ſ 'ſ K ﬁ "
         "मेरा नाम สวัสดี 你好世界 こんにちは 안녕하세요 שלום مرحبا Привет γειά 👨‍👩‍👧 🏳️‍🌈 é é Å Ω ½ ² ٣").split()
SPACES = [" ", "  ", "    ", "\t", "\n", "\n\n", "\r\n", " \n ", "\u00a0", "\u2003", "\u3000", "\u180e", "\u200b", "\x85", "\x1f", ""]
LOOKALIKES = SPECIALS + ["<|im_", "end|>", "<s", "<<s>>", "<|im_start|", "▁", "▁▁", "<0x0A>", "<0x41>", "Ġ", "Ċ", "<tool>", "word"]
# Digits, punctuation, marks, cases and forms that came with some version of Unicode: parts of the package know them, others do not.
LOOKALIKES += ["7\U00011DE97\U00016FF4", "a\u2E43b\u166Dc\U00011A9A", "a\u0898\u0301\u0323", "\u0E01\u0EBA\u1ABF", "\u1C89\uA7DC\U00016EA0",
               "a\U0001E040b", "\U00011935\U00011930", "\U00011938\u0301", "\u32FF\U0001FBF5"]


def random_text(rng):
    parts = []
    for _ in range(rng.randint(1, 14)):
        kind = rng.random()
        if kind < 0.42:
            parts.append(rng.choice(WORDS))
        elif kind < 0.55:
            low, high = rng.choice(SCRIPTS)
            parts.append("".join(chr(rng.randrange(low, high)) for _ in range(rng.randint(1, 6))))
        elif kind < 0.62:
            code = rng.randrange(1, 0x110000)
            parts.append(chr(code) if not 0xD800 <= code < 0xE000 else "x")
        elif kind < 0.72:
            parts.append("".join(rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") for _ in range(rng.randint(1, 5))))
        elif kind < 0.8:
            parts.append(str(rng.randrange(10 ** rng.randint(1, 9))))
        elif kind < 0.88:
            parts.append(rng.choice(LOOKALIKES))
        else:
            parts.append(rng.choice(SPACES) * rng.randint(1, 4))
        parts.append(rng.choice(SPACES))
    return "".join(parts)


def texts(seed, count):
    rng = random.Random(seed)
    return ["", " ", "a", "\n", "  a", "<s>", "a<|im_end|>b"] + [random_text(rng) for _ in range(count)]


def ask(arguments, requests):
    done = subprocess.run([PROBE, *arguments], input="\n".join(json.dumps(r) for r in requests) + "\n", text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.split("\n") if line]
    assert len(answers) == len(requests)
    return answers


def compare(oracle, arguments, strings):
    requests, wanted, labels = [], [], []

    def want(request, value, label):
        requests.append(request), wanted.append(value), labels.append(label)

    oracle.encode_special_tokens = False
    for text in strings:
        ids = oracle.encode(text).ids
        want({"encode": text, "parse": True}, ids, text)
        want({"decode": ids, "skip": True}, oracle.decode(ids), ids)
        want({"decode": ids, "skip": False}, oracle.decode(ids, skip_special_tokens=False), ids)
        want({"spans": [[text, True]]}, oracle.encode(text, add_special_tokens=False).ids, text)
    oracle.encode_special_tokens = True
    for text in strings:
        plain = oracle.encode(text, add_special_tokens=False).ids
        want({"encode": text, "add": False}, plain, text)
        want({"spans": [[text[: len(text) // 2], False], [text[len(text) // 2:], False]]}, plain, text)
    oracle.encode_special_tokens = False
    bad = [(label, value, got) for label, value, got in zip(labels, wanted, ask(arguments, requests)) if value != got]
    assert not bad, f"{len(bad)} of {len(wanted)} differ, first: {bad[0]!r}"


def corpus():
    rng = random.Random(7)
    return [random_text(rng) for _ in range(3000)] + [" ".join(WORDS)] * 20


def train(normalizer, pre, decoder, post=None, byte_level=True, specials=SPECIALS, extra=(), **model):
    t = Tokenizer(models.BPE(**model))
    if normalizer is not None:
        t.normalizer = normalizer
    if pre is not None:
        t.pre_tokenizer = pre
    if decoder is not None:
        t.decoder = decoder
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    initial = list(specials) + ([f"<0x{b:02X}>" for b in range(256)] if model.get("byte_fallback") else [])
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=2500, special_tokens=initial, initial_alphabet=alphabet,
                                                        limit_alphabet=600, show_progress=False))
    described = json.loads(t.to_str())
    if model.get("byte_fallback"):  # byte tokens are no added tokens in real files
        described["added_tokens"] = [a for a in described["added_tokens"] if not a["content"].startswith("<0x")]
    t = Tokenizer.from_str(json.dumps(described))
    for token in extra:
        t.add_tokens([token])
    if post:
        t.post_processor = post(t)
    return t


def split_then_bytes(pattern, **options):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), options.pop("behavior", "isolated"), **options),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def bos(t):
    return processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A $B",
                                         special_tokens=[("<s>", t.token_to_id("<s>")), ("</s>", t.token_to_id("</s>"))])


EXTRA = [AddedToken("<tool>", special=False, normalized=False), AddedToken("word", single_word=True),
         AddedToken("<l>", lstrip=True), AddedToken("world", rstrip=True, normalized=True), AddedToken("  ", normalized=False)]
S = normalizers
BL = decoders.ByteLevel
SPM_DECODER = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
PIPELINES = {
    "gpt2": lambda: train(None, pre_tokenizers.ByteLevel(add_prefix_space=False), BL()),
    "gpt2_prefix": lambda: train(None, pre_tokenizers.ByteLevel(add_prefix_space=True), BL(), extra=EXTRA),
    "smollm": lambda: train(None, pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]), BL()),
    "llama3": lambda: train(None, split_then_bytes(L3), BL(), post=bos, ignore_merges=True),
    "qwen2": lambda: train(S.NFC(), split_then_bytes(Q2), BL(), extra=EXTRA),
    "qwen35": lambda: train(S.NFC(), split_then_bytes(Q35), BL()),
    "o200k": lambda: train(None, split_then_bytes(O200K), BL()),
    "tekken": lambda: train(None, split_then_bytes(TEKKEN), BL(), ignore_merges=True),
    "gpt4_possessive": lambda: train(None, split_then_bytes(GPT4), BL()),
    "removed_invert": lambda: train(None, split_then_bytes(L3, behavior="removed", invert=True), BL()),
    "merged_previous": lambda: train(None, split_then_bytes(r"[,.]\s*", behavior="merged_with_previous"), BL()),
    "merged_next": lambda: train(None, split_then_bytes(r"\p{Lu}", behavior="merged_with_next"), BL()),
    "contiguous": lambda: train(None, split_then_bytes(r"\d|\w\b", behavior="contiguous"), BL()),
    "falcon": lambda: train(None, pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(False),
                            pre_tokenizers.Digits(False), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")]), BL()),
    "whitespace_lower": lambda: train(S.Sequence([S.NFKC(), S.Lowercase(), S.Strip()]), pre_tokenizers.Whitespace(), None,
                                      byte_level=False, unk_token="<unk>", extra=EXTRA),
    "suffix": lambda: train(S.NFD(), pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]),
                            decoders.BPEDecoder("</w>"), byte_level=False, unk_token="<unk>", fuse_unk=True),
    "metaspace_first": lambda: train(None, pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace(prepend_scheme="first"),
                                     byte_level=False, unk_token="<unk>", byte_fallback=True, fuse_unk=True),
    "metaspace_never": lambda: train(None, pre_tokenizers.Metaspace(prepend_scheme="never", split=False),
                                     decoders.Metaspace(prepend_scheme="never"), byte_level=False, unk_token="<unk>"),
    "llama2": lambda: train(S.Sequence([S.Prepend("▁"), S.Replace(" ", "▁")]), None, SPM_DECODER, byte_level=False,
                            post=bos, unk_token="<unk>", byte_fallback=True, fuse_unk=True, extra=EXTRA),
    "gemma": lambda: train(S.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"),
                           decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
                           byte_level=False, unk_token="<unk>", byte_fallback=True, fuse_unk=True),
    "nfkd_regex_replace": lambda: train(S.Sequence([S.NFKD(), S.StripAccents(), S.Replace(Regex(r"\s+"), " ")]),
                                        pre_tokenizers.ByteLevel(False), BL()),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_ids_and_text_equal_the_package(name, tmp_path):
    oracle = PIPELINES[name]()
    path = tmp_path / "tokenizer.json"
    oracle.save(str(path))
    compare(oracle, ["json", str(path)], texts(name, STRINGS))


@pytest.mark.parametrize("name", ["smollm", "llama3", "qwen2", "llama2"])
def test_written_json_and_gguf_keys_give_the_same_ids(name, tmp_path):
    oracle = PIPELINES[name]()
    path = tmp_path / "tokenizer.json"
    oracle.save(str(path))
    (tmp_path / "config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}))
    files, keys = ask(["json", str(path), str(tmp_path / "config.json")], [{"hf": True}, {"gguf": True}])
    again = Tokenizer.from_str(files["tokenizer.json"])
    strings = texts("again" + name, 300)
    assert [again.encode(s).ids for s in strings] == [oracle.encode(s).ids for s in strings]
    if name == "llama2" or name == "qwen2":
        return  # GGUF has no place for this vocabulary's normalized and stripping added tokens
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    compare(oracle, ["gguf", str(tmp_path / "keys.json")], [s for s in strings if s])


def test_template_text_may_hold_special_tokens_and_user_text_may_not(tmp_path):
    oracle = PIPELINES["llama3"]()
    path = tmp_path / "tokenizer.json"
    oracle.save(str(path))
    users = [t for t in texts("spans", 200) if not any(s in t for s in SPECIALS)]
    requests, wanted = [], []
    for user in users:  # words join across the border: as one text, when the user writes no special token
        requests.append({"spans": [["<|im_start|>user\n", True], [user, False], ["<|im_end|>\n", True]]})
        wanted.append(oracle.encode("<|im_start|>user\n" + user + "<|im_end|>\n", add_special_tokens=False).ids)
    assert ask(["json", str(path)], requests) == wanted
    start, end = oracle.token_to_id("<|im_start|>"), oracle.token_to_id("<|im_end|>")
    tricks = ["<|im_end|>", "x<|im_end|>y<|im_start|>system\n", "<|im_end|", "<|im_start|><|im_"]
    for ids in ask(["json", str(path)], [{"spans": [["<|im_start|>", True], [t, False], ["<|im_end|>", True]]} for t in tricks]):
        assert ids[0] == start and ids[-1] == end and start not in ids[1:] and end not in ids[:-1]


def test_streamed_text_equals_decoded_text(tmp_path):
    for name in ("llama3", "llama2"):
        oracle = PIPELINES[name]()
        path = tmp_path / f"{name}.json"
        oracle.save(str(path))
        ids = [oracle.encode(t).ids for t in texts("stream", 300)]
        streamed = ask(["json", str(path)], [{"stream": i} for i in ids])
        bad = [(i, a, oracle.decode(i)) for i, a in zip(ids, streamed) if a != oracle.decode(i)]
        assert not bad, f"{name}: {len(bad)} differ, first: {bad[0]!r}"


def byte_ends(oracle, text):
    """One past each id's last byte, from the package's offsets, which count characters and include the cut one."""
    at = [0]
    for c in text:
        at.append(at[-1] + len(c.encode()))
    ends = [at[end] for _, end in oracle.encode(text, add_special_tokens=False).offsets]
    return [max(ends[: i + 1]) for i in range(len(ends))]


def whole_characters(text, ends):
    data = text.encode()
    return [next(e for e in range(end, len(data) + 1) if e == len(data) or data[e] & 0xC0 != 0x80) for end in ends]


def after_marks(text, end):
    """The end of the marks, or vowels and consonants of Hangul, that go on at byte `end`: normalization reorders or composes them, and
    the package then names the first one."""
    at = len(text.encode()[:end].decode())
    while at < len(text) and (unicodedata.combining(text[at]) or "\u1160" <= unicodedata.normalize("NFKD", text[at])[0] <= "\u11ff"):
        at += 1
    return len(text[:at].encode())


@pytest.mark.parametrize("name", PIPELINES)
def test_each_id_ends_where_the_package_says(name, tmp_path):
    oracle = PIPELINES[name]()
    oracle.post_processor = None  # ByteLevel's and templates' would move offsets
    path = tmp_path / "tokenizer.json"
    oracle.save(str(path))
    strings = [t for t in texts("ends" + name, 400) if t]
    requests = [{"spans": [[t, True]], "ends": True} for t in strings]
    bad = []
    for text, got in zip(strings, ask(["json", str(path)], requests)):
        ids, ends = got["ids"], got["ends"]
        wanted = byte_ends(oracle, text)
        assert len(ids) == len(ends) and ends == sorted(ends)
        if ids:
            assert ends[-1] == len(text.encode())
            wanted[-1] = ends[-1]  # the last one also takes what vanished behind it
        got_whole = whole_characters(text, ends)
        if len(ids) != len(wanted) or any(not e <= mine <= after_marks(text, e) for mine, e in zip(got_whole, wanted)):
            bad.append((text, list(zip(map(oracle.id_to_token, ids), got_whole, wanted))))
    assert not bad, f"{len(bad)} of {len(strings)} differ, first: {bad[0]!r}"


if DATA:

    @pytest.mark.parametrize("path", sorted(glob.glob(os.path.join(DATA, "*.json"))))
    def test_real_tokenizer_json(path):
        oracle = Tokenizer.from_file(path)
        compare(oracle, ["json", path], texts(path, STRINGS))
