"""The table of scripts/bench cpu: Supersonic and its peers on this machine's CPU, taking turns.

Peers come from scripts/peers and run their best settings: a native build, all threads; for the LoRA step the fastest of bf16, fp32
and bf16 with checkpointing. A row is {"work", "ours", "peer", "peer_name", "ratio", "limit_fraction", "ours_spread", "peer_spread",
"void"}: the medians over the rounds in the row's unit, ratio > 1 where ours is better, limit_fraction of ours as
"supersonic bench" probes it (null where nothing is probed). A peer below 0.9 of the best that it ever reached on this machine voids
its row: something else was using the machine. "step by hand" is the engine's LoRA step against one written by hand on the same kernels
(bench/hand_step.cpp), its memory that of activations and workspace.
"""

import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

from common import CACHE, OURS, ROOT, SMALL_MODEL, lines, need_build, run

PYTHON = CACHE / "peers" / "venv" / "bin" / "python"
LLAMA = CACHE / "peers" / "build" / "bin"
TYPES = ("q4_1", "q4_0", "q8_0", "bf16", "f16")


SHAPES = {"llama-1.5b q4_k_m": ("1.5b", "q4_k_m")}  # models with random weights: kind -> what bench/random_model.cpp is asked for
LENGTHS = {"llama-1.5b q4_k_m": (128, 16)}          # tokens of prompt and of decoding; else (512, 64)


def model_file(kind):
    if kind == "q4_1":
        return SMALL_MODEL
    name = "random-" + "-".join(SHAPES[kind]) if kind in SHAPES else f"smollm2-{kind.upper()}"
    return CACHE / "peers" / "models" / f"{name}.gguf"


def write_random_models(kinds):
    for kind in kinds:
        if kind in SHAPES and not model_file(kind).exists():
            run(OURS.with_name("random_model"), *SHAPES[kind], model_file("q4_1"), model_file(kind))


def ours_bench(kind, threads, *options):
    """{test: row} of supersonic bench."""
    out, peak, _ = run(OURS, "bench", model_file(kind), "--threads", threads, *options, "--json")
    rows = json.loads(out)
    return {row["test"]: {**row, "peak": peak} for row in rows}


class Bench:
    """What each row needs; a round asks every source once, so that ours and the peers take turns."""

    def __init__(self, threads):
        self.threads = threads

    def ours_generate(self, kind):
        p, n = LENGTHS.get(kind, (512, 64))
        rows = ours_bench(kind, self.threads, "-p", p, "-n", n, "-r", 1)
        return {(f"{work} {kind}", "ours"): (rows[test]["tokens_per_second"], rows[test].get("limit_fraction")) for work, test in
                ((f"prefill {p}", f"pp{p}"), (f"decode {n}", f"tg{n}"))}

    def llama_generate(self, kind):
        p, n = LENGTHS.get(kind, (512, 64))
        out, _, _ = run(sys.executable, ROOT / "bench" / "peers" / "llama_bench.py", model_file(kind), "-p", p, "-n", n, "--repeats", 1,
                        "--threads", self.threads)
        return {(f"{r['work']} {p if r['work'] == 'prefill' else n} {kind}", "llama.cpp"): (r["tokens_per_second"], None) for r in lines(out)}

    def ours_lora(self, kind):
        row = ours_bench(kind, self.threads, "--train", "--batch", 4, "--seq-len", 256, "--rank", 16)["lora4x256"]
        return {(f"lora step {kind}", "ours"): (row["tokens_per_second"], row.get("limit_fraction")), (f"lora memory {kind}", "ours"): (row["peak"], None)}

    def hf_lora(self, setting):
        out, _, _ = run(PYTHON, ROOT / "bench" / "peers" / "hf_lora_step.py", "--settings", setting, "--steps", 3, "--threads", self.threads)
        row = lines(out)[0]
        return {("lora step", f"HF + PEFT {setting}"): (row["tokens_per_second"], None), ("lora memory", f"HF + PEFT {setting}"): (row["peak_rss_gib"] * 2**30, None)}

    def hand_step(self, kind):
        out, _, _ = run(OURS.with_name("hand_step"), model_file(kind), "--threads", self.threads)
        row = lines(out)[0]
        tokens = row["rows"] * row["len"]
        return {(f"step by hand {kind}", "ours"): (tokens / row["engine_seconds"], row["limit_fraction"]),
                (f"step by hand {kind}", "hand-written"): (tokens / row["hand_seconds"], None),
                (f"step by hand memory {kind}", "ours"): (row["engine_bytes"], None), (f"step by hand memory {kind}", "hand-written"): (row["hand_bytes"], None)}

    def ours_start(self, kind):
        _, _, seconds = run(OURS, "run", model_file(kind), "The capital of France is", "--raw", "--temp", 0, "-n", 1, "--threads", self.threads)
        return {(f"start to first token {kind}", "ours"): (seconds, None)}

    def llama_start(self, kind):
        _, _, seconds = run(LLAMA / "llama-completion", "-m", model_file(kind), "-p", "The capital of France is", "--temp", 0, "-n", 1, "-t", self.threads,
                            "-no-cnv", "--no-warmup", "-c", 512)
        return {(f"start to first token {kind}", "llama.cpp"): (seconds, None)}

    def sources(self):
        made = []
        for kind in (*TYPES, *SHAPES):
            made += [(f"generate {kind}", self.ours_generate, kind), (f"generate {kind}", self.llama_generate, kind)]
        made += [("start", self.ours_start, "q4_1"), ("start", self.llama_start, "q4_1")]
        made += [("lora", self.ours_lora, kind) for kind in ("q4_1", "bf16")]
        made += [("step by hand", self.hand_step, kind) for kind in ("q4_1", "bf16")]
        return made + [("lora", self.hf_lora, setting) for setting in ("bf16", "fp32", "bf16-checkpoint")]


