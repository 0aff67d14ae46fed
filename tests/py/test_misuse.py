"""What people get wrong: each misuse has one message that names the thing and the remedy, the documented exit code, and leaves nothing behind.
Found by trying every command with wrong paths, damaged files, odd numbers and odd data; the oracle is docs/cli.md's table of exit codes."""

import json
import os
import signal
import subprocess

import pytest

from places import BIN

PROGRAM = BIN / "supersonic"


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return tiny_model("llama3")


@pytest.fixture
def train(supersonic, tiny, tmp_path):
    """train(content of the data file, options…, name=) runs one step into tmp_path / "out"."""

    def call(content, *options, name="data.jsonl", check=False):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return supersonic("train", "-m", tiny, "-d", path, "-o", tmp_path / "out", "--max-steps", "1", *options, check=check)

    return call


TEXT = "".join(json.dumps({"text": f"a sample of text, number {i}"}) + "\n" for i in range(8))


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("latin.jsonl", b'{"text":"good"}\n{"text":"caf\xe9"}\n', ["latin.jsonl:2: byte 13 (0xE9) is not UTF-8", "iconv"]),
        ("latin.json", b'[{"text":"caf\xe9"}]', ["latin.json: byte 14 (0xE9) is not UTF-8"]),
        ("latin.txt", b"caf\xe9 au lait", ["latin.txt: byte 4 (0xE9) is not UTF-8"]),
        ("utf16.jsonl", '{"text":"a"}'.encode("utf-16"), ["utf16.jsonl:1: byte 1 (0xFF) is not UTF-8"]),
        ("empty.jsonl", b"", ["empty.jsonl: no rows"]),
        ("blank.jsonl", b"\n\n \r\n", ["blank.jsonl: no rows"]),
        ("cut.jsonl", b'{"text":"a b c"', ["cut.jsonl:1", "not valid JSON"]),
        ("keys.jsonl", b'{"a":1}\n', ["keys.jsonl:1", "its keys are: a"]),
        ("silent.jsonl", b'{"messages":[{"role":"user","content":"hi"}]}\n', ["no sample has a token to train on"]),
        ("nothing.jsonl", b'{"text":""}\n', ["no sample has a token to train on"]),
    ],
)
def test_data_that_cannot_be_trained_on(train, tmp_path, name, content, words):
    done = train(content, name=name)
    assert done.returncode == 5, done.stderr
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_byte_order_mark_empty_lines_and_crlf_change_nothing(train, tmp_path):
    train(TEXT, check=True)
    plain = (tmp_path / "out/adapter_model.safetensors").read_bytes()
    train("\ufeff" + TEXT.replace("\n", "\r\n\r\n"), "--resume", "none", check=True)
    assert (tmp_path / "out/adapter_model.safetensors").read_bytes() == plain


def test_one_token_is_enough_to_learn(train, tmp_path):
    train('{"text":"a"}\n', check=True)  # the token and the end of the text after it
    log = [json.loads(line) for line in (tmp_path / "out/train_log.jsonl").read_text().splitlines()]
    assert [line["tokens"] for line in log] == [2]


def test_rows_longer_than_all_the_data_are_not_padding(train, tmp_path):
    done = train(TEXT, "--seq-len", "1048576", "--accum", "1", check=True)
    tokens = json.loads((tmp_path / "out/train_log.jsonl").read_text().splitlines()[0])["tokens"]
    row = -(-tokens // 32) * 32
    assert f"1 steps of 1 x {row} tokens" in done.stderr


def test_held_out_samples_longer_than_all_others_fit_into_a_row(train, tmp_path):
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"text": "a long sample " * 90}) + "\n")
    done = train(TEXT, "--eval-data", long, check=True)
    assert "held-out loss" in done.stderr


@pytest.mark.parametrize(
    "options, code, words",
    [
        (["--eval-split", "8"], 2, "--eval-split 8 leaves none of the 8 samples"),
        (["--epochs", "1e300"], 2, "--epochs"),
        (["--batch", "9223372036854775807"], 2, "--batch"),
        (["--accum", "9223372036854775807"], 2, "--accum"),
        (["--beta1", "1"], 2, "--beta1"),
        (["--beta2", "1"], 2, "--beta2"),
        (["--base", "q9"], 2, "--base takes nf4, q4_0, q8_0, not 'q9'"),
        (["--out", ""], 2, "--out is empty"),
        (["--out", "/"], 2, "--out is the root folder"),
        (["--model", ""], 2, "--model is empty"),
        (["--data", ""], 2, "--data is empty"),
    ],
)
def test_options_that_make_no_sense(train, tmp_path, options, code, words):
    done = train(TEXT, *options)
    assert done.returncode == code, done.stderr
    assert words in done.stderr and done.stderr.count("error: ") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--lr", "1e300"], ["--eps", "0"]], ids=["a rate beyond all floats", "no epsilon"])
