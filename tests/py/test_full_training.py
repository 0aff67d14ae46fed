"""train --method full. Ten steps against transformers and torch's AdamW in float64 (tests/golden/full) on random models, in fp32; what bf16
weights do to the loss curve; runs that are resumed, refused, and exported."""

import json

import numpy as np
import pytest

import recipe
import tiny_models

MODELS = ("llama2", "qwen2", "qwen3", "gemma2", "phi")
STEPS = ["--max-steps", "12", "--seq-len", "64", "--batch", "2", "--accum", "2", "--lr", "1e-3", "--eval-split", "6", "--eval-every", "4"]


def floats(folder):
    """{name: fp32 array} of a model folder; safetensors.numpy has no bf16."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8 : 8 + size]).items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            raw = data[8 + size + begin : 8 + size + end]
            values = np.frombuffer(raw, "<f4") if entry["dtype"] == "F32" else (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
            tensors[name] = values.reshape(entry["shape"])
    return tensors


@pytest.fixture(scope="module")
def data(chats):
    return chats


@pytest.fixture(scope="module")
def train(supersonic, data):
    def run(model, out, *options, **how):
        return supersonic("train", "--method", "full", "-m", model, "-d", data, "-o", out, "--device", "cpu", *options, **how)

    return run


def losses(out):
    rows = [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]
    return [r["loss"] for r in rows if "loss" in r and "eval_loss" not in r]


@pytest.mark.parametrize("name, container", [(name, "folder") for name in MODELS] + [("llama2", "gguf")])
def test_ten_steps_equal_torch(supersonic, tool, tiny_model, golden, tmp_path, name, container):
    """AdamW's first steps are nearly signs of gradients, so that rounding moves elements whose gradient is near zero by up to a whole step. Of
    keys' biases, which all scores of a query share but for their rotation, these are many."""
    data, arrays = golden(f"full/{name}")
    model = tiny_model(name)
    before = tiny_models.tensors(name)
    if container == "gguf":  # q and k rows lie in another order there
        supersonic("convert", model, tmp_path / "model.gguf", "--type", "f32")
        model = tmp_path / "model.gguf"
    done = json.loads(tool("full_probe", model, tmp_path / "out", "fp32", "cpu", input=json.dumps(data)).stdout)
    assert done["losses"] == pytest.approx(data["losses"], rel=2e-5)
    assert done["gradient_norms"] == pytest.approx(data["gradient_norms"], rel=2e-4)
    after = floats(tmp_path / "out")
    assert set(after) == set(data["names"])
    errors = {}
    for key, norm, projections in zip(data["names"], arrays["change_norm"], arrays["change_projections"]):
        assert norm > 0
        difference = recipe.projections((after[key].astype(np.float64) - before[key]).reshape(-1)) - projections
        errors[key] = float(np.sqrt((difference**2).mean()) / norm)
    limits = {key: 1e-2 if key.endswith("k_proj.bias") else 1e-3 for key in errors}
    assert all(errors[key] <= limits[key] for key in errors), errors


