"""Each architecture of tests/oracle/tiny_models.py against transformers and PEFT in float64 (tests/golden/tiny): logits, loss and every
LoRA gradient, in fp32, from the Hugging Face folder and from the GGUF file that convert makes of it."""

import json

import numpy as np
import pytest
import safetensors.numpy

import adapters
import recipe
import tiny_models

LOGITS = 1e-5  # relative, norm-wise: sums of up to 512 fp32 products through two layers (2^-24 each) come to some 1e-6
LOGITS_OF = {"phi_long": 2e-5}  # whose rotation makes q and k longer by 1.4 each, and so their scores' errors twice as large
GRADIENTS = 1e-4
WHERE = [(name, container) for name in tiny_models.MODELS for container in ("folder", "gguf") if (container, name in tiny_models.FOLDERS_ONLY) != ("gguf", True)]


@pytest.fixture(scope="module")
def stored(supersonic, tiny_model, tmp_path_factory):
    """stored("qwen2", "gguf"): the path of the model in that container."""
    made = {}

    def path(name, container):
        folder = tiny_model(name, shards=2 if name == "mistral" else 1)
        if container == "folder":
            return folder
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "model.gguf"
            supersonic("convert", folder, made[name], "--type", "f32")
        return made[name]

    return path


def estimated_error(ours, projections, norm):
    """The relative norm of the difference, of golden rows known by norm and projections alone."""
    difference = recipe.projections(ours) - projections
    return np.sqrt((difference**2).mean(-1).sum()) / np.linalg.norm(norm)


@pytest.mark.parametrize("name, container", WHERE)
def test_logits_equal_transformers(tool, stored, golden, tmp_path, name, container):
    data, arrays = golden(f"tiny/{name}")
    vocabulary = tiny_models.MODELS[name]["vocab_size"]
    requests = "".join(json.dumps(s["ids"]) + "\n" for s in data["sequences"])
    # A chunk of 64: the longer sequence crosses three boundaries.
    done = tool("logits_probe", stored(name, container), "fp32", "--chunk", 64, "--out", tmp_path, input=requests)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(data["sequences"]) == 2
    limit = LOGITS_OF.get(name, LOGITS)
    for k, answer in enumerate(answers):
        logits = np.fromfile(answer["all"], "<f4").reshape(-1, vocabulary).astype(np.float64)
        wanted = arrays[f"{k}/last_logits"]
        assert logits.shape[0] == len(data["sequences"][k]["ids"])
        assert estimated_error(logits, arrays[f"{k}/projections"], arrays[f"{k}/norm"]) <= limit
        np.testing.assert_array_equal(logits.argmax(1), arrays[f"{k}/argmax"])
        for last in (logits[-1], np.fromfile(answer["last"], "<f4")):
            assert np.linalg.norm(last - wanted) <= limit * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", tiny_models.MODELS)
def test_tokens_one_by_one_give_the_logits_of_one_pass(tool, stored, golden, tmp_path, name):
    """Decoding through the cache, beyond the window."""
    data, arrays = golden(f"tiny/{name}")
    done = tool("logits_probe", stored(name, "folder"), "fp32", "--chunk", 1, "--out", tmp_path, input=json.dumps(data["sequences"][0]["ids"]) + "\n")
    last, wanted = np.fromfile(json.loads(done.stdout)["last"], "<f4"), arrays["0/last_logits"]
    assert np.linalg.norm(last - wanted) <= LOGITS_OF.get(name, LOGITS) * np.linalg.norm(wanted)


@pytest.mark.parametrize("name, container", WHERE)
def test_loss_and_every_lora_gradient_equal_peft(tool, stored, golden, tmp_path, name, container):
    data, arrays = golden(f"tiny/{name}")
    adapters.write(tmp_path / "lora", adapters.of_tiny(name, data["rank"]), data["rank"], data["alpha"])
    sequences = json.dumps([s["ids"] for s in data["sequences"]])
    done = tool("gradient_probe", stored(name, container), tmp_path / "lora", tmp_path / "gradients", input=sequences)
    assert json.loads(done.stdout)["loss"] == pytest.approx(data["loss"], rel=1e-6)
    ours = safetensors.numpy.load_file(tmp_path / "gradients" / "adapter_model.safetensors")
    assert len(ours) == len(data["names"]) == 2 * len(tiny_models.lora_modules(name)) * tiny_models.MODELS[name]["num_hidden_layers"]
    worst = {}
    for short, norm, projections in zip(data["names"], arrays["gradient_norm"], arrays["gradient_projections"]):
        layer, module, matrix = short.split(".")[1:]
        block = "mlp" if module in ("gate_proj", "up_proj", "gate_up_proj", "down_proj") else "self_attn"
        key = f"base_model.model.model.layers.{layer}.{block}.{module}.lora_{matrix}.weight"
        assert norm > 0
        worst[short] = float(estimated_error(ours[key].reshape(-1).astype(np.float64), projections, norm))
    assert max(worst.values()) <= GRADIENTS, worst


def test_dynamic_scaling_is_exact_up_to_the_trained_context(supersonic, tool, tiny_model, golden, tmp_path):
    """transformers leaves the rotation alone up to max_position_embeddings; beyond, this program refuses."""
    folder = tmp_path / "model"
    tiny_models.write("llama2", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}))
    data, arrays = golden("tiny/llama2")
    done = tool("logits_probe", folder, "fp32", "--out", tmp_path, input=json.dumps(data["sequences"][0]["ids"]) + "\n")
    last, wanted = np.fromfile(json.loads(done.stdout)["last"], "<f4"), arrays["0/last_logits"]
    assert np.linalg.norm(last - wanted) <= LOGITS * np.linalg.norm(wanted)
    text = tmp_path / "text"
    text.write_text("the quick brown fox " * 500)
    limit = config["max_position_embeddings"]
    fits = supersonic("ppl", folder, "-f", text, "--ctx", limit)
    assert "warning" in fits.stderr and "dynamic" in fits.stderr and str(limit) in fits.stderr
    for command in (["ppl", folder, "-f", text, "--ctx", limit + 1], ["run", folder, "x", "--ctx", limit + 1, "-n", 1]):
        refused = supersonic(*command, check=False)
        assert refused.returncode == 2 and "dynamic" in refused.stderr and "max_position_embeddings" in refused.stderr, refused.stderr


@pytest.mark.parametrize("kind", ["su", "proportional"])
def test_unknown_scaling_is_refused(supersonic, tiny_model, tmp_path, kind):
    folder = tmp_path / "model"
    tiny_models.write("llama2", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_scaling": {"rope_type": kind, "factor": 2.0}}))
    refused = supersonic("run", folder, "x", check=False)
    assert refused.returncode == 5
    for word in ("config.json", "rope_scaling.rope_type", kind, "llama3", "results would be wrong"):
        assert word in refused.stderr, word