def machine():
    """A name for this machine's kind: what a rate may be compared with."""
    text = pathlib.Path("/proc/cpuinfo").read_text()
    flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    name = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), "cpu")
    return f"{name}, {os.cpu_count()} threads, {hashlib.sha256(flags.encode()).hexdigest()[:8]}"


def better(work, a, b):
    """The better of two values: less memory or time, more tokens a second."""
    return min(a, b) if lower_is_better(work) else max(a, b)


def lower_is_better(work):
    return work.startswith("start") or of_memory(work)


def of_memory(work):
    return work.startswith(("lora memory", "step by hand memory"))


def best_ever(samples):
    """{peer's work: best value on this machine, this run included}; kept beside the peers."""
    path = CACHE / "peers" / "best.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    here = kept.setdefault(machine(), {})
    for (work, name), values in samples.items():
        if name != "ours":
            key = f"{work} | {name}"
            value = statistics.median(v for v, _ in values)
            here[key] = better(work, value, here.get(key, value))
    path.write_text(json.dumps(kept, indent=1) + "\n")
    return here


def table(samples):
    best = best_ever(samples)
    rows = []
    for (work, name), values in samples.items():
        if name != "ours":
            continue
        prefixes = {work, work.rsplit(" ", 1)[0]} if work.startswith("lora") else {work}
        rivals = {key: v for key, v in samples.items() if key[1] != "ours" and key[0] in prefixes}
        if work.startswith("prefill 512 q4_1"):  # against llama.cpp's fastest type too
            rows += row(work + " (their fastest type)", values, {k: v for k, v in samples.items() if k[1] == "llama.cpp" and k[0].startswith("prefill 512")}, best)
        rows += row(work, values, rivals, best)
    return rows


def row(work, values, rivals, best):
    if not rivals:
        return []
    median = lambda pairs: statistics.median(v for v, _ in pairs)
    key = rivals and (min if lower_is_better(work) else max)(rivals, key=lambda k: median(rivals[k]))
    ours, peer = median(values), median(rivals[key])
    reached = best[f"{key[0]} | {key[1]}"]
    quality = reached / peer if lower_is_better(work) else peer / reached
    limits = [limit for _, limit in values if limit is not None]
    spread = lambda pairs: [min(v for v, _ in pairs), max(v for v, _ in pairs)]
    return [{
        "work": work, "ours": ours, "peer": peer, "peer_name": key[1] + (f" ({key[0].rsplit(' ', 1)[1]})" if "fastest type" in work else ""),
        "ratio": peer / ours if lower_is_better(work) else ours / peer, "limit_fraction": statistics.median(limits) if limits else None,
        "ours_spread": spread(values), "peer_spread": spread(rivals[key]), "void": quality < 0.9 and not of_memory(work),
    }]


def show(value, work):
    if work.startswith("start"):
        return f"{value:.2f} s"
    return f"{value / 2**30:.2f} GiB" if of_memory(work) else f"{value:.0f} tok/s"


def markdown(rows):
    """The table of docs/benchmarks.md."""
    spread = lambda pair, work: " – ".join(show(v, work).split(" ")[0] for v in pair)
    print("| work | ours (least – most) | peer (least – most) | peer's setting | ratio | fraction of the limit |")
    print("| --- | --- | --- | --- | --- | --- |")
    for r in rows:
        limit = "" if r["limit_fraction"] is None else f"{r['limit_fraction']:.2f}"
        print(f"| {r['work']} | {show(r['ours'], r['work'])} ({spread(r['ours_spread'], r['work'])}) | {show(r['peer'], r['work'])} "
              f"({spread(r['peer_spread'], r['work'])}) | {r['peer_name']} | {r['ratio']:.2f}{' void' if r['void'] else ''} | {limit} |")


def add_options(parser):
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only what has this word in its name: generate, q4_1, lora, start")
    parser.add_argument("--threads", type=int, default=os.cpu_count())


def main(arguments):
    need_build("release")
    if subprocess.run([ROOT / "scripts" / "peers"], stdout=sys.stderr).returncode:
        sys.exit("bench: scripts/peers failed")
    sources = [s for s in Bench(arguments.threads).sources() if arguments.only in f"{s[0]} {s[2]}"]
    write_random_models({s[2] for s in sources})
    samples = {}
    for number in range(arguments.rounds):
        for name, measure, argument in sources:
            print(f"round {number + 1} of {arguments.rounds}: {measure.__name__} {argument}", file=sys.stderr, flush=True)
            for key, value in measure(argument).items():
                samples.setdefault(key, []).append(value)
    rows = table(samples)
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return
    if arguments.markdown:
        print(f"{machine()}, {time.strftime('%Y-%m-%d')}, median of {arguments.rounds}\n")
        return markdown(rows)
    print(f"{machine()}, {time.strftime('%Y-%m-%d')}, median of {arguments.rounds}\n")
    print(f"{'work':<42} {'ours':>12} {'peer':>12} {'ratio':>6} {'limit':>6}  peer")
    for r in rows:
        limit = "" if r["limit_fraction"] is None else f"{100 * r['limit_fraction']:.0f} %"
        print(f"{r['work']:<42} {show(r['ours'], r['work']):>12} {show(r['peer'], r['work']):>12} {r['ratio']:>5.2f}x {limit:>6}  {r['peer_name']}"
              + ("   VOID: the peer is below 0.9 of its best here" if r["void"] else ""))
