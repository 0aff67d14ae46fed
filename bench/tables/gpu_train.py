"""The table of scripts/bench gpu train: LoRA steps of rank 16 on the seven linears over a 4-bit base, 8-bit AdamW, at the shapes of Llama 3
8B, Llama 3.2 1B and Llama 2 13B with random weights. Ours is "supersonic bench --train" on a Q4_K_M file, and for the rows named "text"
"supersonic train" itself, on packed source code of Python's standard library. The peer is transformers + PEFT + bitsandbytes (NF4), with
gradient checkpointing where the work asks for little memory, in the faster of PyTorch's ways to attend.

The limit is the time of the products and the attention that a step needs, nothing recomputed, at the probed rate of bf16 products. Memory
is what is gone of the GPU's beside a bare context; of the peer, PyTorch's peak of allocated bytes. The peer is asked where it has a figure in
recorded.py: elsewhere it has none worth a minute of the table (out of memory, or not what the work is compared with).

The last row is the engine against a step scheduled by hand (bench/hand_step.cpp), in one process, taking turns; its memory is that of
activations and workspace.
"""

import copy
import dataclasses
import json
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

import recorded
from common import OURS, Failed, lines, measured
from gpu import bench_rows
from recorded import HF

KIND = "q4_k_m"
LONG = 16384        # tokens of a step beyond which one counts, not three
STEPS = 10          # of a run on text; the first two are not counted
HAND_STEPS = 8      # of the engine and of the step by hand, in turn
NO_STEP = {"ok": False, "error": "hand_step gave no figures", "remedy": ""}
TEXT_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Work:
    name: str
    shape: str
    rows: int
    length: int
    memory: str  # ours: --memory; empty: no limit
    checkpoint: bool  # the peer: gradient checkpointing
    text: bool = False  # through supersonic train; the peer's samples are those of the work named TEXT_PEER

    @property
    def tokens(self):
        return self.rows * self.length


WORKS = (
    Work("8B 2x2048, 6 GiB", "8b", 2, 2048, "6GiB", True),
    Work("8B 2x2048, 24 GiB", "8b", 2, 2048, "24GiB", False),
    Work("8B 2x2048, 6 GiB, text", "8b", 2, 2048, "6GiB", True, text=True),
    Work("8B 1x8192, 7.8 GiB", "8b", 1, 8192, "7.8GiB", True),
    Work("8B 1x32768, 10 GiB", "8b", 1, 32768, "10GiB", True),
    Work("1B 4x2048, 2.25 GiB", "1b", 4, 2048, "2.25GiB", True),
    Work("1B 4x2048, all kept", "1b", 4, 2048, "", False),
    Work("13B 2x2048, 8.5 GiB", "13b", 2, 2048, "8.5GiB", True),
    Work("13B 1x8192, 9.6 GiB", "13b", 1, 8192, "9.6GiB", True),
)
TEXT_PEER = "8B 2x2048, 6 GiB"
START = "8B start to first step"
HAND = "8B 2x2048, step by hand"


def ours(session, work):
    """() -> sample of supersonic bench."""
    repeats = 1 if work.tokens > LONG else 3

    def measure():
        [row] = bench_rows(session.model(work.shape, KIND), "--train", "--batch", work.rows, "--seq-len", work.length, "--rank", 16,
                           "--optim", "adamw-8bit", "-r", repeats, *(("--memory", work.memory) if work.memory else ())).values()
        return {"value": work.tokens / statistics.median(row["seconds"]), "memory": row["peak_bytes"], "planned": row["planned_bytes"],
                "level": row["level"], "operations": row["operations"]}

    return measure


def hf(session, work):
    """{setting: () -> answer} of the peers' process."""
    def ask(sdpa):
        answer = session.peers.ask(do="train", shape=work.shape, base="nf4", rows=work.rows, length=work.length,
                                   steps=3, checkpoint=work.checkpoint, adapters="bf16", optimizer="adamw8bit",
                                   sdpa=sdpa)
        return {**answer, "value": answer["tokens_per_second"], "memory": answer["peak_bytes"]} if answer["ok"] else answer

    settings = {"PyTorch's choice of attention": "auto", "cuDNN's attention": "cudnn"}
    return {setting: lambda sdpa=sdpa: ask(sdpa) for setting, sdpa in settings.items()}


def limit_of(session, turns, work):
    """Tokens a second at the probed rate, or None."""
    operations = next((s["operations"] for s in turns.mine if "operations" in s), None)
    return session.limits["bf16"] * work.tokens / operations if session.limits and operations else None


