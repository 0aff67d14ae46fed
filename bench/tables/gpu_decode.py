"""The table of scripts/bench gpu decode: one sequence, decoding from an empty context and after 8,192 tokens, and prefill, of Llama 3 8B and
Llama 3.2 1B shapes with random weights, Q4_K_M, and decoding in bf16. Peers: llama.cpp's llama-bench on the same file where it was built with
CUDA; for bf16 also transformers' generate, from an almost empty context.

The limit of decoding is the bytes that a token reads at the probed rate of a copy; that of prefill its operations at the probed rate of
bf16 products.
"""

import json
import shutil
import statistics

from common import CACHE, Failed, measured
from gpu import bench_rows
from recorded import LLAMA

PROMPT, DECODE, DEPTH = 2048, 128, 8192
HF_PROMPT, HF_DECODE = 16, 48
NAMES = {"q4_k_m": "Q4_K_M", "bf16": "bf16"}
MODELS = (("8b", "q4_k_m"), ("1b", "q4_k_m"), ("8b", "bf16"), ("1b", "bf16"))


def works(shape, kind):
    """{work: (test of supersonic bench, depth)}"""
    label = f"{shape.upper()} {NAMES[kind]}"
    found = {f"decode {DECODE}, {label}": (f"tg{DECODE}", 0)}
    if kind == "q4_k_m":
        found[f"prefill {PROMPT}, {label}"] = (f"pp{PROMPT}", 0)
        found[f"decode {DECODE} after {DEPTH}, {label}"] = (f"tg{DECODE}@{DEPTH}", DEPTH)
    return found


def ours(session, shape, kind, test, depth):
    """() -> sample of supersonic bench."""
    tokens = DECODE if test.startswith("tg") else PROMPT
    size = ("-p", 0, "-n", tokens) if test.startswith("tg") else ("-p", tokens, "-n", 0)

    def measure():
        row = bench_rows(session.model(shape, kind), *size, "--depth", depth, "-r", 3)[test]
        return {"value": tokens / statistics.median(row["seconds"]), "memory": row["peak_bytes"], "bytes": row.get("bytes"),
                "operations": row.get("operations")}

    return measure


def limit_of(session, turns, test):
    if not session.limits or not turns.mine:
        return None
    sample = turns.mine[-1]
    return session.limits["copy"] / sample["bytes"] if test.startswith("tg") else session.limits["bf16"] * PROMPT / sample["operations"]


# --- peers ---

def transformers(session, shape, kind):
    """{setting: () -> answer} of generate."""
    def ask():
        answer = session.peers.ask(do="decode", shape=shape, base=kind, prompt=HF_PROMPT, tokens=HF_DECODE, repeats=1)
        return {**answer, "value": answer["tokens_per_second"], "memory": answer["peak_bytes"]} if answer["ok"] else answer

    return {kind: ask}


def llama_bench():
    """llama-bench with CUDA in it, or None."""
    peers = CACHE / "peers"
    for program in (peers / "build-cuda" / "bin" / "llama-bench", shutil.which("llama-bench"), peers / "build" / "bin" / "llama-bench"):
        if program and shutil.which(str(program)):
            try:
                if "CUDA" in measured(program, "--list-devices", timeout=30)[0]:
                    return program
            except Failed:
                continue
    return None


def llama(session, program, shape, kind, test, depth):
    tokens = DECODE if test.startswith("tg") else PROMPT
    size = ("-p", 0, "-n", tokens) if test.startswith("tg") else ("-p", tokens, "-n", 0)

    def ask():
        try:
            out, _, _ = measured(program, "-m", session.model(shape, kind), *size, "-d", depth, "-r", 3, "-ngl", 99, "-fa", 1, "-o", "json",
                                 timeout=120)
        except Failed as e:
            return {"ok": False, "error": str(e).strip().splitlines()[-1], "remedy": ""}
        return {"ok": True, "value": statistics.median(json.loads(out)[0]["samples_ts"])}

    return {"": ask}


# --- the table ---

def measure(session):
    program = llama_bench()
    for shape, kind in MODELS:
        for work, (test, depth) in works(shape, kind).items():
            if session.wanted(work):
                peers = {"HF generate": transformers(session, shape, kind)} if kind == "bf16" else {}
                if program:
                    peers[LLAMA] = llama(session, program, shape, kind, test, depth)
                turns = session.take_turns(work, ours(session, shape, kind, test, depth), peers)
                session.add(work, "tok/s", turns, limit_of(session, turns, test))
