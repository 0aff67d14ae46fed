"""LoRA on the experts of mixtures against PEFT in float64 (tests/golden/experts) and numpy: gradients, both containers, both of PEFT's
forms (the fused parameters of transformers 5, and each expert's linear layers), merging, training and what is refused."""

import json
import shutil

import gguf
import numpy as np
import pytest
import safetensors.numpy

import adapters
import recipe
import tiny_models
from conftest import run_program

RANK, ALPHA = 8, 16
GRADIENTS = 1e-4
IN_GGUF = [name for name in adapters.MIXTURES if name not in tiny_models.FOLDERS_ONLY]
# As older transformers name an expert's layers: (module in a layer, gate, up, down).
SINGLE = {"mixtral": ("block_sparse_moe.experts", "w1", "w3", "w2"), "qwen3_moe": ("mlp.experts", "gate_proj", "up_proj", "down_proj")}


def adapter_of(path):
    return safetensors.numpy.load_file(path / "adapter_model.safetensors")


def config_of(path):
    return json.loads((path / "adapter_config.json").read_text())


@pytest.fixture(scope="module")
def stored(supersonic, tiny_model, tmp_path_factory):
    made = {}

    def path(name, container):
        if container == "folder":
            return tiny_model(name)
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "model.gguf"
            supersonic("convert", tiny_model(name), made[name], "--type", "auto" if "mxfp4" in name else "f32")
        return made[name]

    return path


def estimated_error(ours, projections, norm):
    return np.sqrt(((recipe.projections(ours) - projections) ** 2).mean()) / norm


@pytest.mark.parametrize("name, container", [(n, c) for n in adapters.MIXTURES for c in ("folder", "gguf") if c == "folder" or n in IN_GGUF])
def test_loss_and_every_gradient_equal_peft(tool, stored, golden, tmp_path, name, container):
    data, arrays = golden(f"experts/{name}")
    adapters.write(tmp_path / "lora", adapters.of_mixture(name, RANK), RANK, ALPHA)
    sequences = json.dumps([s["ids"] for s in data["sequences"]])
    done = tool("gradient_probe", stored(name, container), tmp_path / "lora", tmp_path / "gradients", input=sequences)
    assert json.loads(done.stdout)["loss"] == pytest.approx(data["loss"], rel=1e-6)
    ours = {key.removeprefix("base_model.model."): value for key, value in adapter_of(tmp_path / "gradients").items()}
    layers = tiny_models.MODELS[name]["num_hidden_layers"]
    assert ours.keys() == set(data["names"]) and len(ours) == 8 * layers + 4 * len(adapters.expert_sizes(name)[2])
    for key, norm, projections in zip(data["names"], arrays["gradient_norm"], arrays["gradient_projections"]):
        assert norm > 0
        assert estimated_error(ours[key].reshape(-1).astype(np.float64), projections, norm) <= GRADIENTS, key


@pytest.mark.parametrize("name", IN_GGUF)
def test_adapters_convert_both_ways(supersonic, stored, tmp_path, name):
    """Bit for bit; GGUF has a stacked pair for each of gate, up and down, as its weights are."""
    lora, (experts, width, layers) = adapters.of_mixture(name, RANK), adapters.expert_sizes(name)
    adapters.write(tmp_path / "peft", lora, RANK, ALPHA)
    supersonic("convert", tmp_path / "peft", tmp_path / "a.gguf", "--base", stored(name, "folder"))
    supersonic("convert", tmp_path / "a.gguf", tmp_path / "back", "--base", stored(name, "folder"))
    got, want = adapter_of(tmp_path / "back"), adapter_of(tmp_path / "peft")
    assert got.keys() == want.keys() and all(np.array_equal(got[k], want[k]) for k in want)
    settings = config_of(tmp_path / "back")
    assert (settings["r"], settings["lora_alpha"], settings["rank_pattern"]) == (RANK, ALPHA, {})
    assert settings["target_parameters"] == adapters.EXPERT_PARAMETERS
    assert settings["target_modules"] == sorted(tiny_models.lora_modules(name))
    tensors = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
    alternating = tiny_models.MODELS[name]["model_type"] == "gpt_oss"
    for layer in layers:
        a, b = adapters.by_expert(*lora[f"model.layers.{layer}.mlp.experts.base_layer"], experts)
        gate, up = (b[:, k::2] if alternating else b[:, k * width : (k + 1) * width] for k in (0, 1))
        down = adapters.by_expert(*lora[f"model.layers.{layer}.mlp.experts"], experts)
        for matrix, pair in (("gate", (a, gate)), ("up", (a, up)), ("down", down)):
            for k in (0, 1):
                np.testing.assert_array_equal(tensors[f"blk.{layer}.ffn_{matrix}_exps.weight.lora_{'ab'[k]}"], pair[k])


