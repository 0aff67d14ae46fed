"""Rows of the GPU's tables: how one is made from samples, and how a table is printed while it grows.

A row is one work against one peer:
    work, unit ("tok/s", "TF/s", or "s", where less is better), note
    ours, ours_spread [least, most], ours_memory, ours_planned (bytes), ours_level (what a training plan keeps and recomputes)
    peer_name, peer, peer_spread, peer_memory, peer_source: "measured", "recorded" (on another day, on the same kind of GPU), "missing"
    ratio: > 1 where ours is better; limit and limit_fraction: what the probed limits allow, in the same unit, and ours as a part of it
    void: the measured peer is below 0.9 of its recorded figure, so something else was using the machine
Bytes are above a bare context. What is not known is null. Values are medians over the rounds.
"""

import json
import pathlib
import statistics
import time

LEAST_OF_RECORDED = 0.9
GIB = 2**30
COLUMNS = ("work", "ours", "peer", "ratio", "limit", "of limit", "memory: ours", "peer", "against")


def ours_of(samples):
    """What a row says of us. samples: [{"value", "memory"?, "planned"?, "level"?}], none where it failed."""
    values = [s["value"] for s in samples]
    last = samples[-1] if samples else {}
    return {"ours": statistics.median(values) if values else None, "ours_spread": [min(values), max(values)] if values else None,
            "ours_memory": last.get("memory"), "ours_planned": last.get("planned"), "ours_level": last.get("level")}


def peer_of(name, samples, recorded, unit):
    """What a row says of a peer. samples as above; recorded: (figure, bytes or None), or None where none is known for this GPU."""
    if not samples and recorded:
        return {"peer_name": name, "peer": recorded[0], "peer_spread": None, "peer_memory": recorded[1], "peer_source": "recorded", "void": False}
    if not samples:
        return {"peer_name": name, "peer": None, "peer_spread": None, "peer_memory": None, "peer_source": "missing", "void": False}
    values = [s["value"] for s in samples]
    peer = statistics.median(values)
    quality = 1 if not recorded else recorded[0] / peer if unit == "s" else peer / recorded[0]
    known = [s["memory"] for s in samples if s.get("memory") is not None]
    return {"peer_name": name, "peer": peer, "peer_spread": [min(values), max(values)], "peer_memory": max(known) if known else None,
            "peer_source": "measured", "void": quality < LEAST_OF_RECORDED}


def make_row(work, unit, ours, peer, limit=None, note=""):
    """ours, peer: what ours_of and peer_of made."""
    a, b = ours["ours"], peer["peer"]
    ratio = None if a is None or b is None else b / a if unit == "s" else a / b
    fraction = None if a is None or limit is None else limit / a if unit == "s" else a / limit
    return {"work": work, "unit": unit, **ours, **peer, "ratio": ratio, "limit": limit, "limit_fraction": fraction, "note": note}


def best_setting(by_setting, unit):
    """(setting, samples) with the best median: a peer's settings are tried in turn, and its best one counts."""
    known = {setting: samples for setting, samples in by_setting.items() if samples}
    if not known:
        return None, []
    better = min if unit == "s" else max
    return better(known.items(), key=lambda item: statistics.median(s["value"] for s in item[1]))


# --- print ---

def number(value, unit):
    if value is None:
        return "–"
    return f"{value:.2f} s" if unit == "s" else f"{value:,.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def memory(value):
    return "" if value is None else f"{value / GIB:.2f} GiB"


def ours_memory(row):
    """What was taken, or else what was planned."""
    planned = row["ours_planned"] if row["ours_memory"] is None else None
    return memory(row["ours_memory"]) if planned is None else memory(planned) + " planned"


def cells(row):
    spread = row["ours_spread"]
    width = "" if not spread or spread[0] == spread[1] or not row["ours"] else f" ±{50 * (spread[1] - spread[0]) / row['ours']:.0f} %"
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
    against = row["peer_name"] + ("" if row["peer_source"] == "measured" else f" ({row['peer_source']})") + (", VOID" if row["void"] else "")
    fraction = "" if row["limit_fraction"] is None else f"{row['limit_fraction']:.2f}"
    return (row["work"], number(row["ours"], row["unit"]) + width, number(row["peer"], row["unit"]), ratio,
            "" if row["limit"] is None else number(row["limit"], row["unit"]), fraction, ours_memory(row), memory(row["peer_memory"]),
            against + (f": {row['note']}" if row["note"] else ""))


class Table:
    """Prints each row as it comes, as text or Markdown; keeps all in a JSON file, so that a run that is killed leaves what it had."""

    WIDTHS = (34, 18, 12, 6, 12, 8, 16, 9, 0)

    def __init__(self, head, style, output):
        self.document = {**head, "date": time.strftime("%Y-%m-%d %H:%M"), "rows": []}
        self.style, self.output = style, pathlib.Path(output) if output else None

    def keep(self):
        if self.output:
            part = self.output.with_name(self.output.name + ".part")
            part.write_text(json.dumps(self.document, indent=1) + "\n")
            part.replace(self.output)

    def begin(self):
        self.keep()
        d = self.document
        limits = d["limits"]
        known = f", limits: {limits['bf16'] / 1e12:.0f} TF/s bf16, {limits['copy'] / 1e12:.2f} TB/s copy" if limits else ""
        peers = ", ".join(f"{name} {version or 'absent'}" for name, version in d["versions"].items())
        if self.style == "json":
            return
        print(f"{d['device']}, {d['date']}, median of {d['rounds']}{known}\n{peers}\n", flush=True)
        if self.style == "markdown":
            print("| " + " | ".join(COLUMNS) + " |\n|" + " --- |" * len(COLUMNS), flush=True)
        else:
            print(self.line(COLUMNS), flush=True)

    def line(self, values):
        return "  ".join(f"{v:<{w}}" if i in (0, len(values) - 1) else f"{v:>{w}}" for i, (v, w) in enumerate(zip(values, self.WIDTHS, strict=True)))

    def add(self, row):
        self.document["rows"].append(row)
        self.keep()
        if self.style == "markdown":
            print("| " + " | ".join(cells(row)) + " |", flush=True)
        elif self.style == "text":
            print(self.line(cells(row)).rstrip(), flush=True)

    def end(self):
        if self.style == "json":
            print(json.dumps(self.document, indent=1))
