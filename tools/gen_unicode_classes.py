"""Writes src/text/unicode_table.cpp: the general category of each code point, as runs. The categories are asked of the `tokenizers`
package itself (one \\p{..} split a category), so that our character classes are the reference's whatever Unicode version it carries.

Parts of that package follow other versions of Unicode than its regular expressions do: its digits and lower case newer ones, its
punctuation, accents and normal forms older ones. Where they differ from the categories, or from the utf8proc that is installed, is
asked code point by code point, and written as lists of exceptions. Its scripts are asked too: by groups, since it does not name them.

    python tools/gen_unicode_classes.py > src/text/unicode_table.cpp
"""
import base64
import ctypes
import json
import struct

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co".split()
codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
text = "".join(map(chr, codes))
category = [0] * 0x110000
for code in range(0xD800, 0xE000):
    category[code] = CATEGORIES.index("Cs")
for number, name in enumerate(CATEGORIES):
    if name not in ("Cn", "Cs"):
        for char in normalizers.Replace(Regex(r"\P{%s}" % name), "").normalize_str(text):
            category[ord(char)] = number


def ranges_of(wanted):
    found = []
    for code in wanted:
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def split_by(pre_tokenizer):
    return {code for code in codes[1:] if len(pre_tokenizer.pre_tokenize_str(f"a{chr(code)}a")) > 1}


def of_class(letter):
    return {code for code in codes[1:] if CATEGORIES[category[code]][0] == letter}


def utf8proc():
    """Unicode version, and functions for the four forms and lower case, of the library that the program uses."""
    library, free = ctypes.CDLL("libutf8proc.so"), ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    library.utf8proc_unicode_version.restype = ctypes.c_char_p

    def form(name):
        function = library[f"utf8proc_{name}"]
        function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_char_p]

        def apply(text):
            memory = function(text.encode())
            try:
                return ctypes.string_at(memory).decode()
            finally:
                free(memory)

        return apply

    lower = {code: library.utf8proc_tolower(code) for code in codes}
    return library.utf8proc_unicode_version().decode(), {name: form(name) for name in FORMS}, lower


FORMS = {name: getattr(normalizers, name)().normalize_str for name in ("NFC", "NFD", "NFKC", "NFKD")}
AROUND = [("a", "\u0301"), ("a", "\u0323"), ("\u0323\u0301", "")]  # shows the combining class of a mark
unicode_version, forms, lower = utf8proc()
known = [code for code in codes[1:] if CATEGORIES[category[code]] not in ("Cn", "Co")]
unknown_forms = {code for code in known for name in ("NFD", "NFKD") if forms[name](chr(code)) != FORMS[name](chr(code))}
unknown_forms |= {code for code in of_class("M") for before, after in AROUND for name in FORMS
                  if forms[name](before + chr(code) + after) != FORMS[name](before + chr(code) + after)}
# What a character that it does not know is made of does not compose either.
unknown_forms |= {ord(part) for code in unknown_forms for part in forms["NFD"](chr(code))[1:] if FORMS["NFD"](chr(code)) == chr(code)}
numbers, punctuation = split_by(pre_tokenizers.Digits(individual_digits=True)), split_by(pre_tokenizers.Punctuation())
strip_accents, to_lower = normalizers.StripAccents().normalize_str, normalizers.Lowercase().normalize_str
accents = {code for code in codes[1:] if strip_accents("a" + chr(code)) == "a"}
lowered = {code: to_lower(chr(code)) for code in codes[1:]}
other_lower = [(code, ord(to)) for code, to in lowered.items() if len(to) == 1 and ord(to) != lower[code]]


def bert(**flags):
    off = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**{**off, **flags}).normalize_str


clean, strip_marks = bert(clean_text=True), bert(strip_accents=True)
dropped = {code for code in codes if clean(f"a{chr(code)}a") == "aa"}
nonspacing = {code for code in codes[1:] if strip_marks(f"a{chr(code)}a") == "aa"}


def one_entry_charsmap():
    """A compiled SentencePiece map with the single rule a -> b: what it swallows with the "a" belongs to one cluster with it."""
    unit = [0] * 512
    unit[0], unit[256 ^ 0x61], unit[0x61] = 256 << 10, 0x61 | 1 << 8 | 256 << 10, 1 << 31
    blob = struct.pack("<I512I", 2048, *unit) + b"b\0"
    described = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(blob).decode()}
    model = {"type": "WordLevel", "vocab": {"u": 0}, "unk_token": "u"}
    return tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", "normalizer": described, "model": model})).normalizer.normalize_str


