"""What the tests of pull, push and the cache share: a hub, the program and huggingface_hub against it, and models of random bytes."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import pytest

from hub_server import Hub
from places import BIN

PROGRAM = BIN / "supersonic"
NAME = "acme/tiny-model"
FOLDER = "models--acme--tiny-model"


def noise(n, seed=1):
    return hashlib.shake_256(str(seed).encode()).digest(n)


def folder_files(size=300_000):
    return {
        "config.json": b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}', "tokenizer.json": b"{}", "tokenizer_config.json": b"{}",
        "generation_config.json": b"{}", "README.md": b"---\nlicense: apache-2.0\n---\n# Tiny\n", "model.safetensors": noise(size),
        "pytorch_model.bin": noise(1000), "onnx/model.onnx": noise(1000), ".gitattributes": b"*.safetensors filter=lfs\n", "empty.txt": b"",
    }


def gguf_files():
    return {f"Tiny-{kind}.gguf": noise(20_000 + 1000 * i, i) for i, kind in enumerate(["Q2_K", "Q4_K_M", "Q8_0", "UD-Q4_K_XL", "BF16"])} | {
        "README.md": b"# Tiny", "mmproj-F16.gguf": noise(100), "Q6_K/Tiny-Q6_K-00001-of-00002.gguf": noise(500, 7), "Q6_K/Tiny-Q6_K-00002-of-00002.gguf": noise(400, 8)}


def environment(hub, home, **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "SUPERSONIC_", "TRANSFORMERS")) and not k.lower().endswith("_proxy")}
    return env | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"} | {k: str(v) for k, v in more.items()}


@pytest.fixture
def hub():
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def home(tmp_path):
    return tmp_path / "hf"


@pytest.fixture
def run(hub, home):
    """run("pull", NAME, code=0, HF_TOKEN=…) runs the program against the hub and returns what it said."""

    def call(*arguments, code=0, env=None, input="", **more):
        done = subprocess.run([PROGRAM, *map(str, arguments)], input=input, capture_output=True, text=True, timeout=120, env=environment(hub, home, **more) | (env or {}))
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


def client(hub, home, code, **more):
    """Runs Python with huggingface_hub against the same hub and cache; the code prints JSON."""
    script = "import json, huggingface_hub\nfrom huggingface_hub import *\n" + code
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, env=environment(hub, home, **more))
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def read(folder):
    """{path: bytes} of all files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in pathlib.Path(folder).rglob("*") if p.is_file()}


def blobs(home):
    return {p.name: p for p in (home / "hub").glob("models--*/blobs/*")}
