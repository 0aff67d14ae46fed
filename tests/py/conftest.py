"""Shared by the Python tests: where the program and the test tools lie, how they are called, the model, golden files.

Tests marked "live" need PyTorch, transformers, PEFT or llama.cpp; they run only with --live (scripts/test --live).
"""

import json
import random
import subprocess
import sys

import pytest

from places import BIN, CACHE, MODEL, ROOT

sys.path.insert(0, str(ROOT / "tests" / "oracle"))  # recipe, golden, tiny_models: they need numpy and safetensors alone


def pytest_addoption(parser):
    parser.addoption("--live", action="store_true", help="run the tests that need PyTorch, transformers, PEFT or llama.cpp")


def pytest_configure(config):
    config.addinivalue_line("markers", "live: needs PyTorch, transformers, PEFT or llama.cpp")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--live"):
        for item in items:
            if "live" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="live comparison: scripts/test --live"))


def run_program(name, *arguments, input=None, timeout=600, check=True):
    """Runs build/release/bin/NAME; check: its exit status must be 0."""
    program = BIN / name
    if not program.exists():
        pytest.fail(f"{program} is not built")
    done = subprocess.run([str(program), *map(str, arguments)], input=input, capture_output=True, timeout=timeout, text=isinstance(input, (str, type(None))))
    if check and done.returncode:
        pytest.fail(f"{name} {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done


@pytest.fixture(scope="session")
def supersonic():
    """supersonic("ppl", model, "-f", file) runs the program; json=True adds --json and returns what it printed, parsed."""

    def call(*arguments, json_output=False, **options):
        done = run_program("supersonic", *arguments, *(["--json"] if json_output else []), **options)
        return json.loads(done.stdout) if json_output else done

    return call


@pytest.fixture(scope="session")
def tool():
    """tool("name", …) runs one of the programs of tests/tools."""
    return run_program


@pytest.fixture(scope="session")
def model():
    """The Q4_1 file of SmolLM2-135M-Instruct."""
    if not MODEL.exists():
        pytest.fail(f"{MODEL} is missing: run scripts/setup")
    return MODEL


@pytest.fixture(scope="session")
def llama_cpp():
    """llama_cpp("llama-perplexity", …) runs one of llama.cpp's programs and returns what it printed on both channels."""

    def call(program, *arguments, timeout=900):
        done = subprocess.run([str(CACHE / "peers" / "build" / "bin" / program), *map(str, arguments)], capture_output=True, text=True, errors="replace", timeout=timeout)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout + done.stderr

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """tiny_model("qwen2") is the folder of a small random model (tests/oracle/tiny_models.py)."""
    import tiny_models

    made = {}

    def folder(name, shards=1):
        key = (name, shards)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(name)
            tiny_models.write(name, made[key], shards)
        return made[key]

    return folder


@pytest.fixture(scope="session")
def chats(tmp_path_factory):
    """A file of 60 short conversations, always the same."""
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    words = "the cat sat on a mat and ran to see what was in the house of stone that he built".split()
    draw = random.Random(7)
    rows = [{"messages": [{"role": r, "content": " ".join(draw.choices(words, k=draw.randint(3, 9)))} for r in ("user", "assistant")]} for _ in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def golden():
    """golden("smollm2/lora") is its JSON and {array name: numpy array}."""
    from golden import FOLDER, load

    def read(name):
        data, arrays = load(FOLDER / name)
        return data, {key: values for key, (_, values) in arrays.items()}

    return read
