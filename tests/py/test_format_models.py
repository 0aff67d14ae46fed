"""A model of every weight format of GGUF runs and trains: its logits and LoRA gradients are those of the same model with the weights that
gguf-py decodes, stored as f32. Blocks are random bytes with scales of a trained model's size, since nobody encodes some of the formats."""

import json

import gguf
import numpy as np
import pytest
import safetensors.numpy

import adapters
import recipe
import tiny_models

MODEL = "llama2"
LINEARS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
# 16-bit scales: how many, and where they lie in a block (the others have 8-bit ones).
SCALES = {"Q2_K": [80, 82], "Q3_K": [108], "Q6_K": [208], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [], "NVFP4": [], "IQ1_M": [],
          "Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2]}  # fmt: skip
TYPES = [q for q in gguf.GGMLQuantizationType if q in gguf.quants._type_traits and q.name != "BF16"]
TOLERANCE = 2e-5  # fp32 sums of the same numbers in another order, twice


def random_blocks(rng, kind, rows, cols):
    """Any bytes, and scales for which the weights come to about an eighth."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (rows, cols // block, size), dtype=np.uint8)
    if kind.name == "MXFP4":
        data[..., 0] = rng.integers(120, 123, data.shape[:2])
    if kind.name == "NVFP4":
        data[..., :4] = rng.integers(20, 36, (*data.shape[:2], 4))
    if kind.name == "IQ1_M":
        data[..., 49::2] &= 15
        data[..., 55] |= 0x20
    largest = np.abs(gguf.dequantize(with_scales(data, SCALES.get(kind.name, [0]), 1), kind)).max()
    return with_scales(data, SCALES.get(kind.name, [0]), 0.125 / largest).reshape(rows, -1)


def with_scales(data, places, scale):
    for k, at in enumerate(places):
        value = np.float16(scale if k == 0 else scale / 2)
        data[..., at : at + 2] = np.frombuffer(value.tobytes(), np.uint8)
    return data


def write(path, source, matrices, more=None):
    """The GGUF file `source` with other matrices, {name: (array, type)}, and more tensors."""
    reader = gguf.GGUFReader(source)
    w = gguf.GGUFWriter(path, "llama")
    for name, f in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            w.add_key_value(name, f.contents(), f.types[0], f.types[-1] if len(f.types) > 1 else None)
    for t in reader.tensors:
        data, kind = matrices.get(t.name, (t.data, t.tensor_type))
        w.add_tensor(t.name, data, raw_dtype=kind)
    for name, data in (more or {}).items():
        w.add_tensor(name, data)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


@pytest.fixture(scope="module")
def base(supersonic, tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "base.gguf"
    supersonic("convert", tiny_model(MODEL), path, "--type", "f32")
    return path


@pytest.mark.parametrize("kind", TYPES, ids=lambda q: q.name.lower())
def test_a_model_of_this_type_runs_and_trains_as_its_decoded_weights_do(tool, base, tmp_path, kind):
    rng = np.random.default_rng(kind.value)
    names = {t.name: [int(n) for n in reversed(t.shape)] for t in gguf.GGUFReader(base).tensors}
    blocks = {n: (random_blocks(rng, kind, *s), kind) for n, s in names.items() if len(s) == 2}
    assert len(blocks) == 2 * len(LINEARS) + 2  # the embedding and the output layer, too
    decoded = {n: (gguf.dequantize(data, kind), gguf.GGMLQuantizationType.F32) for n, (data, _) in blocks.items()}
    write(tmp_path / "quantized.gguf", base, blocks), write(tmp_path / "decoded.gguf", base, decoded)
    ids = [[int(x) for x in recipe.uniform("formats", (40,), 1) * 200 + 256], [5, 77, 400, 3, 3, 91]]
    adapters.write(tmp_path / "lora", adapters.of_tiny(MODEL, 8), 8, 16)
    results = []
    for name in ("quantized", "decoded"):
        done = tool("logits_probe", tmp_path / f"{name}.gguf", "fp32", "--out", tmp_path, input=json.dumps(ids[0]) + "\n")
        logits = np.fromfile(json.loads(done.stdout)["all"], "<f4")
        out = tmp_path / f"{name}_gradients"
        loss = json.loads(tool("gradient_probe", tmp_path / f"{name}.gguf", tmp_path / "lora", out, input=json.dumps(ids)).stdout)["loss"]
        results.append((logits, loss, safetensors.numpy.load_file(out / "adapter_model.safetensors")))
    (logits, loss, gradients), (wanted, wanted_loss, wanted_gradients) = results
    assert np.isfinite(logits).all() and logits.std() > 0.01
    assert np.linalg.norm(logits - wanted) <= TOLERANCE * np.linalg.norm(wanted)
    assert loss == pytest.approx(wanted_loss, rel=1e-5)
    assert len(gradients) == 28
    for key, values in wanted_gradients.items():
        assert np.linalg.norm(values) > 0, key
        assert np.linalg.norm(gradients[key] - values) <= 10 * TOLERANCE * np.linalg.norm(values), key


@pytest.mark.parametrize("kind", ["float64", "int8", "int32", "int64"])
def test_numbers_that_are_no_weights_are_refused_by_name(supersonic, base, tmp_path, kind):
    tensors = {t.name: t.data for t in gguf.GGUFReader(base).tensors}
    for name in ("blk.0.ffn_up.weight", "blk.0.attn_norm.weight"):
        write(tmp_path / "m.gguf", base, {name: (tensors[name].astype(kind), None)})
        done = supersonic("run", tmp_path / "m.gguf", "x", "-n", 1, "--raw", check=False)
        if kind == "float64" and "norm" in name:
            assert done.returncode == 0
        else:
            assert done.returncode == 5 and {"float64": "f64", "int8": "i8", "int32": "i32", "int64": "i64"}[kind] in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["blk.1.ffn_up.scale", "blk.0.attn_q.input_scale"])
def test_a_scale_beside_a_matrix_is_not_overlooked(supersonic, base, tmp_path, name):
    write(tmp_path / "m.gguf", base, {}, {name: np.array([0.5], np.float32)})
    refused = supersonic("run", tmp_path / "m.gguf", "x", check=False)
    assert refused.returncode == 5 and name in refused.stderr and "does not apply" in refused.stderr
