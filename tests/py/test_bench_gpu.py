"""scripts/bench gpu without a GPU: what a row says, when a peer voids it, what is printed and kept while a table grows, and what happens
where programs or peers are missing or fail. Where a table runs, the programs are scripts that print what the real ones print."""

import json
import os
import pathlib
import stat
import subprocess
import sys

import pytest

from places import BIN, ROOT

sys.path.insert(0, str(ROOT / "bench" / "tables"))

import gpu_attention  # noqa: E402
import gpu_decode  # noqa: E402
import gpu_rows  # noqa: E402
import gpu_train  # noqa: E402
import recorded  # noqa: E402

FIELDS = {"work", "unit", "ours", "ours_spread", "ours_memory", "ours_planned", "ours_level", "peer_name", "peer", "peer_spread", "peer_memory",
          "peer_source", "void", "ratio", "limit", "limit_fraction", "note"}


def samples(*values, **more):
    return [{"value": v, **more} for v in values]


def test_a_row_has_medians_spreads_ratio_and_fraction():
    ours = gpu_rows.ours_of(samples(100, 120, 110, memory=6 << 30, planned=5 << 30, level="keep all"))
    peer = gpu_rows.peer_of("peer", samples(50, 60, 55, memory=12 << 30), None, "tok/s")
    row = gpu_rows.make_row("work", "tok/s", ours, peer, limit=220, note="n")
    assert set(row) == FIELDS
    assert (row["ours"], row["ours_spread"], row["ours_memory"], row["ours_planned"], row["ours_level"]) == (110, [100, 120], 6 << 30, 5 << 30, "keep all")
    assert (row["peer"], row["peer_spread"], row["peer_memory"], row["peer_source"], row["void"]) == (55, [50, 60], 12 << 30, "measured", False)
    assert (row["ratio"], row["limit_fraction"], row["note"]) == (2, 0.5, "n")


def test_of_seconds_fewer_are_better():
    row = gpu_rows.make_row("start", "s", gpu_rows.ours_of(samples(5)), gpu_rows.peer_of("peer", samples(30), None, "s"), limit=4)
    assert (row["ratio"], row["limit_fraction"]) == (6, 0.8)


@pytest.mark.parametrize(("value", "unit", "void"), [(89.9, "tok/s", True), (90.1, "tok/s", False), (200, "tok/s", False), (112, "s", True), (111, "s", False), (50, "s", False)])
def test_a_peer_below_nine_tenths_of_its_recorded_figure_voids_the_row(value, unit, void):
    assert gpu_rows.peer_of("peer", samples(value), (100, None), unit)["void"] is void


def test_a_peer_that_is_not_there_shows_its_recorded_figure_or_that_it_is_missing():
    shown = gpu_rows.peer_of("peer", [], (100, 7 << 30), "tok/s")
    assert (shown["peer"], shown["peer_memory"], shown["peer_source"], shown["void"]) == (100, 7 << 30, "recorded", False)
    row = gpu_rows.make_row("work", "tok/s", gpu_rows.ours_of(samples(150)), shown)
    assert row["ratio"] == 1.5 and "peer (recorded)" in gpu_rows.cells(row)[-1]
    row = gpu_rows.make_row("work", "tok/s", gpu_rows.ours_of([]), gpu_rows.peer_of("peer", [], None, "tok/s"))
    assert row["ratio"] is None and row["ours"] is None and row["peer_source"] == "missing" and "peer (missing)" in gpu_rows.cells(row)[-1]


def test_the_best_setting_of_a_peer_counts():
    tried = {"a": samples(1, 9, 2), "b": samples(3, 3), "c": []}
    assert gpu_rows.best_setting(tried, "tok/s") == ("b", tried["b"])
    assert gpu_rows.best_setting(tried, "s") == ("a", tried["a"])
    assert gpu_rows.best_setting({"c": []}, "s") == (None, [])


def test_memory_that_was_only_planned_says_so():
    row = gpu_rows.make_row("work", "tok/s", gpu_rows.ours_of(samples(10, planned=6 << 30)), gpu_rows.peer_of("peer", [], None, "tok/s"))
    assert gpu_rows.cells(row)[6] == "6.00 GiB planned"


def test_void_rows_say_so():
    row = gpu_rows.make_row("work", "tok/s", gpu_rows.ours_of(samples(10)), gpu_rows.peer_of("peer", samples(5), (100, None), "tok/s"))
    assert "VOID" in gpu_rows.cells(row)[-1]


