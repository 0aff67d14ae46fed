"""Times llama.cpp's prefill and decode with its own llama-bench. Prints one JSON line a file and test:
    {"work": "prefill" | "decode", "setting": "q4_1", "test": "pp512", "tokens_per_second": mean, "stddev": s}
    python bench/peers/llama_bench.py [--types q4_1,q4_0,q8_0,bf16,f16] [-p 512] [-n 64] [--repeats 3] [--threads N]
The files come from scripts/peers (Q4_1 is the model itself, the others are requantized from it). Needs no package.
"""

import argparse
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = pathlib.Path(os.environ.get("SUPERSONIC_CACHE", ROOT / ".cache"))
PROGRAM = CACHE / "peers" / "build" / "bin" / "llama-bench"


def file_of(kind: str) -> pathlib.Path:
    if kind == "q4_1":
        return CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    return CACHE / "peers" / "models" / f"smollm2-{kind.upper()}.gguf"


def measure(kind: str, prompt: int, decode: int, repeats: int, threads: int) -> list[dict]:
    command = [PROGRAM, "-m", file_of(kind), "-p", prompt, "-n", decode, "-r", repeats, "-t", threads, "-o", "json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"llama-bench failed:\n{done.stderr[-2000:]}")
    rows = []
    for row in json.loads(done.stdout):
        prefill = row["n_prompt"] > 0
        rows.append({
            "work": "prefill" if prefill else "decode", "setting": kind, "test": f"pp{row['n_prompt']}" if prefill else f"tg{row['n_gen']}",
            "tokens_per_second": row["avg_ts"], "stddev": row["stddev_ts"], "samples": row["samples_ts"], "threads": threads,
        })
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="q4_1,q4_0,q8_0,bf16,f16")
    parser.add_argument("-p", type=int, default=512)
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    for kind in arguments.types.split(","):
        for row in measure(kind, arguments.p, arguments.n, arguments.repeats, arguments.threads):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