# --- supersonic train ---

def write_text(path):
    """Samples of text for training: the sources of Python's own library, file by file."""
    import sysconfig

    size = 0
    with open(path, "w", encoding="utf-8") as out:
        for source in sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py")):
            text = source.read_text(encoding="utf-8", errors="replace")
            out.write(json.dumps({"text": text}) + "\n")
            size += len(text)
            if size > TEXT_BYTES:
                return


def train_on_text(session, work, folder):
    """Runs supersonic train; its rate as a sample, with "first_step": seconds from the program's start to the end of its first step."""
    data, out, log = folder / "text.jsonl", folder / "out", folder / "log"
    if not data.exists():
        write_text(data)
    shutil.rmtree(out, ignore_errors=True)
    read_through(session.model(work.shape, KIND))
    command = [OURS, "train", "-m", session.model(work.shape, KIND), "-d", data, "-o", out, "--device", "cuda", "--seq-len", work.length,
               "--batch", work.rows, "--accum", 1, "--max-steps", STEPS, "--optim", "adamw-8bit", "--memory", work.memory, "--eval-split", 0, "--resume", "none", "--json"]
    start = time.monotonic()
    with open(log, "wb") as errors:
        child = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=errors)
    first = wait_for_line(out / "train_log.jsonl", child, start + 120)
    result = child.communicate(timeout=240)[0]
    if child.returncode or first is None:
        raise Failed(f"supersonic train ended with {child.returncode}:\n{log.read_text(errors='replace')[-2000:]}")
    steps = [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]
    rates = [(b["tokens"] - a["tokens"]) / (b["seconds"] - a["seconds"]) for a, b in zip(steps[1:], steps[2:])]
    return {"value": statistics.median(rates), "memory": None, "planned": json.loads(result)["planned_bytes"], "first_step": first - start}


def wait_for_line(path, child, deadline):
    """When the file has its first line; None where the program ends before, or the deadline passes."""
    while time.monotonic() < deadline:
        if path.exists() and b"\n" in path.read_bytes():
            return time.monotonic()
        if child.poll() is not None:
            return None
        time.sleep(0.002)
    child.kill()
    return None


# --- the table ---

def measure(session):
    with tempfile.TemporaryDirectory() as folder:
        before = None
        for work in WORKS:
            if work.text:
                measure_text(session, work, pathlib.Path(folder), before)
            elif session.wanted(work.name):
                peers = {HF: hf(session, work)} if HF in recorded.TRAIN.get(work.name, {}) else {}
                turns = session.take_turns(work.name, ours(session, work), peers)
                session.add(work.name, "tok/s", turns, limit_of(session, turns, work))
                before = turns if work.name == TEXT_PEER else before
        if session.wanted(HAND):
            measure_by_hand(session)


def measure_text(session, work, folder, before):
    """Two rows from the same runs: the rate, and the time to the first step, the model in the page cache."""
    wanted = [name for name in (work.name, START) if session.wanted(name)]
    if not wanted:
        return
    turns = session.take_turns(work.name, lambda: train_on_text(session, work, folder), {})
    if START in wanted:
        start = copy.copy(turns)
        start.mine = [{"value": s["first_step"]} for s in turns.mine]
        session.add(START, "s", start)
    if before:
        turns.asked, turns.theirs = before.asked, before.theirs
        turns.failed.update(before.failed)
    if work.name in wanted:
        session.add(work.name, "tok/s", turns, limit_of(session, before, work) if before else None)


def measure_by_hand(session):
    """One row: the engine against the step by hand. The turns are taken inside of the program."""
    def both():
        [line] = lines(measured(OURS.with_name("hand_step"), session.model("8b", KIND), "--device", "cuda", "--rows", 2, "--len", 2048,
                                "--steps", HAND_STEPS, timeout=120)[0])
        by_hand.append({"ok": True, "value": line["tokens_per_second"] * line["engine_seconds"] / line["hand_seconds"],
                        "memory": line["hand_bytes"]})
        return {"value": line["tokens_per_second"], "memory": line["engine_bytes"]}

    by_hand = []
    turns = session.take_turns(HAND, both, {"hand-scheduled": {"": lambda: by_hand[-1] if by_hand else NO_STEP}}, rounds=1)
    session.add(HAND, "tok/s", turns)


def read_through(path):
    """Brings the file into the page cache."""
    with open(path, "rb", buffering=0) as file:
        block = bytearray(1 << 24)
        while file.readinto(block):
            pass
