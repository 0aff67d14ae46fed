"""Speed of tokenization on one thread against the package `tokenizers`, for each kind of model, on real text: prose, documentation, source
code, and llama.cpp's multilingual samples. Each line is encoded by itself; the best of several interleaved rounds counts.

    .cache/peers/venv/bin/python bench/tokenizer_speed.py [--megabytes 4] [--rounds 3]

Needs scripts/peers (llama.cpp's vocabularies) and build/release. The package reads the tokenizer.json that Supersonic writes.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "py"))
from tokenizers import Tokenizer  # noqa: E402

from places import BIN, LLAMA_CPP  # noqa: E402

KINDS = {"byte-level BPE (GPT-2)": "gpt-2", "byte-level BPE (Llama 3)": "llama-bpe", "SentencePiece BPE (Llama 2)": "llama-spm",
         "Unigram (XLM-R)": "nomic-bert-moe", "WordPiece (BERT)": "bert-bge"}


def corpus(size):
    files = [ROOT / "tests/golden/text/opticks.txt", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "src").glob("*/*.cpp"))[::4],
             *sorted(LLAMA_CPP.glob("docs/**/*.md")), *sorted((LLAMA_CPP / "models").glob("*.inp")), *sorted((LLAMA_CPP / "conversion").glob("*.py"))]
    text = "".join(f.read_text(errors="replace") for f in files)
    return (text * (size // len(text.encode()) + 1)).encode()[:size].decode(errors="ignore")


class Ours:
    """The probe as a server: one process, so that every round has the warm cache that a program has."""

    def __init__(self, path):
        self.process = subprocess.Popen([BIN / "tokenizer_probe", "model", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def ask(self, request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--megabytes", type=float, default=4)
    options.add_argument("--rounds", type=int, default=3)
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder, "text")
        text.write_bytes(corpus(int(options.megabytes * 1e6)).encode())
        lines = text.read_bytes().decode().split("\n")
        lines = [line + "\n" for line in lines[:-1]] + ([lines[-1] + "\n"] if lines[-1] else [])
        size = sum(len(line.encode()) for line in lines)
        print(f"{'':30}{'ours MB/s':>12}{'package MB/s':>14}{'ratio':>8}{'tokens':>12}")
        for name, vocabulary in KINDS.items():
            ours = Ours(LLAMA_CPP / "models" / f"ggml-vocab-{vocabulary}.gguf")
            written = pathlib.Path(folder, "tokenizer.json")
            written.write_text(ours.ask({"hf": True})["tokenizer.json"])
            theirs = Tokenizer.from_file(str(written))
            best, their_best, tokens = 1e9, 1e9, 0
            for _ in range(options.rounds):
                answer = ours.ask({"bench": str(text), "rounds": 1})
                best = min(best, answer["seconds"])
                start = time.perf_counter()
                tokens = sum(len(theirs.encode(line, add_special_tokens=False).ids) for line in lines)
                their_best = min(their_best, time.perf_counter() - start)
            assert tokens == answer["tokens"], f"{name}: {answer['tokens']} tokens, the package has {tokens}"
            print(f"{name:30}{size / best / 1e6:12.1f}{size / their_best / 1e6:14.2f}{their_best / best:8.1f}{tokens:12}")


if __name__ == "__main__":
    main()
