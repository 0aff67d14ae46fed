"""gpt-oss folders whose experts are MXFP4 blocks and scales: both containers keep the published bytes, other types decode them, and what
does not fit is refused. Logits and gradients against transformers' own conversion: gpt_oss_mxfp4 in test_tiny_models.py."""

import json
import shutil

import gguf
import numpy as np
import pytest
import safetensors.numpy

import recipe
import tiny_models
from conftest import run_program

NAME = "gpt_oss_mxfp4"
METHOD = tiny_models.MODELS[NAME]["quantization_config"]


def stored(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("through_gguf", [False, True])
def test_blocks_and_scales_come_back_byte_for_byte(supersonic, tiny_model, tmp_path, through_gguf):
    source = tiny_model(NAME)
    if through_gguf:
        supersonic("convert", source, tmp_path / "m.gguf")
        source = tmp_path / "m.gguf"
    made = supersonic("convert", source, tmp_path / "back", json_output=True)
    want, got = stored(tiny_model(NAME)), stored(tmp_path / "back")
    assert sum(key.endswith(("_blocks", "_scales")) for key in want) == 8 == made["types"]["mxfp4"]
    assert want.keys() == got.keys() and all(want[k].dtype == got[k].dtype and np.array_equal(want[k], got[k]) for k in want)
    assert config_of(tmp_path / "back")["quantization_config"] == METHOD
    assert made["verified"]["relative_error"] == 0


def test_a_gguf_file_has_the_same_numbers_in_its_own_order(supersonic, tiny_model, tmp_path):
    supersonic("convert", tiny_model(NAME), tmp_path / "m.gguf")
    truth, seen = tiny_models.tensors(NAME), 0
    for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors:
        matrix = next((m for m in ("gate", "up", "down") if f".ffn_{m}_exps.weight" in t.name), None)
        if not matrix:
            continue
        assert t.tensor_type == gguf.GGMLQuantizationType.MXFP4
        values = gguf.quants.dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)])
        whole = truth[f"model.layers.{t.name.split('.')[1]}.mlp.experts.{'down' if matrix == 'down' else 'gate_up'}_proj"]
        part = {"gate": np.s_[..., 0::2], "up": np.s_[..., 1::2], "down": np.s_[...]}[matrix]
        np.testing.assert_array_equal(values, whole[part].swapaxes(1, 2), err_msg=t.name)
        seen += 1
    assert seen == 6


def test_another_type_decodes_them(supersonic, tiny_model, tmp_path):
    supersonic("convert", tiny_model(NAME), tmp_path / "half", "--type", "bf16")
    assert "quantization_config" not in config_of(tmp_path / "half")
    truth = tiny_models.tensors(NAME)
    entries = dict(safetensors.deserialize((tmp_path / "half" / "model.safetensors").read_bytes()))
    for key in tiny_models.packed_names(NAME):  # two bits of a number and a power of two fit into bf16
        assert entries[key]["dtype"] == "BF16"
        values = tiny_models._from_bf16(np.frombuffer(entries[key]["data"], "<u2").reshape(entries[key]["shape"]))
        np.testing.assert_array_equal(values, truth[key])
    assert not [key for key in entries if key.endswith(("_blocks", "_scales"))]


def damaged(tiny_model, tmp_path, change):
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_model(NAME), folder)
    tensors = stored(folder)
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


KEY = "model.layers.1.mlp.experts.down_proj"
DAMAGE = {
    "without scales": (lambda t: t.pop(KEY + "_scales"), ["lacks", KEY + "_scales"]),
    "without blocks": (lambda t: t.pop(KEY + "_blocks"), ["lacks", KEY + "_blocks"]),
    "blocks of another shape": (lambda t: t.update({KEY + "_blocks": t[KEY + "_blocks"][:, :, :7]}), [KEY + "_blocks", "(4, 256, 7, 16)", "(4, 256, 8, 16)"]),
    "scales of another shape": (lambda t: t.update({KEY + "_scales": t[KEY + "_scales"][:3]}), [KEY + "_scales", "(3, 256, 8)", "(4, 256, 8)"]),
    "blocks of rank 3": (lambda t: t.update({KEY + "_blocks": t[KEY + "_blocks"].reshape(4, 256, 128)}), [KEY + "_blocks", "(4, 256, 128)"]),
    "signed blocks": (lambda t: t.update({KEY + "_blocks": t[KEY + "_blocks"].view(np.int8)}), [KEY + "_blocks", "i8", "u8"]),
    "a scale that is no number": (lambda t: t[KEY + "_scales"].__setitem__((2, 7, 3), 255), [KEY + "_scales", "255", "damaged"]),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_does_not_fit_is_refused_by_name(tiny_model, tmp_path, case):
    change, words = DAMAGE[case]
    folder = damaged(tiny_model, tmp_path, change)
    done = run_program("supersonic", "run", folder, "x", "-n", 1, check=False)
    assert done.returncode == 5, done.stderr
    for word in (str(folder), *words):
        assert word in done.stderr, (word, done.stderr)


def test_other_methods_and_other_architectures_are_refused(tiny_model, tmp_path):
    for name, method in ((NAME, "gptq"), ("llama3", "mxfp4")):
        folder = tmp_path / name
        shutil.copytree(tiny_model(name), folder)
        (folder / "config.json").write_text(json.dumps(config_of(folder) | {"quantization_config": {"quant_method": method}}))
        done = run_program("supersonic", "run", folder, "x", "-n", 1, check=False)
        assert done.returncode == 5 and f"quantized with {method}" in done.stderr, done.stderr


@pytest.mark.live
def test_transformers_loads_the_blocks_that_we_write(supersonic, tiny_model, tmp_path, golden):
    import torch
    import transformers

    supersonic("convert", tiny_model(NAME), tmp_path / "m.gguf")
    supersonic("convert", tmp_path / "m.gguf", tmp_path / "back")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back", dtype=torch.float32, attn_implementation="eager").eval()
    data, arrays = golden(f"tiny/{NAME}")
    for k, row in enumerate(data["sequences"]):
        with torch.no_grad():
            logits = model(torch.tensor([row["ids"]])).logits[0].double().numpy()
        difference = recipe.projections(logits) - arrays[f"{k}/projections"]
        assert np.sqrt((difference**2).mean(-1).sum()) <= 1e-5 * np.linalg.norm(arrays[f"{k}/norm"])
