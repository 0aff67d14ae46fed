"""ls, rm, cp, and names of the hub where a command takes a model: what they do to the cache that pull and huggingface_hub share. Oracles:
huggingface_hub's own reading of the cache, and the bytes that were put in."""

import json
import os
import pathlib
import pty
import subprocess
import time

import pytest

from hub_server import git_sha1, sha256
from hub_tools import FOLDER, NAME, PROGRAM, blobs, client, environment, folder_files, gguf_files, home, hub, noise, read, run  # noqa: F401 (fixtures)


def scan(hub, home):
    """{OWNER/NAME: [size, {commit: [refs]}]} as huggingface_hub sees the cache; no warnings."""
    return client(hub, home, """
i = scan_cache_dir()
assert not i.warnings, i.warnings
print(json.dumps({r.repo_id: [r.size_on_disk, {v.commit_hash: sorted(v.refs) for v in r.revisions}] for r in i.repos}))""")


@pytest.fixture
def real(hub, tiny_model):
    """A model that runs, as acme/tiny-model."""
    files = read(tiny_model("llama3"))
    hub.add(NAME, files)
    return files


# --- names where a model is wanted ---------------------------------------------------------------------------------------------------


def test_every_command_that_takes_a_model_takes_a_name(hub, home, run, real, tmp_path, tiny_model):
    run("pull", NAME)
    count = len(hub.log)
    text, chats, out = tmp_path / "t.txt", tmp_path / "c.jsonl", tmp_path / "out"
    text.write_text("The sky is blue, the grass is green. " * 40)
    chats.write_text("".join(json.dumps({"text": f"sample number {i} of some"}) + "\n" for i in range(8)))
    folder = tiny_model("llama3")
    for arguments in (["run", "MODEL", "--raw", "--temp", "0", "-n", "4", "a"], ["show", "MODEL"], ["tokenize", "MODEL", "--text", "hello"], ["ppl", "MODEL", "-f", text, "--ctx", "64", "--json"],
                      ["fit", "MODEL", "--json"]):
        by_name, by_path = (run(*[m if a == "MODEL" else a for a in arguments]).stdout for m in (NAME, folder))
        drop = lambda t: [line for line in t.splitlines() if "seconds" not in line and "tok/s" not in line and "available" not in line]
        assert len(drop(by_name)) == len(drop(by_path))
        if arguments[0] in ("run", "tokenize"):
            assert by_name == by_path
    run("kld", NAME, "--reference", f"hf://{NAME}", "-f", text, "--ctx", "64")
    run("convert", NAME, tmp_path / "model.gguf")
    run("train", "-m", NAME, "-d", chats, "-o", out, "--max-steps", "1")
    assert json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == NAME
    config = (out / "config.yaml").read_text()
    assert f"model: {NAME} " in config, "not a path of this machine's cache"
    run("merge", NAME, "--adapter", out, "-o", tmp_path / "merged")
    run("train", "-c", out / "config.yaml", "-o", tmp_path / "again")
    assert len(hub.log) == count, "no command but pull asks the hub"


def test_an_adapter_of_the_hub_is_found_by_name(hub, home, run, real, tmp_path):
    run("pull", NAME)
    chats = tmp_path / "c.jsonl"
    chats.write_text("".join(json.dumps({"text": f"sample number {i} of some"}) + "\n" for i in range(8)))
    run("train", "-m", NAME, "-d", chats, "-o", tmp_path / "out", "--max-steps", "1")
    hub.add("acme/tiny-lora", {k: v for k, v in read(tmp_path / "out").items() if k.startswith("adapter_")} | {"README.md": b"# LoRA"})
    said = run("pull", "acme/tiny-lora").stderr
    assert "LoRA adapter" in said and f"an adapter of {NAME}: 'supersonic pull {NAME}', then --adapter acme/tiny-lora" in said
    by_name = run("run", NAME, "--adapter", "acme/tiny-lora", "--raw", "--temp", "0", "-n", "8", "hello").stdout
    assert by_name == run("run", NAME, "--adapter", tmp_path / "out", "--raw", "--temp", "0", "-n", "8", "hello").stdout