def weights_with(name, deltas):
    """{name in a folder: fp32 weights}; deltas: {(layer, "gate_up" or "down"): (experts, out, in)}, gate's rows before up's."""
    tensors, alternating = tiny_models.tensors(name), tiny_models.MODELS[name]["model_type"] == "gpt_oss"
    for (layer, which), delta in deltas.items():
        if alternating:  # stored (experts, in, out); the deltas' rows are in the file's order already
            tensors[f"model.layers.{layer}.mlp.experts.{which}_proj"] += delta.swapaxes(1, 2)
            continue
        module, gate, up, down = SINGLE[tiny_models.MODELS[name]["model_type"]]
        for e, d in enumerate(delta):
            parts = {down: d} if which == "down" else dict(zip((gate, up), np.split(d, 2)))
            for part, change in parts.items():
                tensors[f"model.layers.{layer}.{module}.{e}.{part}.weight"] += change
    return tensors


def deltas_of(name, lora):
    experts, _, layers = adapters.expert_sizes(name)
    out = {}
    for layer in layers:
        for which, wrap in (("gate_up", ".base_layer"), ("down", "")):
            a, b = adapters.by_expert(*(m.astype(np.float64) for m in lora[f"model.layers.{layer}.mlp.experts{wrap}"]), experts)
            out[layer, which] = (ALPHA / RANK * (b @ a)).astype(np.float32)
    return out


def check_folder(path, want, changed):
    got = safetensors.numpy.load_file(path / "model.safetensors")
    assert got.keys() == want.keys()
    base = 0
    for key, values in want.items():
        if ".experts" in key:
            assert np.abs(got[key] - values).max() <= 1e-6, key
            base += 1
    assert base == changed


@pytest.mark.parametrize("name", adapters.MIXTURES)
def test_merged_experts_are_the_weights_plus_the_product(supersonic, stored, tmp_path, name):
    lora = {k: v for k, v in adapters.of_mixture(name, RANK).items() if ".experts" in k}
    experts, _, layers = adapters.expert_sizes(name)
    adapters.write(tmp_path / "lora", lora, RANK, ALPHA)
    made = supersonic("merge", stored(name, "folder"), "--adapter", tmp_path / "lora", "-o", tmp_path / "merged", "--type", "f32", json_output=True)
    assert made["verified"]["relative_error"] <= 1e-5  # through the grouped products and the adapter, against the merged weights
    alternating = name.startswith("gpt_oss")
    check_folder(tmp_path / "merged", weights_with(name, deltas_of(name, lora)), len(layers) * (4 if alternating else 3 * experts))
    if name in IN_GGUF:
        supersonic("merge", stored(name, "gguf"), "--adapter", tmp_path / "lora", "-o", tmp_path / "m.gguf", "--type", "f32")
        supersonic("convert", tmp_path / "m.gguf", tmp_path / "from_gguf", "--type", "f32")
        check_folder(tmp_path / "from_gguf", weights_with(name, deltas_of(name, lora)), len(layers) * (4 if alternating else 3 * experts))


def test_merging_keeps_no_blocks_of_mxfp4_beside_changed_experts(supersonic, stored, tmp_path):
    name = "gpt_oss_mxfp4"
    lora = {k: v for k, v in adapters.of_mixture(name, RANK).items() if k.endswith("experts")}  # down alone
    adapters.write(tmp_path / "lora", lora, RANK, ALPHA)
    settings = config_of(tmp_path / "lora")
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps({**settings, "target_parameters": ["mlp.experts.down_proj"]}))
    made = supersonic("merge", stored(name, "folder"), "--adapter", tmp_path / "lora", "-o", tmp_path / "merged", json_output=True)
    assert "quantization_config" not in config_json(tmp_path / "merged") and "mxfp4" not in made["types"]
    supersonic("convert", stored(name, "folder"), tmp_path / "m.gguf")
    made = supersonic("merge", tmp_path / "m.gguf", "--adapter", tmp_path / "lora", "-o", tmp_path / "merged.gguf", json_output=True)
    assert made["types"]["mxfp4"] == 4 and made["types"]["q8_0"] == 2


