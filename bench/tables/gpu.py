"""scripts/bench gpu: what its three tables share: the options, the GPU, the peers' process, models with random weights, and the time that
is left. The tables themselves: gpu_train.py, gpu_decode.py, gpu_attention.py.
"""

import copy
import json
import os
import pathlib
import selectors
import subprocess
import sys
import tempfile
import time

import recorded
from common import CACHE, OURS, ROOT, SMALL_MODEL, Failed, measured, need_build
from gpu_rows import Table, best_setting, make_row, ours_of, peer_of

SAID = ("value", "first_step", "forward", "both")
PYTHON = CACHE / "peers" / "gpu" / "bin" / "python"
TINY_TOKENIZER = ROOT / "tests" / "fuzz" / "corpus" / "gguf" / "model.gguf"


def add_options(parser):
    parser.add_argument("table", choices=["train", "decode", "attention"])
    parser.add_argument("--rounds", type=int, default=2, help="how often ours and the peers take turns at a work (2)")
    parser.add_argument("--only", default="", help="only works with this word in their name: 8B, 32768, text, prefill, d64")
    parser.add_argument("--output", help="also keep the table as JSON in this file, rewritten after each row")
    parser.add_argument("--python", default=os.environ.get("SUPERSONIC_PEERS_PYTHON") or (PYTHON if PYTHON.exists() else sys.executable),
                        help=f"the interpreter that has torch, transformers, peft and bitsandbytes (SUPERSONIC_PEERS_PYTHON; {PYTHON}; this one)")
    parser.add_argument("--models", type=pathlib.Path, default=CACHE / "peers" / "models",
                        help="where models with random weights are written: up to 30 GB")
    parser.add_argument("--tokenizer", type=pathlib.Path, default=SMALL_MODEL, help="the GGUF file whose tokenizer these models get")
    parser.add_argument("--minutes", type=float, default=7, help="works that would begin later than this are left out (7)")


def find_gpu():
    """The first GPU's description from supersonic doctor; ends the program where there is none."""
    found = json.loads(measured(OURS, "doctor", "--json")[0])
    if not found["gpus"]:
        sys.exit(f"bench: no GPU to measure on: {found.get('gpu_problem') or 'supersonic doctor lists none'}")
    return found["gpus"][0]


class Peers:
    """bench/peers/gpu/server.py as a process that lives as long as the table. Each answer is its JSON, with "ok"."""

    def __init__(self, python):
        self.command = [python, str(ROOT / "bench" / "peers" / "gpu" / "server.py")]
        self.child, self.log = None, tempfile.TemporaryFile()

    def ask(self, timeout=240, **request):
        try:
            if self.child is None:
                self.child = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
            self.child.stdin.write((json.dumps(request) + "\n").encode())
            self.child.stdin.flush()
            line = self.read_line(timeout)
        except OSError as e:
            return self.gone(str(e))
        return json.loads(line) if line else self.gone("it ended, or took too long")

    def read_line(self, timeout):
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.child.stdout, selectors.EVENT_READ)
            return self.child.stdout.readline() if waiting.select(timeout) else b""

    def gone(self, reason):
        self.close()
        self.log.seek(0)
        last = self.log.read().decode(errors="replace").strip().splitlines()[-1:]
        return {"ok": False, "error": f"the peers' process failed: {reason}" + (f": {last[0]}" if last else ""), "remedy": ""}

    def close(self):
        if self.child:
            self.child.kill()
            self.child.communicate()
            self.child = None