def test_a_name_that_is_not_there_says_what_to_do(hub, home, run):
    assert f"'supersonic pull {NAME}' downloads it" in run("show", NAME, code=5).stderr
    assert "acme/x:Q4_K_M: there is no such file or folder" in run("show", "acme/x:Q4_K_M", code=5).stderr
    hub.add(NAME, gguf_files())
    run("pull", NAME + ":Q8_0")
    assert f"did you mean {NAME}?" in run("show", "acme/tiny-modle", code=5).stderr
    error = run("show", NAME + ":Q2_K", code=5).stderr
    assert "there is Q8_0" in error and f"'supersonic pull {NAME}:Q2_K' looks on the hub" in error
    assert "other revisions of this model alone (main)" in run("show", NAME + "@v9", code=5).stderr
    assert not hub.asked("acme/x") and not hub.asked("Q2_K")


def test_a_path_that_is_there_comes_before_a_name(hub, home, run, tmp_path):
    hub.add(NAME, gguf_files())
    run("pull", NAME)
    (tmp_path / "acme" / "tiny-model").mkdir(parents=True)
    done = subprocess.run([PROGRAM, "show", NAME], cwd=tmp_path, capture_output=True, text=True, env=environment(hub, home))
    assert done.returncode == 5 and "acme/tiny-model: holds neither model.safetensors" in done.stderr
    missing = subprocess.run([PROGRAM, "show", "models/missing.gguf"], cwd=tmp_path, capture_output=True, text=True, env=environment(hub, home))
    assert missing.returncode == 5 and "models/missing.gguf: cannot open: No such file" in missing.stderr


def test_a_model_with_a_missing_shard_is_not_used(hub, home, run, tiny_model):
    hub.add(NAME, read(tiny_model("llama3", shards=2)))
    path = pathlib.Path(run("pull", NAME).stdout.strip())
    run("show", NAME)
    shard = sorted(path.glob("model-*-of-*.safetensors"))[0]
    shard.unlink()
    assert f"not all of it is in the cache ({shard.name} is missing)" in run("show", NAME, code=5).stderr
    run("pull", NAME)
    run("show", NAME)


# --- ls ------------------------------------------------------------------------------------------------------------------------------


def test_ls_agrees_with_huggingface_hub(hub, home, run):
    assert json.loads(run("ls", "--json").stdout) == {"cache": str(home / "hub"), "models": []}
    hub.add(NAME, folder_files())
    hub.add("acme/quantized", gguf_files())
    run("pull", NAME)
    hub.repos[NAME].commit(folder_files() | {"config.json": b'{"model_type": "other"}'})
    run("pull", NAME)
    for choice in (":Q8_0", ":Q6_K"):
        run("pull", "acme/quantized" + choice)
    listing = json.loads(run("ls", "--json").stdout)["models"]
    assert {m["name"]: [m["bytes"], {s["commit"]: s["refs"] for s in m["snapshots"]}] for m in listing} == scan(hub, home)
    assert [m["name"] for s in listing[0]["snapshots"] for m in s["models"]] == ["acme/quantized:Q6_K", "acme/quantized:Q8_0"]
    text = run("ls").stdout.splitlines()
    assert text[0].split() == ["MODEL", "REVISION", "SIZE", "LAST", "USED", "KIND"] and len(text) == 5
    assert any("acme/quantized:Q8_0" in line and "just now" in line and "21.5 KiB" in line for line in text)
    assert len(run("ls", "QUANT").stdout.splitlines()) == 3


def test_ls_passes_over_what_is_not_the_cache_s_own(hub, home, run):
    cache = home / "hub"
    for junk in ("models--", "models--x", "models--a--b/snapshots/short", "datasets--a--b/snapshots", "models--a--../x", "other"):
        (cache / junk).mkdir(parents=True)
    (cache / "models--a--b" / "refs").mkdir()
    (cache / "models--a--b" / "refs" / "main").write_text("../../../../etc")
    (cache / "models--file--x").write_text("not a folder")
    names = [m["name"] for m in json.loads(run("ls", "--json").stdout)["models"]]
    assert names == ["a/b"]
    assert "no such model in the cache" in run("show", "a/b", code=5).stderr


def test_using_a_model_notes_when(hub, home, run):
    hub.add(NAME, folder_files())
    path = pathlib.Path(run("pull", NAME).stdout.strip())
    for file in path.iterdir():
        os.utime(file, (1_600_000_000, 1_600_000_000))
    used = lambda: json.loads(run("ls", "--json").stdout)["models"][0]["snapshots"][0]["last_used"]
    assert used() == 1_600_000_000
    run("show", NAME, code=5)  # random bytes are no model, but it was asked for
    assert time.time() - used() < 60
    assert os.stat(path / "config.json").st_mtime == 1_600_000_000


