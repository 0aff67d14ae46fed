"""examples/docstrings/choose.py and report.py: what the quickstart trains on and what it says of the result."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

EXAMPLE = ROOT / "examples" / "docstrings"


def conversation(k):
    return json.dumps({"messages": [{"role": "user", "content": f"def f{k}(): pass"}, {"role": "assistant", "content": f"Answer {k} here."}]})


@pytest.fixture
def chosen(tmp_path):
    for name, first in (("train", 0), ("valid", 100)):
        (tmp_path / f"{name}.jsonl").write_text("".join(conversation(first + k) + "\n" for k in range(50)))
    subprocess.run([sys.executable, EXAMPLE / "choose.py", tmp_path, tmp_path / "out", "--train", "20", "--evaluate", "10", "--ask", "5"], check=True)
    return tmp_path / "out"


def test_choose_keeps_the_parts_apart_and_the_answers_out_of_the_prompts(chosen):
    lines = {name: (chosen / f"{name}.jsonl").read_text().splitlines() for name in ("train", "evaluate", "prompts", "references")}
    assert {name: len(rows) for name, rows in lines.items()} == {"train": 20, "evaluate": 10, "prompts": 5, "references": 5}
    assert not set(lines["train"]) & set(lines["evaluate"])
    for prompt, reference in zip(lines["prompts"], lines["references"]):
        (message,) = json.loads(prompt)["messages"]
        number = message["content"][5:].split("(")[0]
        assert json.loads(reference) == f"Answer {number} here."


def test_report_prints_loss_and_rouge_before_and_after(chosen):
    references = [json.loads(line) for line in (chosen / "references.jsonl").read_text().splitlines()]
    (chosen / "answers-before.jsonl").write_text('{"text": "nothing alike"}\n' * 5)
    (chosen / "answers-after.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in references))
    train = {"eval_before": {"loss": 4.0}, "eval_after": {"loss": 2.5}, "tokens": 200000, "tokens_per_second": 800.0, "peak_bytes": 2**29}
    (chosen / "train.json").write_text(json.dumps(train))
    done = subprocess.run([sys.executable, EXAMPLE / "report.py", chosen, "--seconds", "61"], check=True, capture_output=True, text=True)
    assert "4.000 -> 2.500   (-38 %)" in done.stdout
    assert "0.000 -> 1.000" in done.stdout
    assert "0.50 GiB" in done.stdout and "1 min 1 s" in done.stdout
    assert json.loads((chosen / "summary.json").read_text())["rouge_l_after"] == 1.0
