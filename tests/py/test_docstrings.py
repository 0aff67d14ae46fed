"""examples/docstrings/extract.py: what it writes is chat JSONL, deterministic, and its held-out part is not in training."""
import json
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "examples/docstrings/extract.py"


def run(out, *arguments):
    done = subprocess.run([sys.executable, SCRIPT, "--out", out, *arguments], capture_output=True, text=True, check=True)
    read = lambda name: [json.loads(line)["messages"] for line in (out / name).read_text(encoding="utf-8").splitlines()]
    return read("train.jsonl"), read("valid.jsonl"), done.stdout


def test_standard_library_gives_a_task_with_nothing_held_out_in_training(tmp_path):
    train, valid, printed = run(tmp_path)
    assert 4000 < len(train) + len(valid) < 8000 and len(valid) >= 200
    assert f"train.jsonl: {len(train)} pairs" in printed
    for messages in train + valid:
        assert [m["role"] for m in messages] == ["user", "assistant"]
        assert messages[1]["content"].strip() and "\n" not in messages[1]["content"]
    prompts = {" ".join(m[0]["content"].split()).lower() for m in train}
    assert len(prompts) == len(train)
    assert not prompts & {" ".join(m[0]["content"].split()).lower() for m in valid}
    again = tmp_path / "again"
    assert run(again)[:2] == (train, valid)


def test_docstring_leaves_the_code_and_modules_stay_whole(tmp_path):
    source = tmp_path / "src"
    source.mkdir()
    for i in range(40):
        (source / f"m{i}.py").write_text(
            f'class C:\n    def f{i}(self, x):\n        """Return x plus {i}.\n\n        More.\n        """\n        return x + {i}\n\n'
            f'    def g{i}(self):\n        "Give the number {i}."\n        return {i}\n'
        )
    (source / "tests").mkdir()
    (source / "tests/t.py").write_text('def hidden():\n    """Not for training."""\n    return 1\n')
    train, valid, _ = run(tmp_path, "--source", source, "--held-out", "0.3")
    assert len(train) + len(valid) == 80 and len(valid) >= 2
    numbers = [{int("".join(c for c in m[1]["content"] if c.isdigit())) for m in part} for part in (train, valid)]
    assert not numbers[0] & numbers[1]
    for messages in train + valid:
        assert "Return x plus" not in messages[0]["content"] and "Give the number" not in messages[0]["content"]
        assert "return" in messages[0]["content"] and "More." not in messages[0]["content"]
