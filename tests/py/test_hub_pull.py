"""pull, against a hub of the tests' own (hub_server.py): what arrives is what the hub has, in the cache's layout, whatever goes wrong on the
way. The oracle for the layout is huggingface_hub, which reads what pull wrote and writes what the commands read; for contents, the bytes that
the server was given."""

import json
import os
import pathlib
import resource
import signal
import ssl
import stat
import subprocess
import sys
import time

import pytest

from disk import NAMESPACE, needs_disk
from hub_server import git_sha1, sha256
from hub_tools import FOLDER, NAME, PROGRAM, blobs, client, environment, folder_files, gguf_files, home, hub, noise, read, run  # noqa: F401 (fixtures)

# --- what is downloaded --------------------------------------------------------------------------------------------------------------


def test_a_folder_arrives_whole_and_in_the_layout_of_the_cache(hub, home, run):
    files = folder_files()
    commit = hub.add(NAME, files)
    path = pathlib.Path(run("pull", NAME).stdout.strip())
    repo = home / "hub" / FOLDER
    assert path == repo / "snapshots" / commit and (repo / "refs" / "main").read_text() == commit
    wanted = {k: v for k, v in files.items() if k in {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md", "model.safetensors"}}
    assert read(path) == wanted, "the weights once, and no pickle"
    for name, data in wanted.items():
        etag = sha256(data) if name.endswith(".safetensors") else git_sha1(data)
        assert os.readlink(path / name) == f"../../blobs/{etag}" and (repo / "blobs" / etag).read_bytes() == data
    assert not list(repo.glob("blobs/*.incomplete")) and (home / "hub" / "CACHEDIR.TAG").exists()
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((repo / "blobs" / sha256(files["model.safetensors"])).stat().st_mode) == 0o666 & ~mask


def test_huggingface_hub_finds_offline_what_was_pulled(hub, home, run):
    files = folder_files()
    commit = hub.add(NAME, files)
    run("pull", NAME)
    found = client(hub, home, f"""
p = snapshot_download("{NAME}", local_files_only=True)
f = hf_hub_download("{NAME}", "model.safetensors", local_files_only=True)
r, = scan_cache_dir().repos
print(json.dumps([p, f, r.repo_id, [s.commit_hash for s in r.revisions], sorted(r.refs), r.size_on_disk, [str(w) for w in scan_cache_dir().warnings]]))""",
                   HF_ENDPOINT="http://127.0.0.1:1")
    snapshot = home / "hub" / FOLDER / "snapshots" / commit
    assert found[:4] == [str(snapshot), str(snapshot / "model.safetensors"), NAME, [commit]] and found[4] == ["main"] and found[6] == []
    assert found[5] == json.loads(run("ls", "--json").stdout)["models"][0]["bytes"]


def test_what_huggingface_hub_downloaded_is_found_and_not_downloaded_again(hub, home, run):
    hub.add(NAME, folder_files())
    path = client(hub, home, f'print(json.dumps(snapshot_download("{NAME}", ignore_patterns=["*.bin", "onnx/*"])))')
    before = len(hub.asked("resolve"))
    done = json.loads(run("pull", NAME, "--json").stdout)
    assert done["path"] == path and done["downloaded_bytes"] == 0 and len(hub.asked("resolve")) == before
    assert json.loads(run("pull", NAME, "--json", "--offline").stdout)["path"] == path
    # And the other way: it takes what pull left, without asking for the content.
    client(hub, home, f'print(json.dumps(snapshot_download("{NAME}", allow_patterns=["model.safetensors"])))')
    assert len(hub.asked("model.safetensors", "cdn")) == 1


def test_a_second_pull_transfers_nothing_and_a_new_commit_only_what_is_new(hub, home, run):
    files = folder_files()
    hub.add(NAME, files)
    run("pull", NAME)
    count = len(hub.asked("resolve"))
    assert json.loads(run("pull", NAME, "--json").stdout)["downloaded_bytes"] == 0 and len(hub.asked("resolve")) == count
    files["config.json"] = b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "new": 1}'
    second = hub.repos[NAME].commit(files)
    done = json.loads(run("pull", NAME, "--json").stdout)
    assert done["commit"] == second and done["downloaded_bytes"] == len(files["config.json"])
    assert len(hub.asked("model.safetensors", "cdn")) == 1


def test_shards_are_those_of_the_index(hub, home, run):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors", "c": "extra.safetensors"}}
    files = folder_files() | {"model.safetensors.index.json": json.dumps(index).encode(), "model-00001-of-00002.safetensors": noise(1000, 2),
                              "model-00002-of-00002.safetensors": noise(1000, 3), "consolidated.safetensors": noise(2000, 4), "extra.safetensors": noise(100, 5)}
    del files["model.safetensors"]
    hub.add(NAME, files)
    names = set(read(run("pull", NAME).stdout.strip()))
    assert names >= {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "extra.safetensors"} and "consolidated.safetensors" not in names


@pytest.mark.parametrize("choice, file, message", [
    ("", "Tiny-Q4_K_M.gguf", "also there: Q6_K, Q2_K, Q8_0, UD-Q4_K_XL, BF16 ("), (":Q8_0", "Tiny-Q8_0.gguf", ""), (":q2_k", "Tiny-Q2_K.gguf", ""),
    (":Tiny-BF16.gguf", "Tiny-BF16.gguf", ""), (":Q4_K_XL", "Tiny-UD-Q4_K_XL.gguf", ""), (":Q6_K", "Q6_K/Tiny-Q6_K-00001-of-00002.gguf", "Q6_K in 2 files")])
def test_of_gguf_files_one_is_taken(hub, home, run, choice, file, message):
    files = gguf_files()
    commit = hub.add(NAME, files)
    done = run("pull", NAME + choice)
    assert done.stdout.strip() == str(home / "hub" / FOLDER / "snapshots" / commit / file)
    there = read(pathlib.Path(done.stdout.strip()).parents[file.count("/")])
    assert set(there) == ({file, file.replace("00001-of", "00002-of")}) and all(files[k] == v for k, v in there.items())
    assert message in done.stderr


def test_what_cannot_be_meant_is_refused_with_what_there_is(hub, run):
    hub.add(NAME, gguf_files())
    hub.add("acme/old", {"config.json": b"{}", "pytorch_model.bin": b"1"})
    hub.add("acme/twice", {"a-Q8_0.gguf": b"1", "b-Q8_0.gguf": b"2"})
    hub.add("acme/folder", folder_files())
    error = run("pull", NAME + ":Q4_KM", code=2).stderr
    assert f"did you mean {NAME}:Q4_K_M?" in error and "there is Q6_K, Q2_K" in error
    assert "can run code" in run("pull", "acme/old", code=5).stderr
    assert "name one of a-Q8_0.gguf, b-Q8_0.gguf" in run("pull", "acme/twice:Q8_0", code=2).stderr
    assert "supersonic convert acme/folder" in run("pull", "acme/folder:Q4_K_M", code=2).stderr
    for name in ("nonsense", "a/b/c", "a b/c", "../x/y", "a/..", "-a/b", "a/b@", "a/b:", "a/b@../x", "a/b:../x", "a--b/c"):
        assert "no name of a model" in run("pull", "--", name, code=2).stderr, name


def test_revisions(hub, home, run):
    first = hub.add(NAME, folder_files())
    hub.repos[NAME].commit(folder_files(5000), "v2")
    path = run("pull", NAME + "@v2").stdout.strip()
    assert path.endswith(hub.repos[NAME].refs["v2"]) and (home / "hub" / FOLDER / "refs" / "v2").exists()
    assert run("pull", f"{NAME}@{first}").stdout.strip().endswith(first)
    assert not (home / "hub" / FOLDER / "refs" / first).exists()
    error = run("pull", NAME + "@v3", code=4).stderr
    assert "no branch, tag or commit 'v3'" in error and "did you mean 'v2'?" in error


def test_a_long_list_of_files_comes_in_pages(hub, run):
    hub.page = 3
    hub.add(NAME, folder_files() | {f"additional_chat_templates/{i}.jinja": str(i).encode() for i in range(9)} | {"LICENSE": b""})
    files = read(run("pull", NAME).stdout.strip())
    assert len(files) == 16 and files["additional_chat_templates/8.jinja"] == b"8" and files["LICENSE"] == b""
    assert len(hub.asked("/tree/")) > 3


def test_dry_run_lists_and_leaves_nothing(hub, home, run):
    hub.add(NAME, folder_files())
    listing = json.loads(run("pull", NAME, "--dry-run", "--json").stdout)
    assert listing["missing_bytes"] == listing["bytes"] - 4 > 300_000, "three files are the same two bytes, which come once"
    assert {"path": "model.safetensors", "bytes": 300_000, "hash": sha256(noise(300_000))} in listing["files"]
    assert not home.exists()


# --- what goes wrong on the way ------------------------------------------------------------------------------------------------------


def test_a_broken_connection_is_resumed_where_it_broke(hub, home, run):
    files = folder_files(1_000_000)
    hub.add(NAME, files)
    hub.fault("model.safetensors@cdn", "cut", times=3, value=250_000)
    path = run("pull", NAME).stdout.strip()
    assert read(path)["model.safetensors"] == files["model.safetensors"]
    ranges = [e["headers"].get("range") for e in hub.asked("model.safetensors", "cdn")]
    begins = [int(r[6:-1]) for r in ranges[1:]]
    assert ranges[0] is None and len(ranges) == 4 and begins == sorted(begins) and all(b > 0 for b in begins)


def test_a_killed_pull_goes_on_where_it_was(hub, home, run):
    files = folder_files(3_000_000)
    hub.add(NAME, files)
    hub.fault("model.safetensors@cdn", "slow", value=20_000)
    process = subprocess.Popen([PROGRAM, "pull", NAME], env=environment(hub, home), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    part = home / "hub" / FOLDER / "blobs" / (sha256(files["model.safetensors"]) + ".incomplete")
    deadline = time.time() + 30
    while time.time() < deadline and (not part.exists() or part.stat().st_size < 500_000):
        time.sleep(0.01)
    process.kill()
    process.communicate()
    there = part.stat().st_size
    assert 500_000 <= there < 3_000_000
    assert run("show", NAME, code=5).stderr.count("has not ended") == 1
    done = json.loads(run("pull", NAME, "--json").stdout)
    assert done["downloaded_bytes"] == 3_000_000 - there, "the small files were there already"
    assert hub.asked("model.safetensors", "cdn")[-1]["headers"]["range"] == f"bytes={there}-"
    assert read(done["path"])["model.safetensors"] == files["model.safetensors"] and not part.exists()


def test_ctrl_c_keeps_what_came_and_ends_with_130(hub, home):
    hub.add(NAME, folder_files(3_000_000))
    hub.fault("model.safetensors@cdn", "slow", value=20_000)
    process = subprocess.Popen([PROGRAM, "pull", NAME], env=environment(hub, home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 130 and out == "" and "the same command goes on" in err
    assert not (home / "hub" / FOLDER / "refs" / "main").exists()


def test_an_interrupted_update_leaves_the_old_model(hub, home, run):
    first = hub.add(NAME, folder_files())
    run("pull", NAME)
    hub.repos[NAME].commit(folder_files(400_000))
    hub.fault("model.safetensors@cdn", "status", value=403, times=9)
    run("pull", NAME, code=4)
    assert run("pull", NAME, "--offline").stdout.strip().endswith(first)


def test_content_with_a_wrong_hash_is_refused_and_removed(hub, home, run):
    hub.add(NAME, folder_files())
    hub.fault("model.safetensors@cdn", "wrong", times=9)
    assert "does not have the hash that the hub lists" in run("pull", NAME, code=5).stderr
    assert not [b for b in blobs(home) if b.startswith(sha256(folder_files()["model.safetensors"]))]
    hub.faults.clear()
    run("rm", NAME, "--yes")
    hub.fault("config.json@hub", "wrong", times=9)
    assert "config.json" in run("pull", NAME, code=5).stderr


def test_a_damaged_beginning_is_downloaded_again(hub, home, run):
    files = folder_files()
    hub.add(NAME, files)
    part = home / "hub" / FOLDER / "blobs" / (sha256(files["model.safetensors"]) + ".incomplete")
    for damage in (b"x" * 1000, b"x" * 400_000):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(damage)
        path = run("pull", NAME).stdout.strip()
        assert read(path)["model.safetensors"] == files["model.safetensors"]
        run("rm", NAME, "--yes")


def test_a_server_without_ranges_sends_all_of_it_again(hub, home, run):
    files = folder_files()
    hub.add(NAME, files)
    hub.fault("model.safetensors@cdn", "cut", value=100_000)
    hub.fault("model.safetensors@cdn", "no-range", times=9)
    assert read(run("pull", NAME).stdout.strip())["model.safetensors"] == files["model.safetensors"]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
def test_a_hub_in_trouble_is_asked_again(hub, run, status):
    hub.add(NAME, folder_files())
    hub.fault("/tree/", "status", value=status, times=2)
    hub.fault("config.json", "status", value=status)
    hub.fault("model.safetensors@cdn", "status", value=status)
    run("pull", NAME)


def test_a_wait_that_the_hub_asks_for_is_kept(hub, run):
    hub.add(NAME, folder_files())
    hub.fault("/revision/", "status", value=429, headers={"RateLimit": '"api";r=0;t=2'})
    begin = time.monotonic()
    assert "answers 429; next try in 2.0 s" in run("pull", NAME).stderr
    assert time.monotonic() - begin >= 2


def test_a_silent_server_is_left_and_asked_again(hub, run):
    files = folder_files()
    hub.add(NAME, files)
    hub.fault("model.safetensors@cdn", "stall", value=1000)
    begin = time.monotonic()
    path = run("pull", NAME, HF_HUB_DOWNLOAD_TIMEOUT=1).stdout.strip()
    assert read(path)["model.safetensors"] == files["model.safetensors"] and time.monotonic() - begin < 20


def test_a_hub_that_stays_in_trouble_is_given_up(hub, home, run):
    hub.add(NAME, folder_files())
    hub.fault("/revision/", "status", value=503, times=99)
    assert "answers 503" in run("pull", NAME, "--retries", "2", code=4).stderr
    assert len(hub.asked("/revision/")) == 3
    error = run("pull", NAME, "--retries", "1", code=4, HF_ENDPOINT="http://127.0.0.1:1").stderr
    assert "cannot reach http://127.0.0.1:1" in error and "--offline" in error


def test_a_second_process_waits_and_transfers_nothing(hub, home, run):
    files = folder_files(2_000_000)
    hub.add(NAME, files)
    hub.fault("model.safetensors@cdn", "slow", value=50_000)
    processes = [subprocess.Popen([PROGRAM, "pull", NAME, "--json"], env=environment(hub, home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    results = [p.communicate(timeout=60) for p in processes]
    assert [p.returncode for p in processes] == [0, 0], results
    assert len(hub.asked("model.safetensors", "cdn")) == 1
    assert any("another process is downloading it" in err for _, err in results)
    assert all(read(json.loads(out)["path"])["model.safetensors"] == files["model.safetensors"] for out, _ in results)


def test_huggingface_hub_and_pull_lock_the_same_file(hub, home, run):
    files = folder_files(2_000_000)
    hub.add(NAME, files)
    hub.fault("model.safetensors@cdn", "slow", value=50_000)
    script = f'from huggingface_hub import hf_hub_download; print(hf_hub_download("{NAME}", "model.safetensors"))'
    other = subprocess.Popen([sys.executable, "-c", script], env=environment(hub, home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 30
    while time.time() < deadline and not hub.asked("model.safetensors", "cdn", "GET"):
        time.sleep(0.01)
    assert "another process is downloading it" in run("pull", NAME).stderr
    assert other.communicate(timeout=60)[0].strip().endswith("model.safetensors") and other.returncode == 0
    assert len(hub.asked("model.safetensors", "cdn", "GET")) == 1


def test_several_files_come_at_a_time(hub, home, run):
    files = folder_files(1000) | {f"model-0000{i}-of-00004.safetensors": noise(400_000, i) for i in range(1, 5)} | {"model.safetensors.index.json": b'{"weight_map": {}}'}
    del files["model.safetensors"]
    hub.add(NAME, files)
    seconds = {}
    for jobs in (1, 4):
        hub.faults.clear()
        hub.fault("-of-00004.safetensors@cdn", "slow", times=9, value=20_000)  # 20 pieces of 20 ms: a store that limits each connection
        begin = time.monotonic()
        run("pull", NAME, "--connections", jobs)
        seconds[jobs] = time.monotonic() - begin
        run("rm", NAME, "--yes")
    assert seconds[1] > 4 * 0.4 and seconds[4] < 0.6 * seconds[1], seconds


def test_a_full_disk_is_said_before_anything_is_downloaded(hub, home, run):
    hub.add(NAME, folder_files())
    hub.extra_entries[NAME] = [{"type": "file", "path": "model-00001-of-00002.safetensors", "size": 1 << 49, "oid": "1" * 40, "lfs": {"oid": "2" * 64, "size": 1 << 49, "pointerSize": 1}},
                               {"type": "file", "path": "model.safetensors.index.json", "size": 2, "oid": git_sha1(b"{}")}]
    error = run("pull", NAME, code=1).stderr
    assert "are to be downloaded" in error and "supersonic rm" in error
    assert not hub.asked("/resolve/")


def test_a_limit_on_files_stops_a_download_which_then_goes_on(hub, home, run):
    files = folder_files()
    hub.add(NAME, files)
    limited = subprocess.run([PROGRAM, "pull", NAME], capture_output=True, text=True, env=environment(hub, home), timeout=60,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY)))
    assert limited.returncode == 1 and "ulimit -f" in limited.stderr and "the same command goes on" in limited.stderr
    assert not [b for b in blobs(home) if b == sha256(files["model.safetensors"])]
    assert read(run("pull", NAME).stdout.strip())["model.safetensors"] == files["model.safetensors"]


@needs_disk
def test_a_disk_that_is_too_small_is_said_first(hub, home, tmp_path):
    hub.add(NAME, folder_files(1_000_000))
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=16m none "$1" && "$2" pull "$3"'
    done = subprocess.run([*NAMESPACE, "sh", "-c", script, "sh", disk, PROGRAM, NAME], capture_output=True, text=True, env=environment(hub, home, HF_HUB_CACHE=disk / "hub"), timeout=60)
    assert done.returncode == 1 and "are to be downloaded, and 16.0 MiB are free" in done.stderr and not hub.asked("/resolve/")


# --- who may, and whom to trust ------------------------------------------------------------------------------------------------------


def test_the_token_goes_to_the_hub_and_to_nobody_else(hub, home, run):
    hub.add(NAME, folder_files(), private=True)
    run("pull", NAME, HF_TOKEN=hub.token)
    assert all(e["headers"].get("authorization") == f"Bearer {hub.token}" for e in hub.log if e["server"] == "hub")
    assert hub.asked("", "cdn") and not any("authorization" in e["headers"] for e in hub.asked("", "cdn"))
    home.joinpath("token").write_text(hub.token + "\n")
    run("pull", NAME + "@main")
    assert "not there, or private" in run("pull", NAME, code=4, HF_HUB_DISABLE_IMPLICIT_TOKEN=1).stderr
    other = home / "elsewhere"
    other.write_text("wrong")
    assert f"the token from {other} is not accepted" in run("pull", NAME, code=4, HF_TOKEN_PATH=other).stderr


def test_a_token_that_would_end_the_header_is_refused(hub, run):
    hub.add(NAME, folder_files())
    assert "another character that tokens do not have" in run("pull", NAME, code=2, HF_TOKEN="a\r\nX-Evil: 1").stderr
    assert not hub.log


def test_gated_private_and_missing_models_are_told_apart(hub, run):
    hub.add(NAME, folder_files(), gated=True)
    error = run("pull", NAME, code=4).stderr
    assert f"is gated: accept its conditions at {hub.url}/{NAME}" in error and "HF_TOKEN" in error
    assert "the account of the token from HF_TOKEN has no access" in run("pull", NAME, code=4, HF_TOKEN="hf_other").stderr
    assert "not there, or private" in run("pull", "acme/nothing", code=4).stderr
    assert "there is no such model" in run("pull", "acme/nothing", code=4, HF_TOKEN=hub.token).stderr
    run("pull", NAME, HF_TOKEN=hub.token)


def test_a_renamed_repository_is_followed(hub, home, run):
    files = folder_files()
    hub.add("acme/new-name", files)
    hub.moved[NAME] = "acme/new-name"
    assert read(run("pull", NAME, HF_TOKEN=hub.token).stdout.strip())["model.safetensors"] == files["model.safetensors"]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://user@127.0.0.1/x", "http://a b/", "gopher://x/"])
def test_redirects_lead_to_http_alone(hub, run, target):
    hub.add(NAME, folder_files())
    hub.fault("config.json@hub", "redirect", times=99, value=target)
    assert "an address that is not followed" in run("pull", NAME, code=4).stderr


def test_a_circle_of_redirects_ends(hub, run):
    hub.add(NAME, folder_files())
    hub.fault("config.json@hub", "redirect", times=999, value=f"{hub.url}/{NAME}/resolve/main/config.json")
    assert "in a circle" in run("pull", NAME, code=4).stderr


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "a\0b", "a\nb", "\x1b[2Jx", "a//b", "./a", "a/.", ".git/hooks/x", "x" * 300, "\u0085x",
                                  "config.json/inside"])
def test_paths_that_lead_elsewhere_are_refused(hub, home, run, path):
    hub.add(NAME, folder_files())
    hub.extra_entries[NAME] = [{"type": "file", "path": path, "size": 4, "oid": git_sha1(b"evil")}]
    done = run("pull", NAME, code=5)
    assert "refused" in done.stderr or "as a file and as a folder" in done.stderr
    assert "\x1b" not in done.stderr and not (home / "hub").exists() and not hub.asked("/resolve/")


@pytest.mark.parametrize("entry, words", [
    ({"oid": "../../../x"}, "is no hash of a git object"), ({"oid": "A" * 40}, "is no hash"), ({"lfs": {"oid": "short", "size": 4}}, "is no SHA-256"), ({"size": -1}, "size"),
    ({"size": 1 << 60}, "size"), ({"path": 7}, "path"), ({"path": "config.json"}, "is listed twice")])
def test_lists_that_lie_are_refused(hub, home, run, entry, words):
    hub.add(NAME, folder_files())
    hub.extra_entries[NAME] = [{"type": "file", "path": "x", "size": 4, "oid": git_sha1(b"evil")} | entry]
    assert words in run("pull", NAME, code=5).stderr
    assert not (home / "hub").exists()


def test_a_commit_that_is_none_is_refused(hub, run):
    hub.add(NAME, folder_files())
    hub.repos[NAME].refs["main"] = "../../x"
    hub.repos[NAME].commits["../../x"] = folder_files()
    assert "is no commit" in run("pull", NAME, code=5).stderr


def test_a_snapshot_folder_that_is_a_link_is_not_entered(hub, home, run, tmp_path):
    commit = hub.add(NAME, folder_files())
    outside = tmp_path / "outside"
    outside.mkdir()
    snapshots = home / "hub" / FOLDER / "snapshots"
    snapshots.mkdir(parents=True)
    (snapshots / commit).symlink_to(outside)
    assert "no folder of the cache's own" in run("pull", NAME, code=1).stderr
    assert not list(outside.iterdir())


def test_more_bytes_than_were_listed_are_not_written(hub, home, run):
    hub.add(NAME, folder_files())
    hub.fault("model.safetensors@cdn", "long", value=200_000)
    assert "more bytes come than the hub's list has" in run("pull", NAME, code=5).stderr
    assert all(p.stat().st_size <= 300_000 for p in blobs(home).values())


def test_certificates_are_verified(hub, home, run, tmp_path):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    for server in hub.servers:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    hub.url, hub.cdn_url = hub.url.replace("http:", "https:"), hub.cdn_url.replace("http:", "https:")
    hub.add(NAME, folder_files())
    error = run("pull", NAME, code=4).stderr
    assert "certificate of the server is not accepted" in error and "SSL_CERT_FILE" in error and not hub.log
    run("pull", NAME, SSL_CERT_FILE=tmp_path / "cert.pem")
    hub.fault("config.json@hub", "redirect", times=9, value="http://127.0.0.1:9/x")
    run("rm", NAME, "--yes")
    assert "an address that is not followed" in run("pull", NAME, code=4, SSL_CERT_FILE=tmp_path / "cert.pem").stderr, "from https to http"


def test_a_proxy_of_the_environment_is_used(hub, home, run):
    hub.add(NAME, folder_files())
    run("pull", NAME, "--retries", "0", code=4, env={"http_proxy": "http://127.0.0.1:1"})
    assert not hub.log
    run("pull", NAME, env={"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1"})


def test_offline_asks_nobody(hub, home, run):
    hub.add(NAME, folder_files())
    assert "not now: --offline" in run("pull", NAME, "--offline", code=4).stderr and not hub.log
    run("pull", NAME)
    count = len(hub.log)
    path = run("pull", NAME, HF_HUB_OFFLINE=1).stdout
    assert path == run("pull", NAME, "--offline").stdout and len(hub.log) == count


def test_a_cache_without_links_holds_files(hub, home, run):
    files = folder_files()
    hub.add(NAME, files)
    path = pathlib.Path(run("pull", NAME, HF_HUB_DISABLE_SYMLINKS=1).stdout.strip())
    assert not (path / "model.safetensors").is_symlink() and read(path)["model.safetensors"] == files["model.safetensors"]
    assert json.loads(run("pull", NAME, "--json").stdout)["downloaded_bytes"] == 0


def test_caches_of_the_environment(hub, tmp_path, run):
    hub.add(NAME, folder_files())
    assert run("pull", NAME, HF_HUB_CACHE=tmp_path / "one").stdout.startswith(str(tmp_path / "one" / "models--acme"))
    out = run("pull", NAME, env={"HF_HOME": "", "XDG_CACHE_HOME": str(tmp_path / "two")}).stdout
    assert out.startswith(str(tmp_path / "two" / "huggingface" / "hub" / "models--acme"))


def test_no_command_without_network_loads_the_network_libraries(hub, home, run, model):
    hub.add(NAME, {"Tiny-Q4_1.gguf": model.read_bytes()[:1 << 16]})
    run("pull", NAME)
    for arguments in (["--version"], ["ls"], ["show", model], ["rm", NAME, "--dry-run"]):
        done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, env=environment(hub, home, LD_DEBUG="libs"))
        assert done.returncode == 0 and not any(f"init: {word}" in line or word in line for line in done.stderr.splitlines() if "calling init" in line
                                                for word in ("libcurl", "libcrypto", "libssl", "libsupersonic_hub")), arguments