def test_every_recorded_figure_belongs_to_a_work():
    decode = {work for shape, kind in gpu_decode.MODELS for work in gpu_decode.works(shape, kind)}
    attention = {f"d{dim} {rows}x{length} {part}" for rows, length, dim in gpu_attention.SHAPES for part in ("forward", "both")}
    assert set(recorded.TRAIN) <= {w.name for w in gpu_train.WORKS} | {gpu_train.START}
    assert set(recorded.DECODE) <= decode and set(recorded.ATTENTION) <= attention


def test_operations_of_attention():
    assert gpu_attention.operations(4, 2048, 128, both=False) == 4 * 2 * 2 * 2048 * 2048 * 32 * 128 / 2  # two products, half of the scores
    assert gpu_attention.operations(1, 64, 64, both=True) == 3.5 * gpu_attention.operations(1, 64, 64, both=False)


def test_text_for_training_is_real_and_bounded(tmp_path):
    gpu_train.write_text(tmp_path / "text.jsonl")
    texts = [json.loads(line)["text"] for line in (tmp_path / "text.jsonl").read_text(encoding="utf-8").splitlines()]
    assert gpu_train.TEXT_BYTES < sum(map(len, texts)) < 2 * gpu_train.TEXT_BYTES and any("def " in t for t in texts)


# --- the program ---

SUPERSONIC = '''
import json, os, sys, time
words = sys.argv[1:]
def option(name): return words[words.index(name) + 1] if name in words else None
if words[0] == "doctor":
    print(json.dumps({"gpus": [{"name": "NVIDIA H100 80GB HBM3"}], "gpu_problem": ""}))
elif words[0] == "train":
    out = option("-o")
    os.makedirs(out)
    with open(out + "/train_log.jsonl", "w") as log:
        for i in range(1, int(option("--max-steps")) + 1):
            log.write(json.dumps({"step": i, "tokens": 4096 * i, "seconds": 0.5 * i}) + "\\n")
    print(json.dumps({"planned_bytes": 6 << 30}))
elif option("--memory") == "24GiB" and os.environ.get("HANG"):
    time.sleep(60)
elif option("--memory") == "2.25GiB":
    sys.exit("error: it does not fit into 2.25 GiB")
elif "--train" in words:
    rows, length = int(option("--batch")), int(option("--seq-len"))
    print(json.dumps([{"test": f"lora{rows}x{length}", "seconds": [0.4, 0.5, 0.6], "peak_bytes": 7 << 30, "planned_bytes": 6 << 30, "level": "all", "operations": 2e14}]))
else:
    depth = int(option("--depth"))
    name, n = ("tg", option("-n")) if option("-n") != "0" else ("pp", option("-p"))
    test = f"{name}{n}@{depth}" if depth else f"{name}{n}"
    print(json.dumps([{"test": test, "seconds": [0.5], "peak_bytes": 5 << 30, "bytes": 5e9, "operations": 3e13}]))
'''
HAND = 'print(\'{"tokens_per_second": 15000, "engine_seconds": 0.27, "hand_seconds": 0.26, "engine_bytes": 130, "hand_bytes": 120}\')'
ATTENTION = 'import sys; print(\'{"shape": "%s", "forward_seconds": 0.001, "backward_seconds": 0.0025}\' % sys.argv[1])'
PYTHON = '''
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "limits":
        answer = {"ok": True, "bf16": 8e14, "copy": 3e12, "versions": {"torch": "2.11.0", "bitsandbytes": None}}
    elif request["do"] == "attention":
        answer = {"ok": True, "forward_seconds": 0.0011, "both_seconds": 0.004} if request["backend"] == "cudnn" else {"ok": False, "error": "no kernel", "remedy": ""}
    elif request.get("length") == 8192:
        answer = {"ok": False, "error": "out of memory", "remedy": ""}
    elif request.get("shape") == "13b":
        sys.exit("the driver is gone")
    else:
        answer = {"ok": True, "tokens_per_second": 8000.0 if request.get("sdpa") == "cudnn" else 6000.0, "peak_bytes": 12 << 30}
    print(json.dumps(answer), flush=True)
'''