def config_json(path):
    return json.loads((path / "config.json").read_text())


def single_modules(name, shared):
    """An adapter of each expert's own linear layers; shared: gate and up have one A. And its deltas."""
    experts, width, layers = adapters.expert_sizes(name)
    hidden, (module, gate, up, down) = tiny_models.MODELS[name]["hidden_size"], SINGLE[name]
    lora, deltas = {}, {}
    for layer in layers:
        of = {}
        for part, rows, cols in ((gate, width, hidden), (up, width, hidden), (down, hidden, width)):
            for e in range(experts):
                stream = f"single {layer} {e} {gate if shared and part == up else part}"
                a, b = recipe.uniform(stream + " A", (RANK, cols), 2**-4), recipe.uniform(f"single {layer} {e} {part} B", (rows, RANK), 2**-4)
                lora[f"model.layers.{layer}.{module}.{e}.{part}"] = (a, b)
                of[part, e] = ALPHA / RANK * (b.astype(np.float64) @ a)
        deltas[layer, "gate_up"] = np.stack([np.concatenate([of[gate, e], of[up, e]]) for e in range(experts)]).astype(np.float32)
        deltas[layer, "down"] = np.stack([of[down, e] for e in range(experts)]).astype(np.float32)
    return lora, deltas


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", SINGLE)
def test_adapters_of_each_experts_layers_become_those_of_the_fused_matrices(supersonic, stored, tmp_path, name, shared):
    lora, deltas = single_modules(name, shared)
    experts, _, layers = adapters.expert_sizes(name)
    adapters.write(tmp_path / "lora", lora, RANK, ALPHA)
    supersonic("merge", stored(name, "folder"), "--adapter", tmp_path / "lora", "-o", tmp_path / "merged", "--type", "f32")
    check_folder(tmp_path / "merged", weights_with(name, deltas), 3 * experts * len(layers))
    supersonic("convert", tmp_path / "lora", tmp_path / "fused", "--base", stored(name, "folder"))
    settings, wide = config_of(tmp_path / "fused"), RANK if shared else 2 * RANK
    assert settings["target_modules"] == [] and settings["target_parameters"] == adapters.EXPERT_PARAMETERS
    assert (settings["r"], settings["lora_alpha"]) == (RANK, ALPHA)
    patterns = [] if shared else [(rf"^model\.layers\.{layer}\.mlp\.experts\.gate_up_proj", wide) for layer in layers]
    assert settings["rank_pattern"] == dict(patterns) and settings["alpha_pattern"] == {k: 2 * r for k, r in patterns}
    got = adapter_of(tmp_path / "fused")
    assert got["base_model.model.model.layers.0.mlp.experts.base_layer.lora_A.weight"].shape[0] == experts * wide
    supersonic("merge", stored(name, "folder"), "--adapter", tmp_path / "fused", "-o", tmp_path / "again", "--type", "f32")
    check_folder(tmp_path / "again", weights_with(name, deltas), 3 * experts * len(layers))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    rows = [{"messages": [{"role": "user", "content": f"what is {k} and {k + 1}"}, {"role": "assistant", "content": f"it is {2 * k + 1} in all"}]} for k in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(model, data, out, *options, code=0):
    common = ["--seq-len", "64", "--batch", "1", "--accum", "1", "--rank", "4", "--alpha", "8", "--lr", "5e-3", "--compute", "fp32", "--eval-split", "0",
              "--max-steps", "12", "--save-every", "6"]
    done = run_program("supersonic", "train", "-m", model, "-d", data, "-o", out, *common, *options, check=False)
    assert done.returncode == code, done.stderr[-3000:]
    return done


@pytest.mark.parametrize("name, targets, parameters, modules", [
    ("mixtral", "all-linear,experts", ["down_proj", "gate_up_proj"], ["k_proj", "o_proj", "q_proj", "v_proj"]),
    ("gpt_oss_mxfp4", "experts", ["down_proj", "gate_up_proj"], []),
    ("qwen3_moe_mixed", "q_proj,experts.down_proj", ["down_proj"], ["q_proj"]),
    ("qwen3_moe", "all-linear", [], ["k_proj", "o_proj", "q_proj", "v_proj"]),
])
def test_training_changes_what_is_targeted(stored, data, tmp_path, name, targets, parameters, modules):
    experts, width, layers = adapters.expert_sizes(name)
    train(stored(name, "folder"), data, tmp_path / "out", "--targets", targets)
    settings, made = config_of(tmp_path / "out"), adapter_of(tmp_path / "out")
    assert settings["target_modules"] == modules and settings.get("target_parameters", []) == [f"mlp.experts.{p}" for p in parameters]
    assert len(made) == 2 * (len(modules) * tiny_models.MODELS[name]["num_hidden_layers"] + len(parameters) * len(layers))
    assert all(np.abs(v).max() > 1e-4 for v in made.values())
    if parameters:
        down = made[f"base_model.model.model.layers.{layers[-1]}.mlp.experts.lora_A.weight"]
        assert down.shape == (experts * 4, width) and np.abs(down).max() <= (1 + 12 * 5e-3 * width**0.5) / width**0.5
    losses = [json.loads(line)["loss"] for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines() if "loss" in json.loads(line)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


@pytest.mark.parametrize("targets", ["experts", "q_proj,experts.down_proj", "all-linear"])
def test_fit_counts_the_targets(stored, data, tmp_path, supersonic, targets):
    train(stored("mixtral", "folder"), data, tmp_path / "out", "--targets", targets)
    values = sum(v.size for v in adapter_of(tmp_path / "out").values())
    rank = config_of(tmp_path / "out")["r"]
    plan = ["fit", stored("mixtral", "folder"), "--train", "--rank", rank, "--seq-len", 64, "--device", "cpu"]
    parts = supersonic(*plan, "--targets", targets, json_output=True)["parts"]
    assert parts["adapter"] == parts["gradients"] == 4 * values
    refused = supersonic(*plan, "--targets", "w1", check=False)
    assert refused.returncode == 2 and "all-linear" in refused.stderr
    both = supersonic(*plan, "--targets", targets, "--method", "full", check=False)
    assert both.returncode == 2 and "--method full" in both.stderr


def test_what_does_not_fit_is_refused_with_the_reason(stored, data, tmp_path, supersonic):
    name = "mixtral"
    refused = train(stored(name, "folder"), data, tmp_path / "out", "--targets", "q_proj,w1", code=2).stderr
    assert all(word in refused for word in ("'w1'", "all-linear", "experts.gate_up_proj", "experts.down_proj"))
    lora = adapters.of_mixture(name, RANK)
    key = "model.layers.0.mlp.experts"

    def load(words, change=None, settings=None, of=name):
        folder = tmp_path / "lora"
        shutil.rmtree(folder, ignore_errors=True)
        adapters.write(folder, {**lora, **(change or {})}, RANK, ALPHA)
        (folder / "adapter_config.json").write_text(json.dumps({**config_of(folder), **(settings or {})}))
        done = supersonic("merge", stored(of, "folder"), "--adapter", folder, "-o", tmp_path / "m.gguf", check=False)
        assert done.returncode == 5 and all(word in done.stderr for word in words), done.stderr
        assert not (tmp_path / "m.gguf").exists()

    a, b = lora[key]
    load(["experts.down_proj", "4 of 256 x 256", "another model"], of="gpt_oss")
    load(["experts", "this model has not"], of="qwen3")
    load(["gate.weight", "gate_up_proj and down_proj"], settings={"target_parameters": ["mlp.gate.weight"]})
    load(["base_layer", "wrapped 1 times"], settings={"target_parameters": ["mlp.experts.down_proj"]})
    load(["not whole experts of rank 8"], {key: (a[:-1], np.ascontiguousarray(b[:, :-1]))})
    load([f"'{key}.down_proj' adapts 3 matrices", "the model has 4"], {key: (a[:24], np.ascontiguousarray(b[:, :24]))})
    load(["has rank 32", "adapter_config.json says 8"], settings={"target_parameters": None})
    single, _ = single_modules(name, False)
    module = "model.layers.0.block_sparse_moe.experts.1.w1"
    adapters.write(tmp_path / "single", {**single, module: tuple(np.ascontiguousarray(m) for m in (single[module][0][:4], single[module][1][:, :4]))}, RANK, ALPHA)
    (tmp_path / "single" / "adapter_config.json").write_text(json.dumps({**config_of(tmp_path / "single"), "rank_pattern": {r".*\.0\..*experts\.1\.w1": 4}}))
    done = supersonic("merge", stored(name, "folder"), "--adapter", tmp_path / "single", "-o", tmp_path / "m.gguf", check=False)
    assert done.returncode == 5 and "experts.1.w1" in done.stderr and "another rank" in done.stderr, done.stderr
