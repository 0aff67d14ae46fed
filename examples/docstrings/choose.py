"""Chooses from extracted data what the quickstart uses, the same lines on every machine that has the same data:
    python3 choose.py DATA OUT [--train 2100] [--evaluate 200] [--ask 60]
DATA holds train.jsonl and valid.jsonl (chat messages, one conversation a line). OUT gets train.jsonl and evaluate.jsonl (subsets),
prompts.jsonl (held-out conversations without their answer) and references.jsonl (those answers, as JSON strings).
"""

import argparse
import hashlib
import json
import pathlib


def pick(path: pathlib.Path, count: int) -> list[str]:
    """count lines in an order that depends on the lines alone."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return sorted(lines, key=lambda line: hashlib.sha256(line.encode()).digest())[:count]


def write(path: pathlib.Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--train", type=int, default=2100, help="conversations to train on")
    parser.add_argument("--evaluate", type=int, default=200, help="held-out conversations for the loss")
    parser.add_argument("--ask", type=int, default=60, help="held-out conversations to answer")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write(arguments.out / "train.jsonl", pick(arguments.data / "train.jsonl", arguments.train))
    held_out = pick(arguments.data / "valid.jsonl", max(arguments.evaluate, arguments.ask))
    write(arguments.out / "evaluate.jsonl", held_out[: arguments.evaluate])
    conversations = [json.loads(line)["messages"] for line in held_out[: arguments.ask]]
    write(arguments.out / "prompts.jsonl", [json.dumps({"messages": m[:-1]}, ensure_ascii=False) for m in conversations])
    write(arguments.out / "references.jsonl", [json.dumps(m[-1]["content"], ensure_ascii=False) for m in conversations])


if __name__ == "__main__":
    main()
