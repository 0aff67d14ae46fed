#!/usr/bin/env python3
"""Prefill and decode after a long context, for each type of KV cache: the table "Long contexts" of docs/benchmarks.md.

    bench/long_context.py MODEL [--depths 8192 32768] [--types bf16 q8 fp8] [--compute auto]

Each row is one `supersonic bench MODEL --depth N`: the context is filled once, then a chunk of 512 tokens is read and 32 tokens are
decoded behind it. "of the limit": decoding against the bytes of weights, keys and values at the read bandwidth that the same process
probed. "planned" is `supersonic fit`.
"""

import argparse
import json
import subprocess
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent.parent / "build/release/bin/supersonic"
PROMPT, GENERATE = 512, 32


def supersonic(*arguments):
    command = [str(PROGRAM), *map(str, arguments), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def row(model, depth, kv_type, options):
    shape = ["-p", PROMPT, "-n", GENERATE, "-r", options.repeats, "--depth", depth]
    common = ["--kv-type", kv_type, "--compute", options.compute]
    prefill, decode = supersonic("bench", model, *shape, *common)
    plan = supersonic("fit", model, "--ctx", depth + PROMPT, *common)
    return {
        "depth": depth,
        "type": kv_type,
        "cache_bytes": plan["parts"]["kv_cache"],
        "planned_bytes": plan["needed_bytes"],
        "prefill": prefill["tokens_per_second"],
        "prefill_limit": prefill["limit_fraction"],
        "decode": decode["tokens_per_second"],
        "decode_limit": decode["limit_fraction"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--depths", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--types", nargs="+", default=["bf16", "q8", "fp8"])
    parser.add_argument("--compute", default="auto")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| context | keys and values | planned in all | prefill tok/s (of the limit) | decode tok/s | ms a token | of the limit |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for depth in options.depths:
        for kv_type in options.types:
            r = row(options.model, depth, kv_type, options)
            print(
                f"| {depth} | {kv_type}, {r['cache_bytes'] / 2**20:.0f} MiB | {r['planned_bytes'] / 2**20:.0f} MiB"
                f" | {r['prefill']:.0f} ({r['prefill_limit']:.2f}) | {r['decode']:.1f} | {1e3 / r['decode']:.1f}"
                f" | {r['decode_limit']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