class Session:
    """One run of a table."""

    def __init__(self, arguments, name):
        self.arguments, self.name = arguments, name
        self.start = time.monotonic()
        need_build("cuda-dev")
        self.gpu = find_gpu()
        self.peers = Peers(arguments.python)
        answer = self.peers.ask(do="limits")
        self.limits = {k: answer[k] for k in ("bf16", "copy")} if answer["ok"] else None
        if not answer["ok"]:
            print(f"bench: no peer in PyTorch, and no limits: {reason_of(answer)}", file=sys.stderr)
        self.recorded = getattr(recorded, name.upper()) if recorded.DEVICE in self.gpu["name"] else {}
        style = "json" if arguments.json else "markdown" if arguments.markdown else "text"
        self.table = Table({"table": name, "device": self.gpu["name"], "rounds": arguments.rounds, "limits": self.limits,
                            "versions": answer.get("versions", {})}, style, arguments.output)
        self.table.begin()

    def wanted(self, work):
        """Whether the work is to be measured now."""
        if self.arguments.only.lower() not in work.lower():
            return False
        if time.monotonic() - self.start < 60 * self.arguments.minutes:
            return True
        print(f"bench: {work}: left out, {self.arguments.minutes:g} minutes are over", file=sys.stderr)
        return False

    def rounds(self):
        """All of them while less than half of the time is gone, then one."""
        early = time.monotonic() - self.start < 30 * self.arguments.minutes
        return range(self.arguments.rounds if early else 1)

    def model(self, shape, kind, tokenizer=None):
        """A file with random weights, written when it is missing."""
        path = self.arguments.models / f"random-{shape}-{kind}.gguf"
        if not path.exists():
            self.arguments.models.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            measured(OURS.with_name("random_model"), shape, kind, tokenizer or self.tokenizer(shape), part)
            part.replace(path)
        return path

    def tokenizer(self, shape):
        """The 13B shape has fewer tokens than most tokenizers."""
        given = self.arguments.tokenizer
        return given if given.exists() and shape != "13b" else TINY_TOKENIZER

    def take_turns(self, work, ours, peers, rounds=None):
        """Rounds of ours and of each peer: of all its settings in the first, then of the best one. ours: () -> sample; peers: {name:
        {setting: () -> the server's answer}}."""
        turns = Turns(work, peers)
        for number in range(rounds) if rounds else self.rounds():
            self.say(work, "ours", turns.ours(ours))
            for name, settings in peers.items():
                for setting in turns.worth_asking(name) if number else settings:
                    self.say(work, f"{name} {setting}".strip(), turns.peer(name, setting, settings[setting]))
        return turns

    def say(self, work, who, sample):
        """A line on stderr for each sample: what a stopped run had measured of the row in hand."""
        known = ", ".join(f"{key} {value:,.6g}" for key, value in sample.items() if key in SAID) if sample else "nothing"
        print(f"bench: [{time.monotonic() - self.start:3.0f} s] {work}: {who}: {known}", file=sys.stderr, flush=True)

    def add(self, work, unit, turns, limit=None):
        """The rows of a work: against each peer that was asked, and against each other one whose figure is recorded."""
        known = self.recorded.get(work, {})
        ours = ours_of(turns.mine)
        for name in turns.asked:
            setting, samples = best_setting(turns.theirs[name], unit)
            note = "; ".join(n for n in (setting, turns.why("ours"), "" if samples else turns.why(name)) if n)
            self.table.add(make_row(work, unit, ours, peer_of(name, samples, known.get(name), unit), limit, note))
        for name in known:
            if name not in turns.asked:
                self.table.add(make_row(work, unit, ours, peer_of(name, [], known[name], unit), limit, turns.why("ours")))
        if not turns.asked and not known:
            self.table.add(make_row(work, unit, ours, peer_of("no peer", [], None, unit), limit, turns.why("ours")))


class Turns:
    """The samples of one work, and why there are none."""

    def __init__(self, work, peers):
        self.work, self.asked, self.mine, self.failed = work, list(peers), [], {}
        self.theirs = {name: {setting: [] for setting in settings} for name, settings in peers.items()}

    def ours(self, measure):
        """Takes a sample, unless an earlier one failed; returns it, or None."""
        if "ours" in self.failed:
            return None
        try:
            self.mine.append(measure())
        except Failed as e:
            self.failed["ours"] = str(e).strip().splitlines()[-1]
            return None
        return self.mine[-1]

    def peer(self, name, setting, ask):
        """The same for a setting of a peer."""
        answer = ask() if (name, setting) not in self.failed else {"ok": False, "error": self.failed[name, setting], "remedy": ""}
        if not answer["ok"]:
            self.failed[name, setting] = reason_of(answer)
            return None
        self.theirs[name][setting].append(answer)
        return answer

    def worth_asking(self, name):
        """The peer's setting with the best "value" so far; all of them where samples have no such figure, or there are none."""
        rates = {setting: samples[-1].get("value") for setting, samples in self.theirs[name].items() if samples}
        return [max(rates, key=rates.get)] if rates and None not in rates.values() else list(self.theirs[name])

    def part(self, key, amount):
        """The same turns with amount / sample[key] as each sample's value."""
        part = copy.copy(self)
        part.mine = [{"value": amount / s[key]} for s in self.mine]
        part.theirs = {name: {setting: [{"value": amount / s[key]} for s in samples] for setting, samples in settings.items()}
                       for name, settings in self.theirs.items()}
        return part

    def why(self, who):
        """Why "ours" or a peer has no samples; empty where it has some."""
        reasons = {reason for key, reason in self.failed.items() if key == who or key[0] == who}
        return ("ours: " if who == "ours" and reasons else "") + "; ".join(sorted(reasons))


def reason_of(answer):
    return answer["error"] + (f" ({answer['remedy']})" if answer["remedy"] else "")


def bench_rows(model, *options, timeout=240):
    """{test: row} of supersonic bench on the GPU."""
    out, _, _ = measured(OURS, "bench", model, "--device", "cuda", *options, "--json", timeout=timeout)
    return {row["test"]: row for row in json.loads(out)}


def main(arguments):
    import gpu_attention
    import gpu_decode
    import gpu_train

    session = Session(arguments, arguments.table)
    try:
        {"train": gpu_train, "decode": gpu_decode, "attention": gpu_attention}[arguments.table].measure(session)
    finally:
        session.peers.close()
    session.table.end()
