"""The program as a user meets it: exit codes, where output goes, JSON results, start-up time."""

import json
import os
import struct
import subprocess
import time

import pytest

from places import BIN, ROOT

PROGRAM = BIN / "supersonic"


def run(*args, stdin="", env=None):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SUPERSONIC_")}
    environment.update(env or {})
    return subprocess.run([PROGRAM, *map(str, args)], input=stdin, capture_output=True, text=True, env=environment)


def gguf_string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def string_value(key, value):
    return gguf_string(key) + struct.pack("<I", 8) + gguf_string(value)


def u32_value(key, value):
    return gguf_string(key) + struct.pack("<II", 4, value)


def strings_value(key, values):
    return gguf_string(key) + struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(gguf_string, values))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A GGUF file without weights: a byte-level vocabulary of the 256 bytes, two merges and two special tokens."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in printable}
    for i, b in enumerate(b for b in range(256) if b not in letters):
        letters[b] = chr(256 + i)
    tokens = [letters[b] for b in range(256)] + ["he", "ll", "<|start|>", "<|end|>"]
    types = [1] * 258 + [3, 3]
    template = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>{% endfor %}" \
               "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    values = [
        string_value("general.architecture", "gpt-nothing"),
        string_value("general.name", "tiny"),
        string_value("tokenizer.ggml.model", "gpt2"),
        string_value("tokenizer.ggml.pre", "gpt-2"),
        strings_value("tokenizer.ggml.tokens", tokens),
        gguf_string("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, len(types)) + struct.pack(f"<{len(types)}i", *types),
        strings_value("tokenizer.ggml.merges", ["h e", "l l"]),
        u32_value("tokenizer.ggml.bos_token_id", 258),
        u32_value("tokenizer.ggml.eos_token_id", 259),
        gguf_string("tokenizer.ggml.add_bos_token") + struct.pack("<IB", 7, 0),
        string_value("tokenizer.chat_template", template),
    ]
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + b"".join(values)
    path = tmp_path_factory.mktemp("cli") / "tiny.gguf"
    path.write_bytes(header + b"\0" * (-len(header) % 32))
    return path


def test_exit_codes():
    assert run("version").returncode == 0
    assert run().returncode == 2
    assert run("nonsense").returncode == 2
    assert run("version", "--nonsense").returncode == 2
    assert run("show").returncode == 2
    assert run("show", "/nonexistent.gguf").returncode == 5
    assert run("version", "-c", "/nonexistent.yaml").returncode == 2


def test_a_full_disk_is_a_failure():
    with open("/dev/full", "w") as full:
        done = subprocess.run([PROGRAM, "help", "--markdown"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "cannot write the output" in done.stderr


def test_errors_go_to_stderr_with_a_hint():
    done = run("vresion")
    assert done.stdout == "" and "did you mean 'version'?" in done.stderr
    assert "did you mean '--json'?" in run("version", "--jsn").stderr


def test_no_colour_where_nobody_looks():
    assert "\x1b" not in run("nonsense").stderr


def test_version_starts_within_ten_milliseconds():
    best = 1.0
    for _ in range(20):
        begin = time.perf_counter()
        assert run("--version").stdout.startswith("supersonic ")
        best = min(best, time.perf_counter() - begin)
    bare = 1.0
    for _ in range(20):
        begin = time.perf_counter()
        subprocess.run(["/bin/true"], capture_output=True)
        bare = min(bare, time.perf_counter() - begin)
    assert best - bare <= 0.010


def test_help_for_every_command():
    overview = run("help").stdout
    for name in [line.split()[0] for line in overview.splitlines() if line.startswith("  ")]:
        done = run(name, "--help")
        assert done.returncode == 0 and f"Usage: supersonic {name}" in done.stdout
        page = done.stdout.split("\nExamples\n")[0]
        assert all(len(line) <= 80 for line in page.splitlines()), name


def test_the_reference_page_is_current():
    assert (ROOT / "docs/cli.md").read_text() == run("help", "--markdown").stdout


def test_the_page_of_formats_is_current_and_lists_every_type():
    page = run("help", "--formats").stdout
    assert (ROOT / "docs/formats.md").read_text() == page
    listed = {line.split(" | ")[1]: line.split(" | ")[0].strip("| ") for line in page.splitlines() if line.count(" | ") == 6}
    assert {int(n) for n in listed if n.isdigit()} == {2, 3, *range(6, 9), *range(10, 15), *range(16, 24), 29, 34, 35, *range(39, 43)}


def test_doctor_json():
    report = json.loads(run("doctor", "--json").stdout)
    assert report["cpu"]["threads"] <= len(os.sched_getaffinity(0))
    assert report["cpu"]["isa"] in ("portable", "avx2", "avx512")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert abs(report["memory"]["total_bytes"] - total) < 0.02 * total
    assert 0 < report["memory"]["available_bytes"] <= report["memory"]["total_bytes"]
    free = os.statvfs(".").f_bavail * os.statvfs(".").f_frsize
    assert abs(report["disk"]["here_free_bytes"] - free) < 1 << 30
    assert bool(report["gpus"]) != bool(report["gpu_problem"]), "GPUs, or why there are none"
    for gpu in report["gpus"]:
        assert gpu["name"] and float(gpu["compute_capability"]) >= 5
        assert 0 < gpu["free_bytes"] <= gpu["total_bytes"]


def test_precedence_shows_in_the_resolved_config(tmp_path, model):
    config = tmp_path / "c.yaml"
    config.write_text("parse_special: true\ntext: from file\n")
    done = run("tokenize", model, "-c", config, "--print-config", env={"SUPERSONIC_TEXT": "from variable"})
    assert "text: from variable  # environment" in done.stdout
    assert "parse-special: true  # config" in done.stdout
    assert f"model: {model}  # flag" in done.stdout
    config.write_text("parse_specail: true\n")
    done = run("tokenize", model, "-c", config)
    assert done.returncode == 2 and "c.yaml:1: unknown key 'parse_specail'; did you mean 'parse-special'?" in done.stderr


def test_tokenize_and_back(model, tmp_path):
    assert json.loads(run("tokenize", model, "--text", "hello", "--json").stdout) == [256, 257, ord("o")]
    assert json.loads(run("tokenize", model, "--text", "<|end|>", "--json", "--parse-special").stdout) == [259]
    plain = json.loads(run("tokenize", model, "--text", "<|end|>", "--json").stdout)
    assert 259 not in plain and len(plain) > 1
    file = tmp_path / "t.txt"
    file.write_text("héllo\n")
    from_file = run("tokenize", model, "--file", file, "--json").stdout
    assert run("tokenize", model, "--file", "-", "--json", stdin="héllo\n").stdout == from_file
    ids = ",".join(map(str, json.loads(from_file)))
    assert json.loads(run("tokenize", model, "--ids", ids, "--json").stdout) == "héllo\n"


def test_tokenize_refuses_what_it_cannot_mean(model):
    assert run("tokenize", model).returncode == 2
    assert run("tokenize", model, "--text", "a", "--ids", "1").returncode == 2
    assert run("tokenize", model, "--ids", "99999").returncode == 2
    assert run("tokenize", model, "--ids", "-1").returncode == 2


def test_template_renders_and_marks_what_is_trusted(model, tmp_path):
    messages = [{"role": "user", "content": "a <|end|> b"}]
    file = tmp_path / "m.json"
    file.write_text(json.dumps(messages))
    want = "<|start|>user\na <|end|> b<|end|>"
    assert run("template", model, "-f", file).stdout == want
    assert run("template", model, "-f", "-", "--generation-prompt", stdin=json.dumps(messages)).stdout == want + "<|start|>assistant\n"
    result = json.loads(run("template", model, "-f", file, "--json").stdout)
    assert result["text"] == want
    untrusted = [want[s["begin"]:s["end"]] for s in result["spans"] if not s["trusted"]]
    assert any("a <|end|> b" in text for text in untrusted)
    file.write_text("{nonsense")
    assert run("template", model, "-f", file).returncode == 5
    assert run("template", model, "-f", file, "--name", "other").returncode == 2


def test_show_lists_what_a_file_holds(model, tmp_path):
    listing = json.loads(run("show", model, "--json", "--metadata", "--template").stdout)
    assert listing["container"] == "GGUF v3" and listing["name"] == "tiny" and listing["supported"] is False
    assert listing["metadata"]["tokenizer.ggml.bos_token_id"] == "258"
    assert run("show", model, "--template").stdout.startswith("{% for m in messages %}")
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(model.read_bytes()[:100])
    done = run("show", bad)
    assert done.returncode == 5 and "bad.gguf" in done.stderr and done.stdout == ""


def test_show_reads_a_folder(tmp_path):
    header = json.dumps({"model.embed_tokens.weight": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [0, 64]},
                         "model.norm.weight": {"dtype": "F32", "shape": [8], "data_offsets": [64, 96]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(96))
    (tmp_path / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 4, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": True}))
    listing = json.loads(run("show", tmp_path, "--json", "--tensors").stdout)
    assert listing["parameters"] == 40 and listing["bytes"] == 96 and listing["supported"] is True
    assert {t["type"]: t["bytes"] for t in listing["types"]} == {"bf16": 64, "f32": 32}
    assert listing["tensors"][0]["shape"] == [4, 8]
