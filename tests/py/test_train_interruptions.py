"""Training that is killed, interrupted or started again ends with the bytes of the run that nobody disturbed.

The oracle is the undisturbed run itself: adapter, checkpoint and loss log must be equal byte for byte, times aside. Kills come at moments
that a fixed seed chooses; the temporary folder of a checkpoint tells when one is being written."""

import json
import os
import pathlib
import random
import signal
import subprocess
import time

import pytest

from places import BIN

PROGRAM = BIN / "supersonic"
# Everything that has a state: 8-bit moments, accumulation, shuffled epochs, evaluations, early stopping with its best adapter.
EVERYTHING = ["--max-steps", "20", "--seq-len", "64", "--batch", "2", "--accum", "2", "--optim", "adamw-8bit", "--eval-split", "6", "--eval-every", "4", "--early-stop", "50", "--save-every", "5", "--keep", "9", "--lr", "2e-3"]
PLAIN = ["--max-steps", "20", "--seq-len", "64", "--accum", "1", "--save-every", "10", "--no-packing", "--train-on", "all"]
LARGE = ["--max-steps", "24", "--seq-len", "32", "--accum", "1", "--rank", "128", "--save-every", "1", "--keep", "3", "--lr", "1e-3"]  # 20 MB a checkpoint


@pytest.fixture(scope="module")
def data(chats):
    return chats


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return tiny_model("llama3")


def command(model, data, out, options):
    return [str(PROGRAM), "train", "-m", str(model), "-d", str(data), "-o", str(out), *map(str, options)]