swallow = one_entry_charsmap()
extenders = {code for code in codes[1:] if swallow("a" + chr(code)) == "b"}
library = ctypes.CDLL("libutf8proc.so")
other_extenders = {code for code in codes[1:] if (not library.utf8proc_grapheme_break(0x61, code)) != (code in extenders)}


def scripts():
    """Runs of code points of one group; group 0 cuts nowhere."""
    cut = pre_tokenizers.UnicodeScripts().pre_tokenize_str
    scripted = [code for code in codes if cut(chr(code))]
    group, known = {}, []
    for run, _ in cut("".join(map(chr, scripted))):
        number = next((i for i, char in enumerate(known) if len(cut(char + run[0])) == 1), len(known))
        if number == len(known):
            known.append(run[0])
        group.update((ord(char), number + 1) for char in run)
    return [(code, group.get(code, 0)) for code in range(0x110000) if code == 0 or group.get(code, 0) != group.get(code - 1, 0)]


runs = [(code, category[code]) for code in range(0x110000) if code == 0 or category[code] != category[code - 1]]

print("// Generated by tools/gen_unicode_classes.py from the classes of tokenizers %s: each entry is" % tokenizers.__version__)
print("// (first code point << 8) | category, and a run lasts until the next entry. The categories are numbered as in unicode.h.")
print('#include "text/unicode.h"\n')
print("namespace supersonic::text {\n")


def print_runs(name, runs):
    print("// clang-format off")
    print(f"const uint32_t {name}Runs[] = {{")
    line = "  "
    for code, number in runs:
        item = f"0x{code << 8 | number:x}, "
        if len(line) + len(item) > 118:
            print(line.rstrip())
            line = "  "
        line += item
    print(line.rstrip())
    print("};")
    print("// clang-format on")
    print(f"const size_t {name}RunCount = {len(runs)};\n")


print_runs("kCategory", runs)
print("// Scripts as its splitter groups them, by any number; 0 stands beside all.")
print_runs("kScript", scripts())


def print_pairs(kind, name, pairs, comment):
    print(f"// {comment}")
    print("// clang-format off")
    print(f"constexpr {kind} {name}List[] = {{")
    line = "  "
    for a, b in pairs:
        item = f"{{0x{a:x}, 0x{b:x}}}, "
        if len(line) + len(item) > 118:
            print(line.rstrip())
            line = "  "
        line += item
    print(line.rstrip())
    print("};")
    print("// clang-format on")
    print(f"constinit const std::span<const {kind}> {name} = {name}List;\n")


print_pairs("CodeRange", "kOtherNumbers", ranges_of(sorted(numbers ^ of_class("N"))), "Numbers for its digit splitter but not by category, or the reverse.")
print_pairs("CodeRange", "kOtherPunctuation", ranges_of(sorted(c for c in punctuation ^ of_class("P") if c > 127)),
            "Punctuation for its punctuation splitter but not by category, or the reverse; above ASCII.")
print_pairs("CodeRange", "kOtherAccents", ranges_of(sorted(accents ^ of_class("M"))), "Accents for its accent stripper but not marks by category, or the reverse.")
print_pairs("CodeRange", "kOtherNonspacing", ranges_of(sorted(nonspacing ^ {c for c in codes if CATEGORIES[category[c]] == "Mn"})),
            "What BERT's normalizer takes for nonspacing marks but is not Mn by category, or the reverse.")
print_pairs("CodeRange", "kBertDropped", ranges_of(sorted(dropped)), "What BERT's normalizer cleans away.")
print_pairs("CodeRange", "kOtherExtenders", ranges_of(sorted(other_extenders)),
            f"What joins the character before it in one cluster but not for utf8proc with Unicode {unicode_version}, or the reverse.")
print_pairs("CodeRange", "kUnknownForms", ranges_of(sorted(unknown_forms)),
            f"What its normal forms do not know, and utf8proc with Unicode {unicode_version} does.")
print_pairs("CodePair", "kOtherLower", other_lower, f"Lower case that utf8proc with Unicode {unicode_version} does not have, or has otherwise.")
print("}  // namespace supersonic::text")
