"""Times llama.cpp's prefill and decode with its own llama-bench. Prints one JSON line a test:
    {"work": "prefill" | "decode", "model": "x.gguf", "test": "pp512", "tokens_per_second": mean, "stddev": s}
    python bench/peers/llama_bench.py MODEL.gguf [-p 512] [-n 64] [--repeats 3] [--threads N]
Needs llama.cpp (scripts/peers) and no package.
"""

import argparse
import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = pathlib.Path(os.environ.get("SUPERSONIC_CACHE", ROOT / ".cache"))
PROGRAM = CACHE / "peers" / "build" / "bin" / "llama-bench"


def measure(model: pathlib.Path, prompt: int, decode: int, repeats: int, threads: int) -> list[dict]:
    command = [PROGRAM, "-m", model, "-p", prompt, "-n", decode, "-r", repeats, "-t", threads, "-o", "json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"llama-bench failed:\n{done.stderr[-2000:]}")
    rows = []
    for row in json.loads(done.stdout):
        prefill = row["n_prompt"] > 0
        rows.append({
            "work": "prefill" if prefill else "decode", "model": model.name, "test": f"pp{row['n_prompt']}" if prefill else f"tg{row['n_gen']}",
            "tokens_per_second": row["avg_ts"], "stddev": row["stddev_ts"], "samples": row["samples_ts"], "threads": threads,
        })
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("-p", type=int, default=512)
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    for row in measure(arguments.model, arguments.p, arguments.n, arguments.repeats, arguments.threads):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
