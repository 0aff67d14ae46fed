"""examples/docstrings/rouge.py against the package rouge-score."""

import random
import sys

import pytest
from conftest import ROOT
from rouge_score.rouge_scorer import RougeScorer

sys.path.insert(0, str(ROOT / "examples" / "docstrings"))
import rouge  # noqa: E402

PAIRS = [
    ("Return the sum of a and b.", "Returns the sum of two numbers a and b"),
    ("Return the sum.", "Return the sum."), ("Return the sum.", ""), ("", "x"), ("...", "!!!"), ("a b c d", "d c b a"),
    ("Don't re-raise errors_in_logs (v2.0)", "dont reraise errors in logs v2 0"), ("Größe über alles", "grösse uber alles"),
    ("the the the", "the"), ("x", "y"),
]


@pytest.mark.parametrize("reference, answer", PAIRS)
def test_rouge_l_equals_rouge_score(reference, answer):
    wanted = RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure
    assert rouge.rouge_l(reference, answer) == pytest.approx(wanted, abs=1e-12)


def test_rouge_l_equals_rouge_score_on_random_texts():
    scorer, draw = RougeScorer(["rougeL"]), random.Random(7)
    for _ in range(300):
        reference, answer = (" ".join(draw.choices(["a", "b", "Cc", "d9", "e-f", "Ü"], k=draw.randint(0, 30))) for _ in range(2))
        assert rouge.rouge_l(reference, answer) == pytest.approx(scorer.score(reference, answer)["rougeL"].fmeasure, abs=1e-12)


def test_mean_refuses_lists_of_different_length():
    with pytest.raises(ValueError, match="2 references and 1 answers"):
        rouge.mean_rouge_l(["a", "b"], ["a"])
