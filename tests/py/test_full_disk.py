"""A disk that is full: one message with the remedy, exit code 1, nothing half-written under a final name, and training goes on where it was
once there is room.

The disk is a tmpfs of a chosen size in a mount namespace of its own, which an unprivileged user may make where the kernel allows user
namespaces; elsewhere those tests are skipped. A limit on the size of a file (ulimit -f) fails writes everywhere, so that the same paths
are always tried with it."""

import json
import resource
import shutil
import subprocess

import pytest

from disk import NAMESPACE, needs_disk
from places import BIN

PROGRAM = BIN / "supersonic"
OPTIONS = ["--max-steps", "6", "--seq-len", "64", "--accum", "1", "--rank", "32", "--save-every", "2", "--keep", "2"]
# $1 the mount point, $2 its size, $3 how it is enlarged before the command runs again (empty: not at all), then the command.
SCRIPT = """
disk=$1 size=$2 more=$3; shift 3
mount -t tmpfs -o size=$size none "$disk" || exit 97
"$@"; code=$?
echo "LEFT $(cd "$disk" && find . -type f | sort | tr '\\n' ' ')"
if [ -n "$more" ]; then mount -o remount,size=$more "$disk"; "$@" >&2; echo "AGAIN $?"; cp -r "$disk/out" "$disk.kept"; fi
exit $code
"""


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return tiny_model("llama3")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "text.jsonl"
    path.write_text("".join(json.dumps({"text": f"sample {i} " + "and so on and on " * (i % 5)}) + "\n" for i in range(40)))
    return path


@pytest.fixture(scope="module")
def straight(tiny, data, tmp_path_factory):
    """The folder of a run with room enough."""
    out = tmp_path_factory.mktemp("straight") / "out"
    subprocess.run([PROGRAM, "train", "-m", tiny, "-d", data, "-o", out, *OPTIONS], check=True, capture_output=True)
    return out


