"""ROUGE-L of answers against references, with the standard library alone.

    python3 rouge.py REFERENCES.jsonl ANSWERS.jsonl      one JSON string, or object with "text", a line; prints the mean

The F-measure of the longest common subsequence of lower-cased words (runs of ASCII letters and digits), as in Lin 2004 with
beta 1 and as the package rouge-score computes "rougeL" without stemming.
"""

import json
import re
import sys


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def common_subsequence(a: list, b: list) -> int:
    """Length of the longest common subsequence; O(len(a) · len(b)) time, one row of memory."""
    row = [0] * (len(b) + 1)
    for x in a:
        before = 0
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], before + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def rouge_l(reference: str, answer: str) -> float:
    wanted, got = words(reference), words(answer)
    common = common_subsequence(wanted, got)
    if not common:
        return 0.0
    precision, recall = common / len(got), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def mean_rouge_l(references: list[str], answers: list[str]) -> float:
    if len(references) != len(answers) or not references:
        raise ValueError(f"{len(references)} references and {len(answers)} answers: need as many of each, and one at least")
    return sum(map(rouge_l, references, answers)) / len(references)


def _read(path: str) -> list[str]:
    rows = [json.loads(line) for line in open(path, encoding="utf-8") if line.strip()]
    return [row["text"] if isinstance(row, dict) else row for row in rows]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(round(mean_rouge_l(_read(sys.argv[1]), _read(sys.argv[2])), 4))
