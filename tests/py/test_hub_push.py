"""push, against a hub of the tests' own (hub_server.py): what is sent arrives whole, once, in one commit. The server checks the protocol as the
hub does (hashes, parts, parents); huggingface_hub downloads the result and writes to the same server, and reads the model cards."""

import json
import pathlib
import signal
import subprocess
import time

import pytest

from hub_server import sha256
from hub_tools import PROGRAM, client, environment, folder_files, gguf_files, home, hub, noise, read, run  # noqa: F401 (fixtures)

TARGET = "me/new-model"


@pytest.fixture
def token(hub):
    return {"HF_TOKEN": hub.token}


def write(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "model", folder_files() | {"config.yaml": b"secret: path", "step-1/optimizer.bin": b"1", ".hidden": b"1", "loss.png": b"png"})


def head(hub, name=TARGET, revision="main"):
    return hub.repos[name].files(revision)[1]


def test_a_folder_arrives_in_one_commit(hub, home, run, folder, token):
    done = run("push", folder, TARGET, **token)
    assert done.stdout.strip() == f"{hub.url}/{TARGET}"
    wanted = {k: v for k, v in folder_files().items() if k in {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md", "model.safetensors"}}
    assert {k: v for k, v in head(hub).items() if k != ".gitattributes"} == wanted | {"loss.png": b"png"}
    assert "not sent: config.yaml, empty.txt, onnx/model.onnx, pytorch_model.bin, step-1/optimizer.bin" in done.stderr
    assert len(hub.asked("/commit/")) == 1 and hub.messages == ["Upload model with Supersonic"]
    assert not any("authorization" in e["headers"] for e in hub.asked("", "cdn")), "the store never sees the token"
    downloaded = client(hub, home, f'print(json.dumps(snapshot_download("{TARGET}")))')
    assert {k: v for k, v in read(downloaded).items() if k in wanted} == wanted
    assert read(run("pull", TARGET).stdout.strip()).items() >= wanted.items()


def test_what_the_hub_has_is_not_sent_again(hub, run, folder, token):
    run("push", folder, TARGET, **token)
    log = len(hub.log)
    again = json.loads(run("push", folder, TARGET, "--json", **token).stdout)
    assert again["nothing_new"] is True and len(hub.asked("/commit/")) == 1 and not [e for e in hub.log[log:] if e["server"] == "cdn"]
    (folder / "config.json").write_bytes(b'{"changed": 1}')
    done = json.loads(run("push", folder, TARGET, "--json", "--message", "second", **token).stdout)
    assert done["files"] == 1 and done["bytes_sent"] == 0 and hub.messages[-1] == "second"
    # The same content under another name: in the store already.
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    assert json.loads(run("push", folder, TARGET, "--json", **token).stdout)["bytes_sent"] == 0
    assert head(hub)["model-00001-of-00001.safetensors"] == noise(300_000)


def test_large_files_go_in_parts(hub, run, folder, token):
    hub.chunk = 70_000
    hub.fault("/upload/", "status", value=500, times=1, after=2)
    hub.fault("/upload/", "drop", times=1, after=4)
    done = json.loads(run("push", folder, TARGET, "--json", **token).stdout)
    assert head(hub)["model.safetensors"] == noise(300_000) and done["bytes_sent"] == 300_000
    assert {e["bytes"] for e in hub.asked("/upload/", "cdn")} >= {70_000, 20_000} and len(hub.asked("/lfs/complete/")) == 1 and len(hub.asked("/lfs/verify")) == 1


def test_headers_of_the_store_are_sent_to_it(hub, run, folder, token):
    run("push", folder, TARGET, **token)
    assert all(e["headers"].get("x-store") == "yes" for e in hub.asked("/upload/", "cdn"))


def test_a_commit_whose_answer_is_lost_is_made_once(hub, run, folder, token):
    hub.fault("/commit/", "lost")
    done = json.loads(run("push", folder, TARGET, "--json", **token).stdout)
    assert len(hub.messages) == 1 and done["commit"] == hub.repos[TARGET].refs["main"]


def test_a_commit_that_did_not_arrive_is_made_again(hub, run, folder, token):
    hub.fault("/commit/", "drop")
    run("push", folder, TARGET, **token)
    assert len(hub.messages) == 1 and len(hub.asked("/commit/")) == 2


def test_a_change_by_somebody_else_is_not_overwritten(hub, run, folder, token):
    run("push", folder, TARGET, **token)
    (folder / "config.json").write_bytes(b'{"mine": 1}')
    real = hub.pick_fault

    def meanwhile(entry):
        if "/preupload/" in entry["path"]:
            hub.repos[TARGET].commit(head(hub) | {"config.json": b'{"theirs": 1}'})
        return real(entry)

    hub.pick_fault = meanwhile
    assert "somebody else has changed main meanwhile" in run("push", folder, TARGET, code=4, **token).stderr
    assert head(hub)["config.json"] == b'{"theirs": 1}'


def test_an_interrupted_push_is_not_visible_and_sends_the_rest_later(hub, home, run, tmp_path, token):
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors.index.json": b"{}", "model-00001-of-00002.safetensors": noise(50_000, 1), "model-00002-of-00002.safetensors": noise(60_000, 2)}
    folder = write(tmp_path / "model", files)
    hub.fault(f"/upload/{sha256(noise(60_000, 2))}", "status", value=403, times=1)
    run("push", folder, TARGET, "--connections", "1", code=4, **token)
    assert list(head(hub)) == [".gitattributes"] and not hub.messages
    assert json.loads(run("push", folder, TARGET, "--json", **token).stdout)["bytes_sent"] == 60_000
    assert head(hub).items() >= files.items()


def test_private_branches_and_pull_requests(hub, run, folder, token):
    run("push", folder, TARGET, "--private", **token)
    assert hub.repos[TARGET].private and "not there, or private" in run("pull", TARGET, code=4).stderr
    hub.repos[TARGET].refs["dev"] = hub.repos[TARGET].refs["main"]
    (folder / "config.json").write_bytes(b'{"dev": 1}')
    run("push", folder, TARGET + "@dev", **token)
    assert head(hub, revision="dev")["config.json"] == b'{"dev": 1}' != head(hub)["config.json"]
    (folder / "config.json").write_bytes(b'{"pr": 1}')
    run("push", folder, TARGET, "--create-pr", **token)
    assert "create_pr=1" in hub.asked("/commit/")[-1]["path"]


def test_who_may_not_write_is_told_what_to_do(hub, run, folder, token):
    assert "needs a token that may write" in run("push", folder, TARGET, code=4).stderr and not hub.log
    assert "is not accepted (401)" in run("push", folder, TARGET, code=4, HF_TOKEN="hf_wrong").stderr
    assert "You don't have the rights" in run("push", folder, "acme/x", code=4, **token).stderr
    assert "HF_HUB_OFFLINE" in run("push", folder, TARGET, code=4, HF_HUB_OFFLINE=1, **token).stderr


def test_dry_run_sends_nothing(hub, run, folder):
    listing = json.loads(run("push", folder, TARGET, "--dry-run", "--json").stdout)["files"]
    assert {"path": "model.safetensors", "bytes": 300_000} in listing and not hub.log
    everything = json.loads(run("push", folder, TARGET, "--dry-run", "--json", "--all").stdout)["files"]
    assert {f["path"] for f in everything} >= {"config.yaml", "step-1/optimizer.bin"} and ".hidden" not in {f["path"] for f in everything}


def test_a_gguf_file_and_a_split_set(hub, home, run, tmp_path, token, model):
    path = write(tmp_path, {"Tiny-Q8_0.gguf": model.read_bytes()[:4 << 20]}) / "Tiny-Q8_0.gguf"
    bad = run("push", path, TARGET, code=5, **token).stderr
    assert "Tiny-Q8_0.gguf" in bad, "a GGUF file that is none has no card, and is not sent"
    run("push", path, TARGET, "--no-card", **token)
    assert head(hub)["Tiny-Q8_0.gguf"] == path.read_bytes()
    # A whole one gets a card; what it was made from stands in its metadata, or is said.
    run("push", model, "me/quantized-GGUF", "--base-model", "acme/base", **token)
    assert head(hub, "me/quantized-GGUF")[model.name] == model.read_bytes()
    card = client(hub, home, 'c = ModelCard.load("me/quantized-GGUF"); print(json.dumps([c.data.to_dict(), c.text]))')
    assert card[0]["base_model"] == "acme/base" and card[0]["base_model_relation"] == "quantized" and "gguf" in card[0]["tags"] and "(Q4_1)" in card[1]
    assert "--base-model" in run("push", model, "me/other-GGUF", "--dry-run", **token).stderr
    parts = write(tmp_path / "set", {k.split("/")[1]: v for k, v in gguf_files().items() if "Q6_K/" in k})
    run("push", parts / "Tiny-Q6_K-00001-of-00002.gguf", "me/split", "--no-card", **token)
    assert {k for k in head(hub, "me/split") if k.endswith(".gguf")} == {"Tiny-Q6_K-00001-of-00002.gguf", "Tiny-Q6_K-00002-of-00002.gguf"}


def test_cards_say_what_the_files_say(hub, home, run, tmp_path, token, tiny_model):
    hub.add("acme/base", read(tiny_model("llama3")) | {"README.md": b"---\nlicense: mit\n---\n# Base\n"})
    run("pull", "acme/base")
    chats = tmp_path / "c.jsonl"
    chats.write_text("".join(json.dumps({"text": f"sample number {i} of some"}) + "\n" for i in range(8)))
    run("train", "-m", "acme/base", "-d", chats, "-o", tmp_path / "out", "--max-steps", "2", "--rank", "4")
    run("push", tmp_path / "out", TARGET, **token)
    assert {k for k in head(hub)} >= {"adapter_config.json", "adapter_model.safetensors", "README.md", "train_log.jsonl"} and "config.yaml" not in head(hub)
    card = client(hub, home, f"""
c = ModelCard.load("{TARGET}")
print(json.dumps([c.data.to_dict(), c.text]))""")
    assert card[0] == {"license": "mit", "base_model": "acme/base", "base_model_relation": "adapter", "library_name": "peft", "pipeline_tag": "text-generation", "tags": ["supersonic", "lora"]}
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines() if '"loss"' in line]
    assert f"| loss | {losses[0]:.3f} | {losses[-1]:.3f} |" in card[1] and "| rank | 4 |" in card[1] and "PeftModel.from_pretrained" in card[1]
    run("merge", "acme/base", "--adapter", tmp_path / "out", "-o", tmp_path / "merged")
    run("push", tmp_path / "merged", "me/merged", "--base-model", "acme/base", "--license", "other license", **token)
    card = client(hub, home, 'print(json.dumps(ModelCard.load("me/merged").data.to_dict()))')
    assert card["base_model_relation"] == "finetune" and card["license"] == "other license" and card["library_name"] == "transformers"
    assert run("run", "acme/base", "--adapter", tmp_path / "out", "--raw", "--temp", "0", "-n", "4", "a").stdout
    # A card that is there, here or on the hub, stays.
    hub.repos["me/merged"].commit(head(hub, "me/merged") | {"README.md": b"# By hand\n"})
    (tmp_path / "merged" / "config.json").write_bytes((tmp_path / "merged" / "config.json").read_bytes() + b"\n")
    run("push", tmp_path / "merged", "me/merged", **token)
    assert head(hub, "me/merged")["README.md"] == b"# By hand\n"


def test_what_is_no_model_is_not_pushed(hub, run, tmp_path, token):
    assert "no model" in run("push", write(tmp_path / "x", {"a.txt": b"1"}), TARGET, code=5, **token).stderr
    assert "there is no such file" in run("push", tmp_path / "missing", TARGET, code=5, **token).stderr
    assert "has no ':' part" in run("push", tmp_path / "x", TARGET + ":Q8_0", code=2, **token).stderr
    assert not hub.log


def test_ctrl_c_while_sending(hub, home, tmp_path, token):
    folder = write(tmp_path / "model", folder_files(40_000_000))
    hub.servers[1].shutdown()  # the store takes the connection and never answers
    process = subprocess.Popen([PROGRAM, "push", folder, TARGET], env=environment(hub, home, **token), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=15)
    assert process.returncode == 130 and "nothing will be visible" in err and not hub.messages