@pytest.fixture
def bench(tmp_path):
    """bench("train", …) -> (stdout, stderr, the table of --output) with the programs above."""
    programs = {"bin/supersonic": SUPERSONIC, "bin/gpu_attention": ATTENTION, "bin/hand_step": HAND, "bin/random_model": "import sys; open(sys.argv[4], 'w').write(sys.argv[1])", "python": PYTHON}
    for name, source in programs.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!{sys.executable}\n{source}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    output = tmp_path / "table.json"

    def start(*words, **environment):
        command = [sys.executable, ROOT / "scripts" / "bench", "gpu", *words, "--python", tmp_path / "python", "--models", tmp_path / "models"]
        return subprocess.Popen([*command, "--output", output], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "SUPERSONIC_BUILD": str(tmp_path), **environment})

    def call(*words):
        child = start(*words)
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        return out, err, json.loads(output.read_text())

    call.start, call.output = start, output
    return call


def by_peer(table):
    return {(row["work"], row["peer_name"]): row for row in table["rows"]}


def test_the_training_table(bench):
    out, _, table = bench("train", "--rounds", "2", "--json")
    assert json.loads(out) == table and all(set(row) == FIELDS for row in table["rows"])
    assert (table["table"], table["rounds"], table["limits"]) == ("train", 2, {"bf16": 8e14, "copy": 3e12})
    rows = by_peer(table)
    least = rows["8B 2x2048, 6 GiB", recorded.HF]
    assert (least["ours"], least["peer"], least["peer_source"], least["note"]) == (8192, 8000, "measured", "cuDNN's attention")
    assert least["limit"] == pytest.approx(8e14 * 4096 / 2e14) and least["ours_memory"] == 7 << 30 and least["peer_memory"] == 12 << 30
    assert not least["void"] and rows["1B 4x2048, 2.25 GiB", recorded.HF]["void"]  # 8,000 of 21,502
    assert rows["8B 2x2048, 6 GiB", recorded.UNSLOTH]["peer_source"] == "recorded"
    assert rows["8B 2x2048, 6 GiB, text", recorded.HF]["ours"] == 8192 and rows["8B 2x2048, 6 GiB, text", recorded.HF]["peer"] == 8000
    assert rows["8B start to first step", recorded.UNSLOTH]["unit"] == "s" and rows["8B start to first step", recorded.UNSLOTH]["ours"] > 0


def test_a_failure_on_either_side_is_a_row(bench):
    _, _, table = bench("train", "--rounds", "1")
    rows = by_peer(table)
    tight = rows["1B 4x2048, 2.25 GiB", recorded.HF]
    assert tight["ours"] is None and tight["ratio"] is None and "it does not fit into 2.25 GiB" in tight["note"] and tight["peer"] == 8000
    assert ("8B 1x32768, 10 GiB", recorded.HF) not in rows  # it has no figure there
    assert rows["8B 1x32768, 10 GiB", recorded.UNSLOTH]["ours"] == 65536
    full = rows["8B 1x8192, 7.8 GiB", recorded.HF]
    assert full["ours"] == 16384 and full["peer_source"] == "recorded" and "out of memory" in full["note"]
    gone = rows["13B 2x2048, 8.5 GiB", recorded.HF]
    assert gone["peer_source"] == "recorded" and "the driver is gone" in gone["note"]


def test_the_step_by_hand_is_a_row(bench):
    _, _, table = bench("train", "--only", "by hand")
    [row] = table["rows"]
    assert (row["work"], row["peer_name"], row["peer_source"]) == (gpu_train.HAND, "hand-scheduled", "measured")
    assert row["ratio"] == pytest.approx(0.26 / 0.27) and (row["ours_memory"], row["peer_memory"]) == (130, 120)


def test_a_missing_program_is_a_row(bench):
    (bench.output.parent / "bin" / "hand_step").unlink()
    _, _, table = bench("train", "--only", "by hand")
    [row] = table["rows"]
    assert row["ours"] is None and row["peer"] is None and "hand_step does not start" in row["note"]


def test_after_the_first_round_a_peers_best_setting_alone_is_asked(bench):
    _, err, _ = bench("train", "--rounds", "3", "--only", "8B 2x2048, 24")
    asked = [line.split("bitsandbytes ")[1].split(":")[0] for line in err.splitlines() if recorded.HF in line]
    assert asked == ["PyTorch's choice of attention"] + 3 * ["cuDNN's attention"]


