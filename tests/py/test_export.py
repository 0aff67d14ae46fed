"""What convert and merge write, read with the packages of others: gguf, safetensors, tokenizers. Expected values are made with
numpy from the recipe's weights; nothing is compared with Supersonic alone except where a round trip must return the same bytes.
The heavy readers (transformers, peft, llama.cpp) are in test_export_live.py."""

import json
import shutil
import signal
import subprocess
import time

import gguf
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import tokenizers
from gguf import GGMLQuantizationType as Q

import adapters
import tiny_models
from conftest import run_program
from places import BIN

MODELS = ("llama3", "llama_tied", "mistral", "qwen2")
TYPES = ("f32", "f16", "bf16", "q8_0", "q6_k", "q5_k", "q5_1", "q5_0", "q4_k", "q4_1", "q4_0", "iq4_nl", "iq4_xs", "q3_k", "q2_k", "q2_k_s")
MODULES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
           "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
           "ffn_norm": "post_attention_layernorm", "token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def hf_name(name):
    base, part = name.rsplit(".", 1)
    if not base.startswith("blk."):
        return f"{MODULES[base]}.{part}"
    _, layer, rest = base.split(".")
    return f"model.layers.{layer}.{MODULES[rest]}.{part}"


def interleave(config, name, rows):
    """Hugging Face's order of q and k rows -> that of a GGUF file of architecture llama (reshape, as its converter does)."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if not heads or config["model_type"] == "qwen2":
        return rows
    n = config[heads]
    return rows.reshape(n, 2, rows.shape[0] // n // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def read_gguf(path):
    """{name: fp32 array} by the gguf package, {name: type}, and the reader."""
    reader = gguf.GGUFReader(path)
    data = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).reshape([int(n) for n in reversed(t.shape)]) for t in reader.tensors}
    return data, {t.name: t.tensor_type for t in reader.tensors}, reader


def read_folder(folder):
    """{name: fp32 array} by the safetensors package; every tensor is in one shard alone."""
    out = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, entry in safetensors.deserialize(file.read_bytes()):
            assert name not in out
            data = np.frombuffer(entry["data"], {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[entry["dtype"]]).reshape(entry["shape"])
            out[name] = tiny_models._from_bf16(data) if entry["dtype"] == "BF16" else data.astype(np.float32)
    return out


def field(reader, key):
    return reader.fields[key].contents()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", TYPES)
def test_gguf_reads_our_file_and_decodes_what_we_decode(supersonic, tiny_model, tmp_path, name, kind):
    source, file, back = tiny_model(name), tmp_path / "m.gguf", tmp_path / "back"
    made = supersonic("convert", source, file, "--type", kind, json_output=True)
    assert made["verified"]["relative_error"] <= made["verified"]["tolerance"]
    data, types, reader = read_gguf(file)
    truth, config = tiny_models.tensors(name), tiny_models.MODELS[name]
    assert {hf_name(n) for n in data if n != "rope_freqs.weight"} == set(truth)
    supersonic("convert", file, back, "--type", "f32")
    ours = read_folder(back)
    step = {"f32": 0, "f16": 2**-11, "bf16": 2**-8, "q8_0": 1 / 127, "q6_k": 1 / 31, "q5_1": 1 / 15, "q5_0": 1 / 15, "q4_k": 1 / 7, "q4_1": 1 / 7, "q4_0": 1 / 7,
            "q5_k": 1 / 15, "iq4_nl": 1 / 7, "iq4_xs": 1 / 6, "q3_k": 1 / 3, "q2_k": 1 / 1.5}
    for n, values in data.items():
        if n == "rope_freqs.weight":
            continue
        wanted = interleave(config, hf_name(n), truth[hf_name(n)])
        np.testing.assert_array_equal(interleave(config, hf_name(n), ours[hf_name(n)]), values, err_msg=n)
        limit = 0 if types[n] == Q.F32 else step[types[n].name.lower()] * np.abs(wanted).max()
        assert np.abs(values - wanted).max() <= limit, n
        if wanted.ndim == 1:
            assert types[n] == Q.F32, n
        elif types[n] in (Q.Q8_0, Q.Q5_1, Q.Q5_0, Q.Q4_0, Q.Q4_1, Q.F16, Q.BF16):  # what the package can encode by itself
            stored = next(t.data for t in reader.tensors if t.name == n)
            np.testing.assert_array_equal(stored.view(np.uint8).ravel(), gguf.quants.quantize(wanted, types[n]).view(np.uint8).ravel(), err_msg=n)


def test_types_follow_llama_quantize(supersonic, tiny_model, tmp_path):
    """The output layer is richer; q4_k is the mixture Q4_K_M. The rules layer by layer: tests/models/quant_mix_test.cpp; and against
    llama-quantize itself: test_export_live.py."""
    for kind, number, output, ordinary in [("q4_0", 2, Q.Q6_K, Q.Q4_0), ("q8_0", 7, Q.Q8_0, Q.Q8_0), ("q4_k", 15, Q.Q6_K, Q.Q4_K), ("q4_k_s", 14, Q.Q6_K, Q.Q4_K),
                                           ("iq4_xs", 30, Q.Q6_K, Q.IQ4_XS), ("q3_k_l", 13, Q.Q6_K, Q.Q3_K), ("bf16", 32, Q.BF16, Q.BF16)]:
        for name in ("llama3", "qwen2"):
            supersonic("convert", tiny_model(name), tmp_path / "m.gguf", "--type", kind, "--force", "--no-verify")
            _, types, reader = read_gguf(tmp_path / "m.gguf")
            tied = tiny_models.MODELS[name]["tie_word_embeddings"]
            assert ("output.weight" in types) != tied
            assert types["token_embd.weight" if tied else "output.weight"] == output
            assert types["blk.0.attn_q.weight"] == ordinary and field(reader, "general.file_type") == number
            assert ("general.quantization_version" in reader.fields) == (kind != "bf16")


def test_experts_become_mxfp4_and_the_others_q8_0(supersonic, tiny_model, tmp_path):
    """The mixture MXFP4_MOE, by its own name and by that of the format; a model without experts is q8_0."""
    for name, kind, experts in (("mixtral", "mxfp4", 6), ("qwen3_moe", "mxfp4_moe", 6), ("llama3", "mxfp4", 0)):
        supersonic("convert", tiny_model(name), tmp_path / "m.gguf", "--type", kind, "--force")
        data, types, reader = read_gguf(tmp_path / "m.gguf")
        assert field(reader, "general.file_type") == 38
        found = [n for n, t in types.items() if t == Q.MXFP4]
        assert len(found) == experts and all("_exps.weight" in n for n in found)
        assert {t for n, t in types.items() if n not in found} == {Q.Q8_0, Q.F32}
        for n in found:
            stored = next(t.data for t in reader.tensors if t.name == n)
            assert data[n].any() and np.array_equal(gguf.quants.quantize(data[n], Q.MXFP4).ravel(), stored.ravel())  # as the package has it


@pytest.mark.parametrize("kind, number", [("tq1_0", 36), ("tq2_0", 37)])
def test_ternary_weights_stay_what_they_are(supersonic, tiny_model, tmp_path, kind, number):
    """Matrices of -d, 0 and d, as ternary models have them; embedding and output layer get more bits."""
    source = tmp_path / "source"
    shutil.copytree(tiny_model("llama3"), source)
    tensors = safetensors.numpy.load_file(source / "model.safetensors")
    for name, values in tensors.items():
        if name.endswith("proj.weight"):
            tensors[name] = (np.sign(values) * (np.abs(values) > 1 / 24) / 16).astype(np.float32)
    safetensors.numpy.save_file(tensors, source / "model.safetensors", {"format": "pt"})
    supersonic("convert", source, tmp_path / "m.gguf", "--type", kind)
    data, types, reader = read_gguf(tmp_path / "m.gguf")
    assert field(reader, "general.file_type") == number and types["output.weight"] == Q.Q6_K and types["token_embd.weight"] == Q.Q4_K
    for n, values in data.items():
        if hf_name(n).endswith("proj.weight") if n != "rope_freqs.weight" else False:
            assert types[n] == Q[kind.upper()]
            np.testing.assert_array_equal(values, interleave(tiny_models.MODELS["llama3"], hf_name(n), tensors[hf_name(n)]), err_msg=n)


@pytest.mark.parametrize("name", MODELS)
def test_round_trip_through_gguf_returns_every_bit(supersonic, tiny_model, tmp_path, name):
    source = tiny_model(name)
    supersonic("convert", source, tmp_path / "m.gguf")
    supersonic("convert", tmp_path / "m.gguf", tmp_path / "back")
    want, got = read_folder(source), read_folder(tmp_path / "back")
    assert want.keys() == got.keys()
    for key in want:
        np.testing.assert_array_equal(want[key], got[key], err_msg=key)
    before, after = (json.loads((f / "config.json").read_text()) for f in (source, tmp_path / "back"))
    for key in ("hidden_size", "num_key_value_heads", "vocab_size", "rms_norm_eps", "rope_theta", "tie_word_embeddings", "torch_dtype"):
        assert before[key] == after[key], key
    scaling = before.get("rope_scaling") or {}
    assert scaling.items() <= (after["rope_scaling"] or {}).items()
    first, second = (tokenizers.Tokenizer.from_file(str(f / "tokenizer.json")) for f in (source, tmp_path / "back"))
    for text in ("the quick brown fox, 42 times", "<s>user\nhi</s>", "Grüße 世界 \U0001f600\n\n  x"):
        assert first.encode(text).ids == second.encode(text).ids
    assert json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())["chat_template"] == tiny_models.CHAT_TEMPLATE
    assert json.loads((tmp_path / "back" / "generation_config.json").read_text())["bos_token_id"] == 0


@pytest.mark.parametrize("name", tiny_models.MODELS)
def test_a_written_folder_has_every_tensor_and_field(supersonic, tiny_model, tmp_path, name):
    """Through a GGUF file where one can say all of it; else from the folder itself, with another type asked for."""
    source, config = tiny_model(name), tiny_models.MODELS[name]
    if name in tiny_models.FOLDERS_ONLY:
        done = run_program("supersonic", "convert", source, tmp_path / "m.gguf", check=False)
        assert done.returncode == 1 and "save as a folder" in done.stderr
        supersonic("convert", source, tmp_path / "back", "--type", "f32")
    else:
        supersonic("convert", source, tmp_path / "m.gguf", "--type", "f32")
        supersonic("convert", tmp_path / "m.gguf", tmp_path / "back", "--type", "f32")
    want, got = tiny_models.tensors(name), read_folder(tmp_path / "back")
    assert want.keys() == got.keys()
    # Gemma's norms come back through the sum with 1.
    rounding = 2**-24 if config["model_type"].startswith("gemma") else 0
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol=0, atol=rounding if "norm" in key else 0, err_msg=key)
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    unsaid = {"torch_dtype", "quantization_config", "initializer_range", "pad_token_id", "output_router_logits", "no_rope_layer_interval", "max_window_layers", "rope_scaling"}
    if name == "mistral":  # without a window it is a Llama, and a GGUF file says just that
        unsaid |= {"architectures", "model_type", "sliding_window"}
    for key, value in config.items():
        if key in unsaid or key == "sliding_window" and not config.get("use_sliding_window", True):
            continue
        close = pytest.approx(value, rel=1e-7) if isinstance(value, float) else value
        assert written[key] == close, key
    scaling = {"rope_type" if k == "type" else k: v for k, v in (config.get("rope_scaling") or {}).items()}
    assert scaling.items() <= (written.get("rope_scaling") or {}).items()


def test_a_gguf_file_converted_to_its_own_types_keeps_tensors_and_metadata(supersonic, tiny_model, tmp_path):
    first, second = tmp_path / "a.gguf", tmp_path / "b.gguf"
    supersonic("convert", tiny_model("llama3"), first, "--type", "q4_k")
    made = supersonic("convert", first, second, json_output=True)
    assert made["copied"] == made["tensors"] and made["verified"]["relative_error"] == 0
    a, b = gguf.GGUFReader(first), gguf.GGUFReader(second)
    assert {t.name: (t.tensor_type, t.data.tobytes()) for t in a.tensors} == {t.name: (t.tensor_type, t.data.tobytes()) for t in b.tensors}
    keys = [k for k in a.fields if not k.startswith("GGUF.")]
    assert set(keys) == {k for k in b.fields if not k.startswith("GGUF.")}
    for key in keys:
        assert field(a, key) == field(b, key), key


def test_llama3_scaling_is_a_tensor_of_divisors(supersonic, tiny_model, tmp_path):
    supersonic("convert", tiny_model("llama3"), tmp_path / "m.gguf")
    data, _, _ = read_gguf(tmp_path / "m.gguf")
    c = tiny_models.MODELS["llama3"]
    s, dim = c["rope_scaling"], c["hidden_size"] // c["num_attention_heads"]
    freq = c["rope_theta"] ** -(np.arange(0, dim, 2) / dim)
    wavelength, original = 2 * np.pi / freq, s["original_max_position_embeddings"]
    smooth = (original / wavelength - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
    middle = 1 / ((1 - smooth) / s["factor"] + smooth)
    wanted = np.where(wavelength < original / s["high_freq_factor"], 1, np.where(wavelength > original / s["low_freq_factor"], s["factor"], middle))
    np.testing.assert_allclose(data["rope_freqs.weight"], wanted, rtol=2e-6)


def test_large_folders_are_split_and_indexed(supersonic, tiny_model, tmp_path):
    supersonic("convert", tiny_model("mistral"), tmp_path / "m", "--shard-size", "1MiB")
    files = sorted((tmp_path / "m").glob("model-*.safetensors"))
    assert len(files) > 3 and all(f.stat().st_size < (1 << 20) + 8192 for f in files)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    want, got = tiny_models.tensors("mistral"), read_folder(tmp_path / "m")
    assert set(index["weight_map"]) == set(want) and index["metadata"]["total_size"] == sum(v.nbytes for v in want.values())
    for key in want:
        np.testing.assert_array_equal(want[key], got[key])
        with safetensors.safe_open(tmp_path / "m" / index["weight_map"][key], "np") as shard:
            assert key in shard.keys()


def test_large_gguf_models_are_split_as_gguf_split_does(supersonic, tiny_model, tmp_path):
    """The parts, read by gguf-py, hold the tensors of the whole file; any of them opens the model; a missing one is named."""
    source = tiny_model("llama3")
    supersonic("convert", source, tmp_path / "whole.gguf", "--type", "q8_0")
    made = supersonic("convert", source, tmp_path / "m.gguf", "--type", "q8_0", "--shard-size", "256KiB", json_output=True)
    parts = sorted(tmp_path.glob("m-*.gguf"))
    n = len(parts)
    assert n > 3 and made["files"] == n and made["output"] == str(parts[0]) and made["verified"]["relative_error"] <= made["verified"]["tolerance"]
    assert [p.name for p in parts] == [f"m-{i + 1:05}-of-{n:05}.gguf" for i in range(n)]
    whole = gguf.GGUFReader(tmp_path / "whole.gguf")
    found = []
    for i, part in enumerate(map(gguf.GGUFReader, parts)):
        assert (field(part, "split.no"), field(part, "split.count"), field(part, "split.tensors.count")) == (i, n, len(whole.tensors))
        assert [part.fields[k].types[-1].name for k in ("split.no", "split.count", "split.tensors.count")] == ["UINT16", "UINT16", "INT32"]
        assert sum(t.n_bytes for t in part.tensors) <= 256 * 1024 or len(part.tensors) == 1
        keys = {k for k in part.fields if not k.startswith(("GGUF.", "split."))}
        assert keys == ({k for k in whole.fields if not k.startswith("GGUF.")} if i == 0 else set())
        found += [(t.name, t.tensor_type, t.data.tobytes()) for t in part.tensors]
    assert found == [(t.name, t.tensor_type, t.data.tobytes()) for t in whole.tensors]
    for part in (parts[0], parts[-1]):
        supersonic("convert", part, tmp_path / "joined.gguf", "--force")
        assert (tmp_path / "joined.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    again = supersonic("convert", source, tmp_path / "m.gguf", "--type", "q8_0", "--shard-size", "256KiB", check=False)
    assert again.returncode == 2 and "exists already" in again.stderr
    parts[2].unlink()
    missing = supersonic("show", parts[0], check=False)
    assert missing.returncode == 5 and f"{parts[2]}: is missing" in missing.stderr


def test_metadata_that_nobody_knows_is_kept(supersonic, tiny_model, tmp_path):
    """Keys of newer converters and of users, of every type, come through a conversion; what described the old types does not."""
    supersonic("convert", tiny_model("qwen2"), tmp_path / "a.gguf")
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    w = gguf.GGUFWriter(tmp_path / "b.gguf", "qwen2")
    for name, f in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            w.add_key_value(name, f.contents(), f.types[0], f.types[-1] if len(f.types) > 1 else None)
    own = {"general.size_label": "tiny", "general.tags": ["a", "b"], "general.license": "apache-2.0", "general.quantized_by": "somebody",
           "general.base_model.count": 1, "general.base_model.0.name": "Base", "general.sampling.temp": 0.5, "qwen2.some_future_key": 7,
           "tokenizer.ggml.some_flag": True, "quantize.imatrix.file": "x.dat", "my.ints": [1, -2, 3]}
    for key, value in own.items():
        kind = gguf.GGUFValueType.get_type(value)
        w.add_key_value(key, value, kind, gguf.GGUFValueType.get_type(value[0]) if isinstance(value, list) else None)
    for t in reader.tensors:
        w.add_tensor(t.name, t.data)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    supersonic("convert", tmp_path / "b.gguf", tmp_path / "c.gguf", "--type", "q5_k")
    before, after = gguf.GGUFReader(tmp_path / "b.gguf"), gguf.GGUFReader(tmp_path / "c.gguf")
    for key, value in own.items():
        if key.startswith("quantize."):
            assert key not in after.fields  # of the source's types, not of these
        else:
            assert field(after, key) == field(before, key) and after.fields[key].types == before.fields[key].types, key
    assert field(after, "general.file_type") == 17


def test_a_folder_is_copied_with_all_that_belongs_to_it(supersonic, tiny_model, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(tiny_model("llama_tied", 2), source)
    (source / "chat_template.jinja").write_text("{{ messages[0].content }}")
    config = json.loads((source / "config.json").read_text()) | {"own_key": [1, 2]}
    (source / "config.json").write_text(json.dumps(config))
    supersonic("convert", source, tmp_path / "same")
    assert json.loads((tmp_path / "same" / "config.json").read_text()) == config
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        assert (source / name).read_bytes() == (tmp_path / "same" / name).read_bytes()
    with safetensors.safe_open(tmp_path / "same" / "model.safetensors", "np") as f:
        assert f.metadata() == {"format": "pt"} and "lm_head.weight" not in f.keys()
    want, got = read_folder(source), read_folder(tmp_path / "same")
    assert all(np.array_equal(want[k], got[k]) for k in want)
    supersonic("convert", source, tmp_path / "half", "--type", "f16")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "float16"
    assert all(np.array_equal(want[k].astype(np.float16), v) for k, v in read_folder(tmp_path / "half").items())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("through_gguf", [False, True])
def test_merging_adds_the_scaled_product(supersonic, tiny_model, tmp_path, name, through_gguf):
    source, config = tiny_model(name), tiny_models.MODELS[name]
    adapters.write(tmp_path / "lora", adapters.of_tiny(name, 8), 8, 16)
    base = source
    if through_gguf:
        base = tmp_path / "base.gguf"
        supersonic("convert", source, base, "--type", "f32")
    supersonic("merge", base, "--adapter", tmp_path / "lora", "-o", tmp_path / "merged", "--type", "f32")
    got, want, lora = read_folder(tmp_path / "merged"), tiny_models.tensors(name), adapters.of_tiny(name, 8)
    for key, values in want.items():
        module = key.removesuffix(".weight")
        if module not in lora:
            np.testing.assert_array_equal(got[key], values, err_msg=key)
            continue
        a, b = lora[module]
        exact = values.astype(np.float64) + 16 / 8 * (b.astype(np.float64) @ a.astype(np.float64))
        np.testing.assert_allclose(got[key], exact, rtol=0, atol=4e-7 * np.abs(exact).max(), err_msg=key)
    supersonic("merge", base, "--adapter", tmp_path / "lora", "-o", tmp_path / "merged.gguf", "--type", "f32")
    data, _, _ = read_gguf(tmp_path / "merged.gguf")
    for n, values in data.items():
        if n != "rope_freqs.weight":
            np.testing.assert_array_equal(values, interleave(config, hf_name(n), got[hf_name(n)]), err_msg=n)


def test_merging_into_a_quantized_file_copies_what_the_adapter_leaves(supersonic, tiny_model, tmp_path):
    supersonic("convert", tiny_model("llama3"), tmp_path / "base.gguf", "--type", "q4_0")
    lora = {k: v for k, v in adapters.of_tiny("llama3", 4).items() if k.endswith("q_proj")}
    adapters.write(tmp_path / "lora", lora, 4, 8)
    made = supersonic("merge", tmp_path / "base.gguf", "--adapter", tmp_path / "lora", "-o", tmp_path / "m.gguf", json_output=True)
    before, after = gguf.GGUFReader(tmp_path / "base.gguf"), gguf.GGUFReader(tmp_path / "m.gguf")
    old = {t.name: t for t in before.tensors}
    for t in after.tensors:
        if t.name.endswith("attn_q.weight"):
            assert t.tensor_type == Q.Q8_0
        else:
            assert t.tensor_type == old[t.name].tensor_type and t.data.tobytes() == old[t.name].data.tobytes()
    assert made["copied"] == made["tensors"] - 2


@pytest.mark.parametrize("name", MODELS)
def test_adapters_convert_both_ways(supersonic, tiny_model, tmp_path, name):
    lora, config = adapters.of_tiny(name, 8), tiny_models.MODELS[name]
    adapters.write(tmp_path / "peft", lora, 8, 16)
    supersonic("convert", tmp_path / "peft", tmp_path / "a.gguf", "--base", tiny_model(name))
    reader = gguf.GGUFReader(tmp_path / "a.gguf")
    assert field(reader, "general.type") == "adapter" and field(reader, "adapter.type") == "lora" and field(reader, "adapter.lora.alpha") == 16
    assert field(reader, "general.architecture") == ("qwen2" if name == "qwen2" else "llama")
    data = {t.name: np.array(t.data).reshape([int(n) for n in reversed(t.shape)]) for t in reader.tensors}
    assert len(data) == 2 * len(lora)
    for module, (a, b) in lora.items():
        stem = next(n for n in data if n.endswith("lora_a") and hf_name(n.removesuffix(".lora_a")) == module + ".weight").removesuffix("a")
        np.testing.assert_array_equal(data[stem + "a"], a)
        np.testing.assert_array_equal(data[stem + "b"], interleave(config, module + ".weight", b))
    supersonic("convert", tmp_path / "a.gguf", tmp_path / "back", "--base", tiny_model(name))
    want, got = (safetensors.numpy.load_file(tmp_path / f / "adapter_model.safetensors") for f in ("peft", "back"))
    assert want.keys() == got.keys() and all(np.array_equal(want[k], got[k]) for k in want)
    settings = json.loads((tmp_path / "back" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["peft_type"]) == (8, 16, "LORA")
    # Merged from either file, the model is the same.
    for k, adapter in enumerate(("peft", "a.gguf")):
        supersonic("merge", tiny_model(name), "--adapter", tmp_path / adapter, "-o", tmp_path / f"m{k}", "--type", "f32")
    first, second = read_folder(tmp_path / "m0"), read_folder(tmp_path / "m1")
    assert all(np.array_equal(first[k], second[k]) for k in first)


def test_smollm2_becomes_a_folder_with_its_own_tokenizer(supersonic, model, tmp_path, golden):
    supersonic("convert", model, tmp_path / "m", "--type", "f16")
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    for row in golden("smollm2/tokens")[0]["texts"]:
        assert tokenizer.encode(row["text"]).ids == row["ids_parse_special"], row["text"]
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["tie_word_embeddings"] and config["torch_dtype"] == "float16" and config["rms_norm_eps"] == 1e-5
    ours = read_folder(tmp_path / "m")
    data, _, _ = read_gguf(model)
    for n in ("token_embd.weight", "blk.3.attn_q.weight", "blk.7.attn_k.weight", "blk.29.ffn_down.weight", "output_norm.weight"):
        np.testing.assert_array_equal(interleave(config, hf_name(n), ours[hf_name(n)]), data[n].astype(np.float16), err_msg=n)


# Bad input: one message that names the thing and the remedy, the documented code, nothing under the output's name or beside it.


def refused(code, words, *arguments, folder=None, **options):
    done = run_program("supersonic", *arguments, check=False, **options)
    assert done.returncode == code, (done.returncode, done.stderr)
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr, (word, done.stderr)
    if folder:
        assert not [p.name for p in folder.iterdir() if "part" in p.name or p.name.startswith("out")]


def test_wrong_requests_are_refused(tiny_model, tmp_path):
    source = tiny_model("llama3")
    adapters.write(tmp_path / "lora", adapters.of_tiny("llama3", 4), 4, 8)
    adapters.write(tmp_path / "other", adapters.of_tiny("mistral", 4), 4, 8)
    bad = lambda code, words, *arguments: refused(code, words, *arguments, folder=tmp_path)
    out = tmp_path / "out.gguf"
    bad(2, ["--type q9_9", "q8_0"], "convert", source, out, "--type", "q9_9")
    bad(2, ["--type q4_0", "bf16", ".gguf"], "convert", source, tmp_path / "out", "--type", "q4_0")
    bad(2, ["--to", "gguf", "hf"], "convert", source, out, "--to", "onnx")
    bad(5, ["no such file"], "convert", tmp_path / "missing", out)
    bad(5, ["no such adapter"], "merge", source, "--adapter", tmp_path / "missing", "-o", out)
    bad(5, ["adapter_config.json"], "merge", source, "--adapter", tmp_path, "-o", out)
    bad(5, ["another model", "layers.0.self_attn"], "merge", source, "--adapter", tmp_path / "other", "-o", out)
    bad(2, ["--base"], "convert", tmp_path / "lora", out)
    bad(2, ["--type q8_0", "f32"], "convert", tmp_path / "lora", out, "--base", source, "--type", "q8_0")
    bad(2, ["--adapter"], "merge", source, "-o", out)


def test_what_is_there_is_kept_unless_force_is_given(supersonic, tiny_model, tmp_path):
    source, file, folder = tiny_model("llama3"), tmp_path / "m.gguf", tmp_path / "m"
    file.write_text("mine")
    refused(2, ["exists already", "--force"], "convert", source, file)
    assert file.read_text() == "mine"
    supersonic("convert", source, file, "--force")
    assert gguf.GGUFReader(file).tensors
    folder.mkdir()
    supersonic("convert", source, folder)  # an empty folder is no loss
    (folder / "stale.txt").write_text("from the last export")
    refused(2, ["exists already"], "convert", source, folder)
    supersonic("convert", source, folder, "--force")
    assert not (folder / "stale.txt").exists() and read_folder(folder)
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    refused(2, ["something else than a model"], "convert", source, home, "--force")
    assert (home / "letter.txt").read_text() == "dear"
    refused(2, ["holds the input"], "convert", file, file, "--force")
    refused(2, ["holds the input"], "convert", folder, str(folder) + "/", "--force")
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_weight_that_the_type_cannot_hold_is_named(tiny_model, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(tiny_model("llama3"), source)
    tensors = safetensors.numpy.load_file(source / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = 1e6
    safetensors.numpy.save_file(tensors, source / "model.safetensors", {"format": "pt"})
    refused(1, ["model.layers.1.mlp.up_proj.weight", "f16", "bf16"], "convert", source, tmp_path / "out.gguf", "--type", "f16", folder=tmp_path)
    refused(1, ["model.layers.1.mlp.up_proj.weight", "q8_0"], "convert", source, tmp_path / "out.gguf", "--type", "q8_0", folder=tmp_path)


def test_a_result_that_is_too_far_from_its_source_is_not_kept(supersonic, tiny_model, tmp_path):
    """Weights with one huge value a block: 4 bits lose all the others."""
    source = tmp_path / "source"
    shutil.copytree(tiny_model("llama3"), source)
    tensors = safetensors.numpy.load_file(source / "model.safetensors")
    for name, values in tensors.items():
        if name.endswith("proj.weight"):
            values[:, ::32] *= 64
    safetensors.numpy.save_file(tensors, source / "model.safetensors", {"format": "pt"})
    refused(1, ["logits differ", "--no-verify"], "convert", source, tmp_path / "out.gguf", "--type", "q4_0", folder=tmp_path)
    made = supersonic("convert", source, tmp_path / "out.gguf", "--type", "q4_0", "--no-verify", json_output=True)
    assert made["verified"] is None and (tmp_path / "out.gguf").exists()


def test_a_result_whose_predictions_are_others_is_warned_of(supersonic, model, tmp_path):
    """Where rounding explains the difference, and yet it is large: over 0.1 nats a token. 0.6 and 0.003 here."""
    seen = set()
    for kind in ("q4_0", "q8_0"):
        done = supersonic("convert", model, tmp_path / f"{kind}.gguf", "--type", kind, "--json")
        made = json.loads(done.stdout)["verified"]
        assert made["kl_warning"] == (made["kl"] > 0.1)
        assert ("warning" in done.stderr) == made["kl_warning"]
        if made["kl_warning"]:
            assert f"{made['kl']:.2g} nats" in done.stderr and "--type q6_k or q8_0" in done.stderr
        seen.add(made["kl_warning"])
    assert seen == {True, False}


def test_a_full_disk_is_found_and_leaves_nothing(tiny_model, tmp_path):
    """A file system of 2 MiB in a name space of its own; where the kernel allows none, a limit on file sizes stands in."""
    source, program = tiny_model("llama3"), BIN / "supersonic"
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"mount -t tmpfs -o size=2m none {disk} || exit 77; {program} convert {source} {disk}/out.gguf; code=$?; ls -A {disk} >&2; exit $code"
    for output in ("out.gguf", "out"):
        done = subprocess.run(["unshare", "-rm", "sh", "-c", script.replace("out.gguf", output)], capture_output=True, text=True)
        if done.returncode in (1, 77) and "disk is full" not in done.stderr and ("unshare" in done.stderr or "mount" in done.stderr):
            pytest.skip("this machine allows no private mounts")
        assert done.returncode == 1 and "disk is full" in done.stderr and str(disk) in done.stderr, done.stderr
        assert done.stderr.rstrip().endswith("another disk"), done.stderr  # the listing of the disk after it is empty


def test_ctrl_c_leaves_nothing(model, tmp_path):
    program = BIN / "supersonic"
    process = subprocess.Popen([program, "convert", model, tmp_path / "out.gguf", "--type", "q4_k"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 60
    while not list(tmp_path.glob(".out.gguf.part-*/*")) and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 130, log
    assert "stopping" in log and not list(tmp_path.iterdir())