def test_an_adapter_of_no_numbers_is_never_saved(train, tmp_path, options):
    done = train(TEXT, *options)
    assert done.returncode == 1 and "no numbers" in done.stderr and "lower --lr" in done.stderr, done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.yaml", "train_log.jsonl"]


def test_data_from_a_pipe_is_refused_with_the_remedy(supersonic, tiny, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    done = supersonic("train", "-m", tiny, "-d", tmp_path / "pipe", "-o", tmp_path / "out", check=False)
    assert done.returncode == 5 and "copy its content to a file" in done.stderr


def test_a_checkpoint_that_is_none_of_a_training_run_is_refused(train, tmp_path):
    train(TEXT, check=True)
    manifest = tmp_path / "out/checkpoints/step-000001/manifest.json"
    good = json.loads(manifest.read_text())
    for damage, words in (({"settings": None}, "config.settings is missing"), ({"worse": "x"}, "config.worse"), ({"best_eval": "zz"}, "config.best_eval")):
        manifest.write_text(json.dumps({**good, "config": {**good["config"], **damage}}))
        done = train(TEXT, "--resume", manifest.parent)
        assert done.returncode == 5 and words in done.stderr, done.stderr


def test_a_folder_does_not_replace_a_file(supersonic, tiny, tmp_path):
    (tmp_path / "notes").write_text("mine")
    done = supersonic("convert", tiny, tmp_path / "notes", "--force", check=False)
    assert done.returncode == 2 and "is a file, where a folder is to be written" in done.stderr
    assert (tmp_path / "notes").read_text() == "mine" and list(tmp_path.iterdir()) == [tmp_path / "notes"]


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["convert", "MODEL", "OUT", "--to", "hf", "--shard-size", "0"], 2, "--shard-size must be above 0"),
        (["bench", "MODEL", "-p", "0", "-n", "0"], 2, "nothing to measure"),
        (["run", "MODEL", "--prompts", "EMPTY"], 5, "EMPTY: has no prompts"),
        (["template", "MODEL", "-f", "EMPTY"], 5, "EMPTY: at byte 0"),
        (["show", ""], 2, "is empty"),
    ],
)
def test_other_commands(supersonic, tiny, tmp_path, arguments, code, words):
    (tmp_path / "EMPTY").write_text("")
    arguments = [{"MODEL": tiny, "EMPTY": tmp_path / "EMPTY", "OUT": tmp_path / "out"}.get(a, a) for a in arguments]
    done = supersonic(*arguments, check=False)
    assert done.returncode == code and words in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


def test_ids_beyond_the_tokenizer_are_never_chosen(supersonic, tiny):
    # The model has 512 rows in its head, the tokenizer 399 tokens; with random weights most of the best rows would have no text.
    for seed in range(3):
        got = supersonic("run", tiny, "hello", "-n", "20", "--temp", "2", "--seed", seed, json_output=True)
        ids = supersonic("tokenize", tiny, "--text", got["text"], json_output=True)
        assert max(ids, default=0) < 399


def test_a_reader_that_leaves_ends_the_program_quietly(tiny):
    child = subprocess.Popen([PROGRAM, "run", tiny, "hello", "--temp", "2", "-n", "900"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    child.stdout.read(1)
    child.stdout.close()
    errors = child.stderr.read()
    assert child.wait(timeout=60) == -signal.SIGPIPE and errors == b""


def test_a_merge_killed_before_does_not_stop_the_next_one(supersonic, tiny, tmp_path):
    # In a container, process ids repeat: what the killed process left has the name that the next one wants.
    script = f'mkdir "$1/.new.gguf.part-$$" && touch "$1/.new.gguf.part-$$/new.gguf" && exec "{PROGRAM}" convert "{tiny}" "$1/new.gguf" --no-verify'
    subprocess.run(["sh", "-c", script, "sh", tmp_path], check=True, capture_output=True)
    assert [p.name for p in tmp_path.iterdir()] == ["new.gguf"]
