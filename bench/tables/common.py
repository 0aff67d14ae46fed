"""What the benchmarks' tables share: where things lie, and how a program is run and measured."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("SUPERSONIC_CACHE", ROOT / ".cache"))
OURS = pathlib.Path(os.environ.get("SUPERSONIC_BUILD", ROOT / "build" / "release")) / "bin" / "supersonic"
SMALL_MODEL = CACHE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


class Failed(Exception):
    """A program did not do what it was asked for."""


def measured(*command, timeout=None):
    """(what it printed on stdout, its peak memory in bytes, its seconds); throws Failed with the end of what it printed on stderr."""
    read, write = os.pipe()
    start = time.perf_counter()
    try:
        child = subprocess.Popen([str(c) for c in command], stdout=write, stderr=subprocess.PIPE)
    except OSError as e:
        os.close(read)
        raise Failed(f"{command[0]} does not start: {e.strerror}") from e
    finally:
        os.close(write)
    errors = []
    drain = threading.Thread(target=lambda: errors.append(child.stderr.read()))
    drain.start()
    watch = threading.Timer(timeout, child.kill) if timeout else None
    if watch:
        watch.start()
    with os.fdopen(read, "rb") as pipe:
        out = pipe.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if watch:
        watch.cancel()
    drain.join()
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        late = f" (stopped after {timeout:.0f} s)" if timeout and seconds >= timeout else ""
        raise Failed(f"{' '.join(map(str, command))} ended with {child.returncode}{late}:\n{errors[0].decode(errors='replace')[-2000:]}")
    return out.decode(errors="replace"), usage.ru_maxrss * 1024, seconds


def run(*command):
    """The same, where a failure ends the benchmark."""
    try:
        return measured(*command)
    except Failed as e:
        sys.exit(f"bench: {e}")


def lines(text):
    """Values of a program that prints one JSON value a line."""
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def need_build(preset):
    if not OURS.exists():
        sys.exit(f"bench: {OURS} is not built: cmake --preset {preset} && cmake --build build/{preset}")
