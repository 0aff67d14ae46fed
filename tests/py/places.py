"""Where the Python tests find things: SUPERSONIC_BUILD names another build folder than build/release, SUPERSONIC_CACHE another cache."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("SUPERSONIC_BUILD", ROOT / "build" / "release")) / "bin"
CACHE = pathlib.Path(os.environ.get("SUPERSONIC_CACHE", ROOT / ".cache"))
MODEL = CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"  # scripts/setup fetches it
GEMMA = CACHE / "models" / "gemma-3-270m-q4_k_m.gguf"  # scripts/peers fetches it
LLAMA_CPP = CACHE / "peers" / "src" / "llama_cpp_python-0.3.36" / "vendor" / "llama.cpp"  # scripts/peers