def train(model, data, out, options, code=0):
    done = subprocess.run(command(model, data, out, options), capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr[-3000:]
    return done


STARTED = []


@pytest.fixture(autouse=True)
def no_process_outlives_its_test():
    yield
    while STARTED:
        child = STARTED.pop()
        if child.poll() is None:
            child.kill()
            child.wait()


def hear_signals():
    """What runs under nohup or in a background job inherits deaf ears, which the program respects."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(model, data, out, options):
    pipe = subprocess.PIPE
    STARTED.append(subprocess.Popen(command(model, data, out, options), stdout=pipe, stderr=pipe, text=True, preexec_fn=hear_signals))
    return STARTED[-1]


def wait_for(child, condition, timeout=120):
    """True as soon as the condition holds; False when the process ended before."""
    end = time.monotonic() + timeout
    while not condition():
        if child.poll() is not None:
            return False
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.0005)
    return True


def being_saved(out):
    try:
        return any(name.startswith(".tmp-") for name in os.listdir(out / "checkpoints"))
    except FileNotFoundError:
        return False


def checkpoint(folder):
    """The files of a checkpoint, its manifest without times."""
    files = {p.name: p.read_bytes() for p in sorted(folder.iterdir())}
    manifest = json.loads(files.pop("manifest.json"))
    assert manifest["config"].pop("seconds")
    return files, manifest


def steps(out):
    return sorted(int(p.name.removeprefix("step-")) for p in (out / "checkpoints").iterdir())


def outcome(out):
    """All that a run leaves and that may not depend on how often it was interrupted."""
    log = [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]
    for line in log:
        assert line.pop("seconds", 1) > 0
    left = sorted(p.name for p in out.iterdir())
    assert left == ["adapter_config.json", "adapter_model.safetensors", "checkpoints", "config.yaml", "report.html", "train_log.jsonl"]
    last = steps(out)[-1]
    return {
        "adapter": (out / "adapter_model.safetensors").read_bytes(),
        "config": (out / "adapter_config.json").read_bytes(),
        "log": log,
        "last": last,
        "checkpoint": checkpoint(out / "checkpoints" / f"step-{last:06}"),
    }


@pytest.fixture(scope="module")
def straight(tiny, data, tmp_path_factory):
    """straight(options): what an undisturbed run of the tiny model leaves."""
    made = {}

    def of(options):
        key = tuple(options)
        if key not in made:
            out = tmp_path_factory.mktemp("straight") / "out"
            train(tiny, data, out, options)
            made[key] = outcome(out)
        return made[key]

    return of


def kill_at_step(child, out, step):
    assert wait_for(child, (out / "checkpoints" / f"step-{step:06}").exists), child.communicate()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL


# --- killed ---


@pytest.mark.parametrize("options", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_killed_after_ten_steps_and_resumed_equals_the_straight_run(tiny, data, straight, tmp_path, options):
    out = tmp_path / "out"
    kill_at_step(start(tiny, data, out, options), out, 10)
    done = train(tiny, data, out, [*options, "--resume", "auto"])
    assert "continuing after step" in done.stderr
    assert outcome(out) == straight(options)


def test_adapters_of_experts_killed_and_resumed_equal_the_straight_run(tiny_model, data, tmp_path):
    options, mixture = [*PLAIN, "--targets", "all-linear,experts", "--rank", "4", "--optim", "adamw-8bit"], tiny_model("mixtral")
    kill_at_step(start(mixture, data, tmp_path / "out", options), tmp_path / "out", 10)
    done = train(mixture, data, tmp_path / "out", [*options, "--resume", "auto"])
    assert "continuing after step" in done.stderr
    train(mixture, data, tmp_path / "straight", options)
    assert outcome(tmp_path / "out") == outcome(tmp_path / "straight")


def test_everything_covers_what_it_says(straight):
    result = straight(EVERYTHING)
    assert [line["step"] for line in result["log"] if "eval_loss" in line] == [0, 4, 8, 12, 16, 20]
    assert max(line.get("epoch", 0) for line in result["log"]) > 1
    assert "best.bin" in result["checkpoint"][0] and len(result["checkpoint"][0]) == 6  # adapter, four arrays of 8-bit moments, best
    losses = [line["loss"] for line in result["log"] if "loss" in line]
    assert len(losses) == 20 and losses[-1] < losses[0]


def test_killed_on_smollm2_and_resumed_equals_the_straight_run(model, data, tmp_path):
    options = ["--max-steps", "8", "--seq-len", "64", "--train-on", "all", "--accum", "1", "--rank", "2", "--targets", "q_proj,v_proj", "--eval-split", "1", "--save-every", "4"]
    train(model, data, tmp_path / "straight", options)
    kill_at_step(start(model, data, tmp_path / "killed", options), tmp_path / "killed", 4)
    train(model, data, tmp_path / "killed", options)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "straight")


def test_kills_at_any_moment_of_a_save_change_nothing(tiny, data, straight, tmp_path):
    out, draw, kills, unfinished = tmp_path / "out", random.Random(11), 0, 0
    while kills < 12:
        child = start(tiny, data, out, LARGE)
        running = all(wait_for(child, lambda: not being_saved(out)) and wait_for(child, lambda: being_saved(out)) for _ in range(draw.randint(1, 2)))
        if not running:  # it came to its end between two looks
            break
        time.sleep(draw.choice([0, draw.uniform(0, 0.03)]))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        kills += 1
        unfinished += being_saved(out)
    assert kills >= 6 and unfinished >= 3, "the kills must hit checkpoints that are being written"
    train(tiny, data, out, LARGE)
    assert outcome(out) == straight(LARGE)
    assert steps(out) == [22, 23, 24]


def test_the_newest_valid_checkpoint_wins(tiny, data, straight, tmp_path):
    out = tmp_path / "out"
    train(tiny, data, out, EVERYTHING)
    assert steps(out) == [5, 10, 15, 20]
    os.truncate(out / "checkpoints/step-000020/lora.bin", 1000)
    moments = out / "checkpoints/step-000015/best.bin"
    content = bytearray(moments.read_bytes())
    content[len(content) // 2] ^= 1
    moments.write_bytes(content)
    done = train(tiny, data, out, EVERYTHING)
    assert "step-000020/lora.bin: 1000 bytes" in done.stderr and "hash" in done.stderr
    assert "continuing after step 10 of 20" in done.stderr
    assert outcome(out) == straight(EVERYTHING)


# --- interrupted ---


def test_ctrl_c_saves_exits_130_and_the_same_command_ends_as_the_straight_run(tiny, data, straight, tmp_path):
    out, draw, interrupted = tmp_path / "out", random.Random(5), 0
    for _ in range(8):
        child = start(tiny, data, out, EVERYTHING)
        log = out / "train_log.jsonl"
        before = log.stat().st_size if log.exists() else 0
        assert wait_for(child, lambda: log.exists() and log.stat().st_size not in (0, before)), child.communicate()
        time.sleep(draw.uniform(0, 0.05))
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
        if child.returncode == 0:
            break
        assert child.returncode == 130, errors
        assert "again to stop at once" in errors
        if "interrupted before the first step" not in errors:
            step = steps(out)[-1]
            assert f"interrupted after step {step}: the same command continues from there" in errors
            assert (out / "adapter_model.safetensors").exists()
            interrupted += 1
    assert interrupted >= 1
    train(tiny, data, out, EVERYTHING)
    assert outcome(out) == straight(EVERYTHING)


def test_ctrl_c_in_an_evaluation_makes_up_for_it_later(tiny, data, tmp_path):
    # 30 samples without packing are 30 evaluation batches beside one training batch: nearly all the time goes into evaluations.
    options = ["--max-steps", "6", "--seq-len", "128", "--accum", "1", "--no-packing", "--eval-split", "30", "--eval-every", "1", "--save-every", "3", "--lr", "1e-3"]
    train(tiny, data, tmp_path / "straight", options)
    out, in_evaluation = tmp_path / "out", 0
    for step in (2, 4, 6):
        child = start(tiny, data, out, options)
        log = out / "train_log.jsonl"
        assert wait_for(child, lambda: log.exists() and f'{{"step":{step},"epoch"' in log.read_text()), child.communicate()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 130, errors
        in_evaluation += f'{{"step":{step},"eval_loss"' not in log.read_text()
    assert in_evaluation >= 1
    train(tiny, data, out, options)
    assert outcome(out) == outcome(tmp_path / "straight")


def test_a_second_ctrl_c_in_the_save_stops_at_once_and_leaves_nothing_half_written(tiny, data, tmp_path):
    options = [*LARGE, "--save-every", "0", "--rank", "256"]
    for attempt in range(10):
        out = tmp_path / str(attempt)
        child = start(tiny, data, out, options)
        assert wait_for(child, lambda: (out / "train_log.jsonl").exists() and (out / "train_log.jsonl").stat().st_size), child.communicate()
        child.send_signal(signal.SIGINT)
        wait_for(child, lambda: being_saved(out))
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 130, errors
        if steps_or_none(out):
            continue  # the save was faster than the second signal
        assert "stopped at once" in errors
        assert sorted(p.name for p in out.iterdir()) == ["checkpoints", "config.yaml", "train_log.jsonl"]
        assert being_saved(out)
        train(tiny, data, out, options)
        outcome(out)
        return
    pytest.fail("no signal reached a save")


def steps_or_none(out):
    return [p.name for p in (out / "checkpoints").glob("step-*")]


# --- started again ---


def test_a_run_repeated_elsewhere_ends_with_the_same_bytes(tiny, data, straight, tmp_path):
    out = tmp_path / "out"
    train(tiny, data, out, [*EVERYTHING, "--deterministic"])
    assert outcome(out) == straight(EVERYTHING)


def test_a_finished_run_started_again_says_so_and_changes_nothing(tiny, data, straight, tmp_path):
    out = tmp_path / "out"
    first = train(tiny, data, out, EVERYTHING)
    before, log = outcome(out), (out / "train_log.jsonl").read_text()
    again = train(tiny, data, out, EVERYTHING)
    assert outcome(out) == before == straight(EVERYTHING)
    assert (out / "train_log.jsonl").read_text() == log
    assert "complete already, at step 20" in again.stderr
    assert f"--adapter {out}" in again.stderr and "--resume none" in again.stderr

    def told(done):  # the peak memory is the process's own
        return [line.split(", peak")[0] for line in done.stdout.splitlines()]

    assert told(again) == told(first)
    result = json.loads(train(tiny, data, out, [*EVERYTHING, "--json"]).stdout)
    assert result["resumed_from"] == result["steps"] == 20 and result["complete"] is True and result["tokens_per_second"] > 0


def test_a_run_that_stopped_early_stays_stopped(tiny, data, tmp_path):
    # A learning rate of nothing: no evaluation is better than the first.
    options = ["--max-steps", "20", "--seq-len", "64", "--accum", "1", "--eval-split", "6", "--eval-every", "2", "--early-stop", "3", "--lr", "0"]
    out = tmp_path / "out"
    train(tiny, data, out, options)
    before = outcome(out)
    assert before["last"] == 6
    again = train(tiny, data, out, options)
    assert outcome(out) == before
    assert "complete already, at step 6, where it stopped early" in again.stderr


def test_a_lost_adapter_is_written_again_from_the_final_checkpoint(tiny, data, straight, tmp_path):
    out = tmp_path / "out"
    train(tiny, data, out, EVERYTHING)
    for name in ("adapter_model.safetensors", "adapter_config.json", "report.html"):
        (out / name).unlink()
    train(tiny, data, out, EVERYTHING)
    assert outcome(out) == straight(EVERYTHING)


def test_starting_anew_gives_up_the_checkpoints_of_the_old_run(tiny, data, straight, tmp_path):
    out = tmp_path / "out"
    train(tiny, data, out, [*PLAIN, "--max-steps", "30"])
    assert steps(out) == [10, 20, 30]
    kill_at_step(start(tiny, data, out, [*PLAIN, "--resume", "none", "--keep", "1", "--save-every", "4"]), out, 4)
    done = train(tiny, data, out, PLAIN)
    assert "continuing after step" in done.stderr
    assert outcome(out) == straight(PLAIN)


def test_what_differs_from_the_checkpoint_is_named(tiny, data, tmp_path):
    out = tmp_path / "out"
    train(tiny, data, out, [*PLAIN, "--max-steps", "2"])
    config = (out / "config.yaml").read_text()
    done = train(tiny, data, out, [*PLAIN, "--max-steps", "2", "--lr", "0.5", "--rank", "4"], code=2)
    assert "lr: 0.0002 there, 0.5 now" in done.stderr and "rank: 16 there, 4 now" in done.stderr and "--resume none" in done.stderr
    assert "alpha" not in done.stderr
    assert ", int8 now" in train(tiny, data, out, [*PLAIN, "--max-steps", "2", "--compute", "int8"], code=2).stderr
    other = tmp_path / "other.jsonl"
    other.write_text(data.read_text().replace("house", "horse"))
    assert "data: " in train(tiny, other, out, [*PLAIN, "--max-steps", "2"], code=2).stderr
    assert (out / "config.yaml").read_text() == config, "a refused run changes nothing"


def test_two_runs_do_not_write_into_one_folder(tiny, data, tmp_path):
    out = tmp_path / "out"
    first = start(tiny, data, out, [*EVERYTHING, "--max-steps", "100000", "--save-every", "0"])
    assert wait_for(first, (out / "train_log.jsonl").exists), first.communicate()
    done = train(tiny, data, out, EVERYTHING, code=1)
    assert "another run is writing there" in done.stderr
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert first.returncode == 130


def test_a_log_without_a_reader_does_not_end_the_run(tiny, data, straight, tmp_path):
    out = tmp_path / "out"
    child = start(tiny, data, out, EVERYTHING)
    child.stderr.close()
    child.stdout.read()
    assert child.wait(timeout=120) == 0
    assert outcome(out) == straight(EVERYTHING)


def test_a_closed_terminal_saves_like_ctrl_c(tiny, data, tmp_path):
    out = tmp_path / "out"
    child = start(tiny, data, out, [*EVERYTHING, "--max-steps", "100000", "--save-every", "0"])
    log = pathlib.Path(out / "train_log.jsonl")
    assert wait_for(child, lambda: log.exists() and '"loss"' in log.read_text()), child.communicate()
    child.send_signal(signal.SIGHUP)
    child.communicate(timeout=60)
    assert child.returncode == 130
    assert steps_or_none(out)
