"""Golden files: a NAME.json with everything small and readable, and beside it a NAME.bin with the arrays it describes.

In the JSON, "arrays" maps a name to {"dtype": "f32" | "f64" | "i32" | "f16", "shape": [...], "offset": bytes}; the .bin holds
them little-endian, row-major, in the order listed, each at a multiple of 8. tests/support/golden.h reads both in C++.
A recorder is a dict of parts; run() writes them, or with --check computes them again and compares: integers and text
exactly, floats by relative norm (RTOL, or a part's own tolerance for a key, given in "tolerance").
"""

import argparse
import json
import math
import pathlib
import sys
import time
import warnings

import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "golden"
DTYPES = {"f16": "<f2", "f32": "<f4", "f64": "<f8", "i32": "<i4"}
RTOL = 1e-5


def save(path: pathlib.Path, data: dict, arrays: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blob, table = bytearray(), {}
    for name, (dtype, values) in arrays.items():
        values = np.ascontiguousarray(values, DTYPES[dtype])
        table[name] = {"dtype": dtype, "shape": list(values.shape), "offset": len(blob)}
        blob += values.tobytes()
        blob += b"\0" * (-len(blob) % 8)
    if arrays:
        data = {**data, "arrays": table}
        path.with_suffix(".bin").write_bytes(blob)
    path.with_suffix(".json").write_text(_json(data) + "\n")


def load(path: pathlib.Path) -> tuple[dict, dict]:
    """The JSON and its arrays as {name: (dtype, values)}."""
    data = json.loads(path.with_suffix(".json").read_text())
    table = data.pop("arrays", {})
    blob = path.with_suffix(".bin").read_bytes() if table else b""
    arrays = {}
    for name, entry in table.items():
        count = math.prod(entry["shape"])
        values = np.frombuffer(blob, DTYPES[entry["dtype"]], count, entry["offset"])
        arrays[name] = (entry["dtype"], values.reshape(entry["shape"]))
    return data, arrays


def _json(value, depth=0) -> str:
    """JSON with one line for each entry of the two outer levels: readable, and a diff shows what changed."""
    if depth < 2 and isinstance(value, dict) and value:
        rows = [f"{json.dumps(k)}: {_json(v, depth + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + "\n}"
    if depth < 2 and isinstance(value, list) and value and isinstance(value[0], (dict, list)):
        return "[\n" + ",\n".join(_json(v, depth + 1) for v in value) + "\n]"
    return json.dumps(value, ensure_ascii=False)


def differences(old, new, tolerance: dict, where="", key=""):
    """Yields one line for each value that no longer agrees."""
    if isinstance(old, dict) and "margins" in old and isinstance(new, dict):
        yield from _differences_before_a_tie(old, new, where)
    elif isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            if name not in old or name not in new:
                yield f"{where}.{name}: only in the {'golden file' if name in old else 'new result'}"
            else:
                yield from differences(old[name], new[name], tolerance, f"{where}.{name}", name)
    elif isinstance(old, list) and isinstance(new, list):
        if len(old) != len(new):
            yield f"{where}: {len(old)} entries were recorded, now {len(new)}"
        elif old and all(isinstance(x, float) for x in old):
            yield from _compare_floats(np.array(old), np.array(new), tolerance.get(key, RTOL), where)
        else:
            for index, pair in enumerate(zip(old, new)):
                yield from differences(*pair, tolerance, f"{where}[{index}]", key)
    elif isinstance(old, float) and isinstance(new, (float, int)):
        yield from _compare_floats(np.array([old]), np.array([new]), tolerance.get(key, RTOL), where)
    elif old != new:
        yield f"{where}: recorded {old!r}, now {new!r}"


def _differences_before_a_tie(old, new, where, margin=0.05):
    """A greedy continuation: the same tokens up to the first place where two logits were all but equal."""
    tie = next((k for k, m in enumerate(old["margins"]) if m < margin), len(old["margins"]))
    if old["ids"] != new["ids"] or old["continuation"][:tie] != new["continuation"][:tie]:
        yield f"{where}: another continuation of {old['prompt']!r} within {tie} tokens"


def _compare_floats(old, new, limit, where):
    if limit is None:
        return
    error = np.linalg.norm(old - new) / max(np.linalg.norm(old), 1e-30)
    if not error <= limit:
        yield f"{where}: relative difference {error:.2e}, allowed {limit:.0e}"


def check(path: pathlib.Path, data: dict, arrays: dict, tolerance: dict) -> list[str]:
    if not path.with_suffix(".json").exists():
        return [f"{path.name}: not recorded yet"]
    old_data, old_arrays = load(path)
    ignored = ("versions", "tolerance")
    trim = lambda d: {k: v for k, v in d.items() if k not in ignored}
    found = list(differences(trim(old_data), json.loads(json.dumps(trim(data))), tolerance))
    if {k: v[0] for k, v in old_arrays.items()} != {k: v[0] for k, v in arrays.items()}:
        return found + ["the list of arrays differs"]
    for name, (dtype, old) in old_arrays.items():
        new = np.asarray(arrays[name][1])
        limit = tolerance.get(name, tolerance.get(name.split("/")[-1], RTOL))
        if old.shape != new.shape:
            found.append(f"{name}: shape {old.shape} was recorded, now {new.shape}")
        elif dtype == "i32":
            if limit is not None and not np.array_equal(old, new):
                found.append(f"{name}: {np.count_nonzero(old != new)} of {old.size} integers differ")
        else:
            found += _compare_floats(old.astype(np.float64), new.astype(np.float64), limit, name)
    return found


def run(folder: str, parts: dict) -> None:
    """parts: {name: function() -> (data, arrays) or (data, arrays, tolerance)}. The command line of every recorder."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--check", action="store_true", help="compute again and compare, write nothing")
    parser.add_argument("part", nargs="*", help=f"of {', '.join(parts)} (default: all)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # the libraries' notes on their own future
    bad = 0
    for name in arguments.part or parts:
        start = time.time()
        data, arrays, *rest = parts[name]()
        tolerance = rest[0] if rest else {}
        path = FOLDER / folder / name
        if arguments.check:
            found = check(path, data, arrays, tolerance)
            bad += bool(found)
            verdict = "agrees" if not found else "DISAGREES\n  " + "\n  ".join(found[:20])
            print(f"{folder}/{name}: {verdict} ({time.time() - start:.0f} s)", flush=True)
        else:
            save(path, data, arrays)
            print(f"{folder}/{name}: recorded ({time.time() - start:.0f} s)", flush=True)
    sys.exit(1 if bad else 0)