# --- rm ------------------------------------------------------------------------------------------------------------------------------


def test_rm_keeps_what_another_revision_needs(hub, home, run):
    files = folder_files()
    first = hub.add(NAME, files)
    run("pull", NAME)
    second = hub.repos[NAME].commit(files | {"config.json": b'{"model_type": "other"}'})
    run("pull", NAME)
    planned = json.loads(run("rm", f"{NAME}@{first}", "--dry-run", "--json").stdout)
    assert planned["removed"] is False and planned["bytes"] == len(files["config.json"]) and len(scan(hub, home)[NAME][1]) == 2
    removed = json.loads(run("rm", f"{NAME}@{first}", "--yes", "--json").stdout)
    assert removed["bytes"] == planned["bytes"] and removed["models"][0]["blobs"] == [git_sha1(files["config.json"])]
    size, revisions = scan(hub, home)[NAME]
    assert revisions == {second: ["main"]}
    assert read(home / "hub" / FOLDER / "snapshots" / second)["model.safetensors"] == files["model.safetensors"]
    run("rm", NAME + "@main", "--yes")
    assert scan(hub, home) == {} and blobs(home) == {}


def test_rm_of_one_type_leaves_the_others(hub, home, run):
    files = gguf_files()
    hub.add(NAME, files)
    for choice in (":Q8_0", ":Q6_K", ":Q2_K"):
        run("pull", NAME + choice)
    run("rm", NAME + ":Q6_K", "--yes")
    assert set(blobs(home)) == {sha256(files["Tiny-Q8_0.gguf"]), sha256(files["Tiny-Q2_K.gguf"])}
    assert not list((home / "hub" / FOLDER / "snapshots").glob("*/Q6_K"))
    run("show", NAME + ":Q6_K", code=5)
    run("rm", NAME + ":Q8_0", NAME + ":Q2_K", "--yes")
    assert blobs(home) == {}


def test_rm_asks_first(hub, home, run):
    hub.add(NAME, folder_files())
    run("pull", NAME)
    assert "give --yes" in run("rm", NAME, code=2).stderr and scan(hub, home)
    for answer, code, left in (("n\n", 1, 1), ("y\n", 0, 0)):
        master, slave = pty.openpty()
        process = subprocess.Popen([PROGRAM, "rm", NAME], stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(hub, home))
        os.write(master, answer.encode())
        _, err = process.communicate(timeout=20)
        assert process.returncode == code and b"Remove 293.1 KiB from the disk?" in err
        assert len(scan(hub, home)) == left