def test_the_decoding_table(bench):
    out, _, table = bench("decode", "--rounds", "1", "--markdown")
    rows = by_peer(table)
    long = rows["decode 128 after 8192, 8B Q4_K_M", recorded.LLAMA]
    assert (long["ours"], long["peer"], long["limit"]) == (256, 225, 3e12 / 5e9)
    assert rows["prefill 2048, 8B Q4_K_M", recorded.LLAMA]["limit"] == pytest.approx(8e14 * 2048 / 3e13)
    assert rows["decode 128, 8B bf16", "HF generate"]["peer_source"] == "measured"
    lines = [line for line in out.splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + len(table["rows"]) and all(line.count("|") == 10 for line in lines)


def test_the_attention_table(bench):
    _, _, table = bench("attention", "--rounds", "1", "--only", "d128 1x8192")
    rows = by_peer(table)
    assert set(work for work, _ in rows) == {"d128 1x8192 forward", "d128 1x8192 both"}
    forward = rows["d128 1x8192 forward", recorded.CUDNN]
    assert forward["ours"] == pytest.approx(549.76, rel=1e-3) and forward["ratio"] == pytest.approx(1.1) and forward["limit"] == 800
    assert rows["d128 1x8192 both", recorded.CUDNN]["ours"] == pytest.approx(549.76, rel=1e-3)
    assert rows["d128 1x8192 both", recorded.FA2]["peer_source"] == "recorded" and "no kernel" in rows["d128 1x8192 both", recorded.FA2]["note"]


def test_a_run_that_is_killed_leaves_the_rows_it_had(bench):
    child = bench.start("train", "--rounds", "1", HANG="1")
    for line in child.stderr:
        if "8B 2x2048, 6 GiB: HF" in line and "cuDNN" in line:
            break
    printed = [child.stdout.readline() for _ in range(6)]  # two lines of heading, an empty one, the columns, two rows
    child.kill()
    child.communicate(timeout=60)
    assert printed[4].startswith("8B 2x2048, 6 GiB") and recorded.HF in printed[4] and recorded.UNSLOTH in printed[5]
    assert [row["peer_name"] for row in json.loads(bench.output.read_text())["rows"]] == [recorded.HF, recorded.UNSLOTH]


def test_works_that_would_begin_too_late_are_left_out(bench):
    _, err, table = bench("attention", "--minutes", "0", "--only", "d128")
    assert table["rows"] == [] and "left out" in err


def test_without_a_gpu_the_program_says_what_is_missing():
    program = BIN / "supersonic"
    if not program.exists() or json.loads(subprocess.run([program, "doctor", "--json"], capture_output=True, text=True).stdout)["gpus"]:
        pytest.skip("needs a build, and a machine without a GPU")
    done = subprocess.run([sys.executable, ROOT / "scripts" / "bench", "gpu", "train"], capture_output=True, text=True, env={**os.environ, "SUPERSONIC_BUILD": str(BIN.parent)})
    assert done.returncode == 1 and "no GPU to measure on" in done.stderr and "Traceback" not in done.stderr


def test_without_a_build_the_program_says_how_to_make_one(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "scripts" / "bench", "gpu", "decode"], capture_output=True, text=True, env={**os.environ, "SUPERSONIC_BUILD": str(tmp_path)})
    assert done.returncode == 1 and "cmake --preset" in done.stderr


@pytest.mark.parametrize("words", [("--help",), ("cpu", "--help"), ("gpu", "--help")])
def test_help(words):
    done = subprocess.run([sys.executable, ROOT / "scripts" / "bench", *words], capture_output=True, text=True)
    assert done.returncode == 0 and ("--rounds" in done.stdout)


def test_the_peers_process_names_a_missing_package():
    """An interpreter without PyTorch: an isolated one has no installed packages."""
    request = json.dumps({"do": "attention", "backend": "cudnn", "rows": 1, "length": 64, "heads": 1, "kv_heads": 1, "dim": 64})
    done = subprocess.run([sys.executable, "-S", ROOT / "bench" / "peers" / "gpu" / "server.py"], input=request + "\n", capture_output=True, text=True)
    answer = json.loads(done.stdout)
    assert answer["ok"] is False and "torch" in answer["error"] and answer["remedy"].endswith("pip install torch")


def test_the_shapes_are_those_of_the_written_models():
    """Both sides of a row must do the same work: random_model.cpp's table against the peers' configurations."""
    sys.path.insert(0, str(ROOT / "bench" / "peers" / "gpu"))
    from shapes import SHAPES

    source = pathlib.Path(ROOT / "bench" / "random_model.cpp").read_text()
    for name, s in SHAPES.items():
        values = ", ".join(str(s[k]) for k in ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"))
        assert f'{{"{name}", {{{values}, {str(s["tie_word_embeddings"]).lower()}, {s["rope_theta"]:.1f}f}}}}' in source