def bytes_of(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def on_small_disk(tmp_path, size, arguments, more=""):
    """Runs the command, in which DISK is the mount point; returns (what it did, the files that were left, how it went with more room)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    words = [str(PROGRAM), *(str(a).replace("DISK", str(disk)) for a in arguments)]
    done = subprocess.run([*NAMESPACE, "sh", "-c", SCRIPT, "sh", disk, str(size), str(more), *words], capture_output=True, text=True, timeout=300)
    assert done.returncode != 97, done.stderr
    left = next(line for line in done.stdout.splitlines() if line.startswith("LEFT")).split()[1:]
    again = [line for line in done.stdout.splitlines() if line.startswith("AGAIN")]
    return done, left, again


def with_file_limit(limit, arguments):
    return subprocess.run([str(PROGRAM), *map(str, arguments)], capture_output=True, text=True, timeout=300, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))


def one_error(done, *words):
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("error: ") == 1, done.stderr
    message = done.stderr[done.stderr.index("error: "):]
    for word in words:
        assert word in message, message
    assert "/.tmp-" not in message and ".part-" not in message, message


# --- training ---


@needs_disk
def test_at_a_checkpoint_the_one_before_stays_and_training_goes_on_with_more_room(tiny, data, straight, tmp_path):
    size = bytes_of(straight / "checkpoints/step-000006")
    done, left, again = on_small_disk(tmp_path, size * 3 // 2, ["train", "-m", tiny, "-d", data, "-o", "DISK/out", *OPTIONS], "64m")
    one_error(done, "disk is full", "free some room", "step-000004", "the one of step 2 is whole", "the same command continues")
    assert sorted(name.split("/")[-1] for name in left if "checkpoints" in name) == sorted(p.name for p in (straight / "checkpoints/step-000006").iterdir())
    assert not any("adapter" in name or ".tmp" in name for name in left)
    assert again == ["AGAIN 0"] and "continuing after step 2 of 6" in done.stderr
    for name in ("adapter_model.safetensors", "adapter_config.json", "checkpoints/step-000006/lora.bin"):
        assert (tmp_path / "disk.kept" / name).read_bytes() == (straight / name).read_bytes(), name


@needs_disk
def test_at_the_first_checkpoint_nothing_is_left(tiny, data, straight, tmp_path):
    size = bytes_of(straight / "checkpoints/step-000006")
    done, left, _ = on_small_disk(tmp_path, size // 2, ["train", "-m", tiny, "-d", data, "-o", "DISK/out", *OPTIONS])
    one_error(done, "disk is full", "step-000002", "from the beginning")
    assert {name.split("/")[-1] for name in left} == {"config.yaml", "train_log.jsonl"}


@needs_disk
def test_at_the_final_save_the_checkpoint_is_there_and_no_adapter(tiny, data, straight, tmp_path):
    size = bytes_of(straight / "checkpoints/step-000006") + (straight / "adapter_model.safetensors").stat().st_size // 2
    options = [*OPTIONS, "--save-every", "0"]
    done, left, again = on_small_disk(tmp_path, size, ["train", "-m", tiny, "-d", data, "-o", "DISK/out", *options], "64m")
    one_error(done, "adapter_model.safetensors", "disk is full", "free some room")
    assert any("step-000006" in name for name in left) and not any("adapter" in name for name in left)
    assert again == ["AGAIN 0"] and "complete already" in done.stderr
    assert (tmp_path / "disk.kept/adapter_model.safetensors").read_bytes() == (straight / "adapter_model.safetensors").read_bytes()


def test_a_file_limit_at_a_checkpoint(tiny, data, straight, tmp_path):
    largest = max(p.stat().st_size for p in (straight / "checkpoints/step-000006").iterdir())
    out = tmp_path / "out"
    done = with_file_limit(largest - 1, ["train", "-m", tiny, "-d", data, "-o", out, *OPTIONS])
    one_error(done, "ulimit -f", "step-000002", "from the beginning")
    assert list((out / "checkpoints").iterdir()) == [] and not (out / "adapter_model.safetensors").exists()


def test_a_file_limit_in_the_log(tiny, data, tmp_path):
    out = tmp_path / "out"
    done = with_file_limit(2000, ["train", "-m", tiny, "-d", data, "-o", out, *OPTIONS, "--max-steps", "40", "--save-every", "0"])
    one_error(done, "train_log.jsonl", "ulimit -f", "continues from the newest checkpoint")


# --- merge and convert ---


@pytest.fixture(scope="module")
def outputs(tiny, straight):
    """name: (arguments without the output, the output's name)"""
    return {
        "merge to gguf": (["merge", tiny, "--adapter", straight], "merged.gguf"),
        "merge to hf": (["merge", tiny, "--adapter", straight, "--to", "hf", "--shard-size", "2MiB"], "merged"),
        "convert to gguf": (["convert", tiny, "--type", "q8_0"], "converted.gguf"),
        "convert to hf": (["convert", tiny, "--to", "hf"], "converted"),
        "convert an adapter": (["convert", straight, "--base", tiny], "adapter.gguf"),
    }


NAMES = ["merge to gguf", "merge to hf", "convert to gguf", "convert to hf", "convert an adapter"]


@needs_disk
@pytest.mark.parametrize("name", NAMES)
def test_exports_leave_nothing_on_a_full_disk(outputs, tmp_path, name):
    arguments, output = outputs[name]
    done, left, _ = on_small_disk(tmp_path, "512k", [*arguments, "-o", f"DISK/{output}"])
    one_error(done, "disk is full", "free some room", f"disk/{output}")
    assert left == []


@pytest.mark.parametrize("name", NAMES)
def test_exports_leave_nothing_at_a_file_limit(outputs, tmp_path, name):
    arguments, output = outputs[name]
    done = with_file_limit(300_000, [*arguments, "-o", tmp_path / output])
    one_error(done, "ulimit -f", output)
    assert list(tmp_path.iterdir()) == []


def test_a_replaced_model_stays_when_the_new_one_does_not_fit(outputs, tmp_path):
    arguments, output = outputs["convert to gguf"]
    (tmp_path / output).write_bytes(b"what was there")
    done = with_file_limit(300_000, [*arguments, "-o", tmp_path / output, "--force"])
    one_error(done, "ulimit -f")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"what was there"]


def test_a_replaced_adapter_stays_when_the_new_one_does_not_fit(tiny, data, straight, tmp_path):
    # The old pair of files comes from another run, with a smaller rank.
    out = tmp_path / "out"
    shutil.copytree(straight, out)
    before = {name: (out / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")}
    shutil.rmtree(out / "checkpoints")
    limit = len(before["adapter_model.safetensors"]) - 1
    done = with_file_limit(limit, ["train", "-m", tiny, "-d", data, "-o", out, *OPTIONS, "--optim", "adamw-8bit", "--resume", "none"])
    one_error(done, "ulimit -f")
    assert {name: (out / name).read_bytes() for name in before} == before