def test_a_resumed_run_ends_with_the_same_bytes(train, tiny_model, tmp_path):
    for options in (["--compute", "bf16"], ["--optim", "adamw-8bit", "--early-stop", "50"]):
        model, whole, parts = tiny_model("llama_tied"), tmp_path / options[1] / "whole", tmp_path / options[1] / "parts"
        options = [*STEPS, "--save-every", "5", *options]
        train(model, whole, *options)
        train(model, parts, *options)
        for name in ("step-000010", "step-000012"):
            for file in sorted((parts / "checkpoints" / name).iterdir()) if name == "step-000012" else ():
                file.unlink()
        (parts / "checkpoints" / "step-000012").rmdir()
        (parts / "model.safetensors").unlink()
        again = train(model, parts, *options, json_output=True)
        assert again["resumed_from"] == 10 and again["complete"]
        assert (parts / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
        assert losses(parts) == losses(whole)


def test_the_loss_curve_of_bf16_weights_is_that_of_fp32(tool, supersonic, tiny_model, golden, tmp_path):
    """Stochastic rounding keeps steps far below a weight's last bit: rounded to nearest, most of them would vanish. The rate is such that
    a step moves a weight by 1/16 of the distance of neighbouring bf16 numbers, or less."""
    data, _ = golden("full/llama2")
    supersonic("convert", tiny_model("llama2"), tmp_path / "wide", "--to", "hf", "--type", "bf16")
    supersonic("convert", tmp_path / "wide", tmp_path / "f32", "--to", "hf", "--type", "f32")  # the same values to begin with
    job = {**data, "steps": 60, "seed": 3, "optimizer": {**data["optimizer"], "lr": 2.0**-15, "weight_decay": 0.0}}
    curve = {which: json.loads(tool("full_probe", tmp_path / folder, tmp_path / f"{which}_out", "fp32", "cpu", input=json.dumps(job)).stdout)["losses"]
             for which, folder in (("bf16", "wide"), ("fp32", "f32"))}
    fall = curve["fp32"][0] - curve["fp32"][-3]
    assert fall > 0.5
    assert curve["bf16"] == pytest.approx(curve["fp32"], abs=0.02 * fall)


def test_out_is_a_model_folder_and_the_bases_types_stay(supersonic, train, tiny_model, tmp_path):
    for name, dtype in (("llama_tied", "bfloat16"), ("qwen2", "float32")):
        out = tmp_path / name
        result = train(tiny_model(name), out, *STEPS, json_output=True)
        assert result["eval_after"]["loss"] < result["eval_before"]["loss"] and result["model"] == str(out)
        assert json.loads((out / "config.json").read_text())["torch_dtype"] == dtype
        assert {p.name for p in out.iterdir()} >= {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
                                                   "train_log.jsonl", "report.html", "config.yaml", "checkpoints"}
        assert not any(p.name.startswith(".") for p in out.iterdir())
        trained, base = floats(out), floats(tiny_model(name))
        assert {k: v.shape for k, v in trained.items()} == {k: v.shape for k, v in base.items()}
        assert all(np.any(trained[k] != base[k]) for k in base)
        assert supersonic("run", out, "the cat", "-n", 4).stdout


def test_a_model_in_f16_is_trained_in_bf16_and_says_so(supersonic, train, tiny_model, tmp_path):
    supersonic("convert", tiny_model("llama3"), tmp_path / "half.gguf", "--type", "f16")
    done = train(tmp_path / "half.gguf", tmp_path / "out", *STEPS)
    assert "f16" in done.stderr and "bf16" in done.stderr
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    assert losses(tmp_path / "out")[-1] < losses(tmp_path / "out")[0]


def test_what_cannot_be_trained_is_refused_with_a_remedy(supersonic, train, tiny_model, tmp_path):
    supersonic("convert", tiny_model("llama3"), tmp_path / "q8.gguf", "--type", "q8_0")
    for model, options, code, words in (
        (tmp_path / "q8.gguf", [], 2, ["q8_0", "16-", "--method lora"]),
        (tiny_model("mixtral"), [], 2, ["mixture of experts", "--method lora"]),
        (tiny_model("llama3"), ["--base", "nf4"], 2, ["--base nf4", "--method lora"]),
        (tiny_model("llama3"), ["--targets", "q_proj"], 2, ["--targets"]),
        (tiny_model("llama3"), ["--compute", "fp8"], 2, ["fp8", "bf16"]),
        (tiny_model("llama3"), ["--memory", "30M"], 3, ["--optim adamw-8bit", "--method lora", "MiB"]),
    ):
        refused = train(model, tmp_path / "never", *STEPS, *options, check=False)
        assert refused.returncode == code, refused.stderr
        for word in words:
            assert word in refused.stderr, refused.stderr
    assert not (tmp_path / "never").exists()
    own = train(tiny_model("llama3"), tiny_model("llama3"), *STEPS, check=False)
    assert own.returncode == 2 and "the model's own folder" in own.stderr


def test_the_plan_is_told_before_anything_runs_and_kept(supersonic, train, tiny_model, tmp_path):
    """14 bytes a weight with fp32 moments, 8 and two maxima of 256 weights with 8-bit ones; the same from fit, --dry-run and the run."""
    model = tiny_model("llama_tied")
    parameters = sum(v.size for v in floats(model).values())
    parts = {}
    for optim, each in (("adamw", 14), ("adamw-8bit", 8)):
        plan = supersonic("fit", model, "--train", "--method", "full", "--batch", 2, "--seq-len", 64, "--optim", optim, "--device", "cpu", json_output=True)
        parts[optim] = p = plan["parts"]
        assert p["weights"] + p["gradients"] + p["optimizer"] == pytest.approx(each * parameters, rel=2e-2)
    dry = train(model, tmp_path / "dry", *STEPS, "--dry-run")
    assert not (tmp_path / "dry").exists() and "gradients and optimizer" in dry.stderr
    run = train(model, tmp_path / "run", *STEPS, json_output=True)
    assert run["planned_bytes"] == sum(v for k, v in parts["adamw"].items() if k != "program")


@pytest.mark.live
@pytest.mark.parametrize("name", ["qwen2", "llama_tied", "gemma2"])
def test_transformers_loads_the_trained_model_and_computes_the_same(tool, train, tiny_model, tmp_path, name):
    import torch
    import transformers

    train(tiny_model(name), tmp_path / "out", *STEPS)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32, attn_implementation="eager").eval().double()
    assert len(transformers.AutoTokenizer.from_pretrained(tmp_path / "out")("the cat sat").input_ids) > 2
    ids = recipe.below(f"{name} trained", 60, 512)
    with torch.no_grad():
        wanted = model(torch.tensor(ids[None])).logits[0].numpy()
    done = tool("logits_probe", tmp_path / "out", "fp32", "--out", tmp_path, input=json.dumps(ids.tolist()) + "\n")
    ours = np.fromfile(json.loads(done.stdout)["all"], "<f4").reshape(wanted.shape)
    assert np.linalg.norm(ours - wanted) <= 2e-5 * np.linalg.norm(wanted)