def test_rm_leaves_alone_what_is_outside_and_what_is_in_use(hub, home, run, tmp_path):
    commit = hub.add(NAME, folder_files())
    run("pull", NAME)
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("keep me")
    snapshot = home / "hub" / FOLDER / "snapshots" / commit
    (snapshot / "link-to-folder").symlink_to(precious)
    (snapshot / "link-to-file").symlink_to(precious / "file")
    script = f"""
import fcntl, sys
lock = open({str(home / 'hub' / '.locks' / FOLDER / 'x.lock')!r}, "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True); sys.stdin.read()"""
    holder = subprocess.Popen(["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    holder.stdout.readline()
    assert "is downloading into it now" in run("rm", NAME, "--yes", code=1).stderr
    holder.communicate()
    run("rm", NAME, "--yes")
    assert (precious / "file").read_text() == "keep me" and not (home / "hub" / FOLDER).exists()


def test_a_model_s_folder_may_lie_on_another_disk(hub, home, run, tmp_path):
    other = tmp_path / "other-disk"
    other.mkdir()
    (home / "hub").mkdir(parents=True)
    (home / "hub" / FOLDER).symlink_to(other)
    hub.add(NAME, folder_files())
    assert read(run("pull", NAME).stdout.strip())["model.safetensors"] == folder_files()["model.safetensors"]
    assert json.loads(run("ls", "--json").stdout)["models"][0]["bytes"] > 300_000
    run("rm", NAME, "--yes")
    assert not list(other.iterdir()) and not (home / "hub" / FOLDER).is_symlink()


def test_rm_of_what_is_not_there(hub, home, run):
    assert "is not in the cache" in run("rm", NAME, "--yes", code=5).stderr
    assert "no name of a model" in run("rm", "../../etc", "--yes", code=2).stderr
    hub.add(NAME, gguf_files())
    run("pull", NAME)
    assert "there is Q4_K_M" in run("rm", NAME + ":Q8_0", "--yes", code=5).stderr
    assert f"did you mean {NAME}?" in run("rm", "acme/tiny-mode", "--yes", code=5).stderr


def test_rm_removes_a_download_that_did_not_end(hub, home, run):
    hub.add(NAME, folder_files())
    hub.fault("model.safetensors@cdn", "cut", times=99, value=1000)
    hub.fault("model.safetensors@hub", "status", times=99, value=404, after=2)
    run("pull", NAME, code=4)
    assert "downloads that have not ended" in run("ls").stderr
    run("rm", NAME, "--yes")
    assert blobs(home) == {}


# --- cp ------------------------------------------------------------------------------------------------------------------------------


def test_cp_makes_files_of_links(hub, home, run, tmp_path, real):
    run("pull", NAME)
    out = tmp_path / "copy"
    assert run("cp", NAME, out).stdout.strip() == str(out)
    assert not any(p.is_symlink() for p in out.iterdir()) and all(real[k] == v for k, v in read(out).items()) and "model.safetensors" in read(out)
    assert run("run", out, "--raw", "--temp", "0", "-n", "4", "a").stdout == run("run", NAME, "--raw", "--temp", "0", "-n", "4", "a").stdout
    assert "--force" in run("cp", NAME, out, code=2).stderr
    run("cp", NAME, out, "--force")


def test_cp_of_gguf_files(hub, home, run, tmp_path):
    files = gguf_files()
    hub.add(NAME, files)
    for choice in (":Q8_0", ":Q6_K"):
        run("pull", NAME + choice)
    run("cp", NAME + ":Q8_0", tmp_path / "other.gguf")
    assert (tmp_path / "other.gguf").read_bytes() == files["Tiny-Q8_0.gguf"]
    (tmp_path / "folder").mkdir()
    assert run("cp", NAME + ":Q8_0", tmp_path / "folder").stdout.strip() == str(tmp_path / "folder" / "Tiny-Q8_0.gguf")
    run("cp", NAME + ":Q6_K", tmp_path / "set")
    assert read(tmp_path / "set") == {k.split("/")[-1]: v for k, v in files.items() if "Q6_K/" in k}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "hf", "other.gguf", "set"], "nothing hidden is left"


def test_cp_into_the_cache_under_a_name(hub, home, run, tmp_path, tiny_model):
    folder = tiny_model("llama3")
    path = run("cp", folder, "hf://me/mine").stdout.strip()
    assert run("run", "me/mine", "--raw", "--temp", "0", "-n", "4", "a").stdout == run("run", folder, "--raw", "--temp", "0", "-n", "4", "a").stdout
    assert client(hub, home, 'print(json.dumps(snapshot_download("me/mine", local_files_only=True)))', HF_ENDPOINT="http://127.0.0.1:1") == path
    blob = home / "hub" / "models--me--mine" / "blobs"
    for name, data in read(path).items():
        assert (blob / (sha256(data) if name.endswith(".safetensors") else git_sha1(data))).read_bytes() == data
    run("cp", "me/mine", "hf://me/again")
    assert os.stat(pathlib.Path(path) / "model.safetensors").st_nlink == 2, "one content, two names"
    run("rm", "me/mine", "--yes")
    run("show", "me/again")
    other = tiny_model("qwen2")
    assert "--force" in run("cp", other, "hf://me/again", code=2).stderr
    run("cp", other, "hf://me/again", "--force")
    assert json.loads(run("show", "me/again", "--json").stdout)["architecture"] != json.loads(run("show", folder, "--json").stdout)["architecture"]
    assert not hub.log


def test_cp_refuses_what_is_no_model(hub, home, run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no model" in run("cp", tmp_path / "empty", tmp_path / "out", code=5).stderr
    split = tmp_path / "m-00001-of-00002.gguf"
    split.write_bytes(noise(100))
    assert "parts of the split file are missing" in run("cp", split, tmp_path / "out", code=5).stderr
    assert not (tmp_path / "out").exists()
