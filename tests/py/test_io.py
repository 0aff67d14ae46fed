"""src/io against other implementations: the gguf and safetensors packages write what we read and read what we write.

Needs the packages gguf, safetensors, numpy, ml_dtypes and xxhash.
"""

import json
import subprocess

import gguf
import ml_dtypes
import numpy as np
import pytest
import xxhash
from gguf import GGMLQuantizationType as Quant
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from places import BIN

PROBE = BIN / "io_probe"


def probe(*args):
    done = subprocess.run([PROBE, *map(str, args)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def refused(*args):
    done = subprocess.run([PROBE, *map(str, args)], capture_output=True, check=False)
    assert done.returncode == 5, (done.returncode, done.stderr)
    return done.stderr.decode()


def digest(array):
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(array).tobytes())


def gguf_values(path):
    fields = {}
    for name, field in gguf.GGUFReader(path).fields.items():
        if not name.startswith("GGUF."):
            fields[name] = field.contents()
    return fields


def assert_probe_agrees(path):
    """Every value and every tensor that the gguf package sees, we see."""
    ours, reader = probe("gguf", path), gguf.GGUFReader(path)
    theirs = gguf_values(path)
    assert set(ours.get("values", {})) == set(theirs)
    for key, value in theirs.items():
        assert ours["values"][key]["value"] == pytest.approx(value) if isinstance(value, float) else (
            ours["values"][key]["value"] == value
        ), key
    assert list(sorted(ours.get("tensors", {}))) == sorted(t.name for t in reader.tensors)
    for t in reader.tensors:
        mine = ours["tensors"][t.name]
        assert mine["shape"] == [int(d) for d in reversed(t.shape)], t.name
        assert mine["type"] == t.tensor_type.name.lower()
        assert mine["hash"] == digest(t.data), t.name
    return ours


def write_gguf(path, alignment=None):
    rng = np.random.default_rng(1)
    w = gguf.GGUFWriter(path, "llama")
    if alignment:
        w.add_custom_alignment(alignment)
    w.add_uint8("t.u8", 255), w.add_int8("t.i8", -128), w.add_uint16("t.u16", 65535), w.add_int16("t.i16", -5)
    w.add_uint32("t.u32", 2**32 - 1), w.add_int32("t.i32", -(2**31)), w.add_uint64("t.u64", 2**62), w.add_int64("t.i64", -(2**62))
    w.add_float32("t.f32", 0.5), w.add_float64("t.f64", 1 / 3), w.add_bool("t.bool", True), w.add_string("t.text", "grüße\n")
    w.add_array("t.strings", ["", "a", "ß" * 1000]), w.add_array("t.ints", [1, -2, 3]), w.add_array("t.floats", [0.5, -1.5])
    w.add_array("t.bools", [True, False])
    w.add_tensor("f32", rng.standard_normal((3, 5)).astype(np.float32))
    w.add_tensor("f16", rng.standard_normal((2, 3, 4)).astype(np.float16))
    w.add_tensor("i32", np.arange(7, dtype=np.int32))
    x = rng.standard_normal((4, 64)).astype(np.float32)
    for q in (Quant.Q4_0, Quant.Q4_1, Quant.Q8_0, Quant.BF16):
        w.add_tensor(q.name, gguf.quants.quantize(x, q), raw_dtype=q)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()


@pytest.mark.parametrize("alignment", [None, 64])
def test_gguf_reads_what_the_package_writes(tmp_path, alignment):
    write_gguf(tmp_path / "in.gguf", alignment)
    assert assert_probe_agrees(tmp_path / "in.gguf")["alignment"] == (alignment or 32)


def test_gguf_package_reads_what_we_write(tmp_path):
    write_gguf(tmp_path / "in.gguf")
    probe("copy-gguf", tmp_path / "in.gguf", tmp_path / "out.gguf")
    assert gguf_values(tmp_path / "out.gguf") == gguf_values(tmp_path / "in.gguf")
    before, after = gguf.GGUFReader(tmp_path / "in.gguf"), gguf.GGUFReader(tmp_path / "out.gguf")
    for a, b in zip(before.tensors, after.tensors, strict=True):
        assert (a.name, a.tensor_type, list(a.shape)) == (b.name, b.tensor_type, list(b.shape))
        assert np.array_equal(a.data, b.data)
    # The package lays files out as we do: the copy is the original, byte for byte.
    assert (tmp_path / "in.gguf").read_bytes() == (tmp_path / "out.gguf").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.gguf", "out.gguf"]


def test_gguf_reads_every_tensor_type_of_the_package_or_names_it(tmp_path):
    """Blocks that only activations have and 16-bit integers are no weights: refused by name."""
    rng = np.random.default_rng(2)
    plain = {Quant.F32: np.float32, Quant.F16: np.float16, Quant.I8: np.int8, Quant.I16: np.int16, Quant.I32: np.int32, Quant.I64: np.int64, Quant.F64: np.float64}
    refusals = {Quant.Q8_1: "q8_1", Quant.Q8_K: "q8_k", Quant.I16: "i16"}
    readable = [q for q in Quant if q not in refusals]
    assert len(readable) == 31

    def write(path, types):
        w = gguf.GGUFWriter(path, "llama")
        for q in types:
            block, size = gguf.GGML_QUANT_SIZES[q]
            if q in plain:
                w.add_tensor(q.name, rng.integers(0, 100, (3, 8)).astype(plain[q]))
            else:
                w.add_tensor(q.name, rng.integers(0, 256, (3, 256 // block * size), dtype=np.uint8), raw_dtype=q)
        w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()

    write(tmp_path / "all.gguf", readable)
    assert_probe_agrees(tmp_path / "all.gguf")
    for q, name in refusals.items():
        write(tmp_path / "bad.gguf", [q])
        message = refused("gguf", tmp_path / "bad.gguf")
        assert f"tensor {q.name}: its type is {q.value} ({name}), which this program cannot read" in message


def test_gguf_parts_of_the_package_are_read_as_one_model(tmp_path):
    rng = np.random.default_rng(3)
    w = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=2)
    w.add_uint32("llama.block_count", 3)
    data = {f"t{i}": rng.standard_normal((4, 8)).astype(np.float32) for i in range(5)}
    for name, values in data.items():
        w.add_tensor(name, values)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    parts = sorted(tmp_path.glob("m-*-of-00003.gguf"))
    assert len(parts) == 3
    for part in parts:
        ours = probe("gguf", part)
        assert {name: t["hash"] for name, t in ours["tensors"].items()} == {name: digest(v) for name, v in data.items()}
    parts[1].unlink()
    assert f"{parts[1]}: is missing" in refused("gguf", parts[0])


def test_gguf_truncations_are_refused_with_the_offset(tmp_path):
    write_gguf(tmp_path / "in.gguf")
    whole = (tmp_path / "in.gguf").read_bytes()
    for n in (0, 3, 20, 60, len(whole) // 2, len(whole) - 33):
        (tmp_path / "cut.gguf").write_bytes(whole[:n])
        message = refused("gguf", tmp_path / "cut.gguf")
        assert "cut.gguf: byte " in message


def test_the_real_model_reads_the_same_and_copies_exactly(model, tmp_path):
    ours = assert_probe_agrees(model)
    assert len(ours["values"]["tokenizer.ggml.tokens"]["value"]) == 49152
    config = probe("gguf-config", model)
    wanted = {"family": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    wanted |= {"num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152}
    wanted |= {"max_position_embeddings": 8192, "rope_theta": 100000.0, "tie_word_embeddings": True}
    assert {k: config[k] for k in wanted} == wanted
    probe("copy-gguf", model, tmp_path / "copy.gguf")
    assert_probe_agrees(tmp_path / "copy.gguf")


def arrays():
    rng = np.random.default_rng(2)
    return {
        "a.f32": rng.standard_normal((3, 4)).astype(np.float32),
        "b.f16": rng.standard_normal(7).astype(np.float16),
        "c.bf16": rng.standard_normal((2, 2, 2)).astype(ml_dtypes.bfloat16),
        "d.f64": rng.standard_normal(2),
        "e.i64": np.arange(5),
        "f.i32": np.arange(3, dtype=np.int32),
        "g.u8": np.arange(9, dtype=np.uint8),
        "h.i8": np.arange(3, dtype=np.int8),
        "i.empty": np.zeros((0, 3), np.float32),
        "j.scalar": np.array(2.5, np.float32),
    }


def test_safetensors_both_ways(tmp_path):
    save_file(arrays(), tmp_path / "in.safetensors", {"format": "pt", "note": "x"})
    ours = probe("safetensors", tmp_path / "in.safetensors")
    assert ours["metadata"] == {"format": "pt", "note": "x"}
    for name, array in arrays().items():
        assert ours["tensors"][name]["shape"] == list(array.shape)
        assert ours["tensors"][name]["hash"] == digest(array), name
    probe("copy-safetensors", tmp_path / "in.safetensors", tmp_path / "out", 1 << 30)
    back = load_file(tmp_path / "out.safetensors")
    for name, array in arrays().items():
        assert back[name].dtype == array.dtype and np.array_equal(back[name], array), name
    with safe_open(tmp_path / "out.safetensors", "np") as f:
        assert f.metadata() == {"format": "pt"}
    assert int.from_bytes((tmp_path / "out.safetensors").read_bytes()[:8], "little") % 8 == 0


def test_safetensors_shards_and_unknown_types(tmp_path):
    save_file(arrays() | {"odd": np.array([True])}, tmp_path / "odd.safetensors")
    assert probe("safetensors", tmp_path / "odd.safetensors")["tensors"]["odd"]["readable"] is False
    assert "BOOL" in refused("copy-safetensors", tmp_path / "odd.safetensors", tmp_path / "x", 1000)
    save_file(arrays(), tmp_path / "in.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    probe("copy-safetensors", tmp_path / "in.safetensors", out / "model", 64)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(a.nbytes for a in arrays().values())
    for name, array in arrays().items():
        with safe_open(out / index["weight_map"][name], "np") as f:
            assert np.array_equal(f.get_tensor(name), array)
    assert probe("safetensors", out)["files"] == len(set(index["weight_map"].values())) > 1


def peft_folder(path, **more):
    rng = np.random.default_rng(3)
    path.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"], "bias": "none"}
    (path / "adapter_config.json").write_text(json.dumps(config | more))
    tensors = {}
    for name, rank in (("self_attn.q_proj", 4), ("mlp.up_proj", 2)):
        key = f"base_model.model.model.layers.0.{name}"
        tensors[key + ".lora_A.weight"] = rng.standard_normal((rank, 6)).astype(np.float32)
        tensors[key + ".lora_B.weight"] = rng.standard_normal((5, rank)).astype(np.float32)
    save_file(tensors, path / "adapter_model.safetensors", {"format": "pt"})
    return tensors


def test_peft_and_gguf_adapters_keep_every_product(tmp_path):
    more = {"rank_pattern": {"up_proj": 2}, "alpha_pattern": {r"layers\.0\.mlp\.up_proj": 3}}
    tensors = peft_folder(tmp_path / "in", **more)
    probe("copy-peft", tmp_path / "in", tmp_path / "copy")
    back = load_file(tmp_path / "copy/adapter_model.safetensors")
    assert set(back) == set(tensors) and all(np.array_equal(back[k], tensors[k]) for k in tensors)
    config = json.loads((tmp_path / "copy/adapter_config.json").read_text())
    assert config["r"] == 4 and config["lora_alpha"] == 8 and config["target_modules"] == ["q_proj", "up_proj"]
    assert list(config["rank_pattern"].values()) == [2] and list(config["alpha_pattern"].values()) == [3]
    probe("peft-to-gguf", tmp_path / "in", tmp_path / "a.gguf")
    values = gguf_values(tmp_path / "a.gguf")
    assert values["general.type"] == "adapter" and values["adapter.type"] == "lora"
    stored = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
    for name, scale in (("self_attn.q_proj", 8 / 4), ("mlp.up_proj", 3 / 2)):
        a, b = stored[f"model.layers.0.{name}.lora_a"], stored[f"model.layers.0.{name}.lora_b"]
        key = f"base_model.model.model.layers.0.{name}"
        want = scale * tensors[key + ".lora_B.weight"] @ tensors[key + ".lora_A.weight"]
        np.testing.assert_allclose(values["adapter.lora.alpha"] / a.shape[0] * b @ a, want, rtol=1e-5, atol=1e-6)
    probe("gguf-to-peft", tmp_path / "a.gguf", tmp_path / "again")
    assert set(load_file(tmp_path / "again/adapter_model.safetensors")) == set(tensors)


def test_adapters_that_cannot_be_applied_are_refused(tmp_path):
    peft_folder(tmp_path / "dora", use_dora=True)
    assert "DoRA" in refused("peft", tmp_path / "dora")
    peft_folder(tmp_path / "saved", modules_to_save=["lm_head"])
    assert "modules_to_save" in refused("peft", tmp_path / "saved")
    peft_folder(tmp_path / "rank")
    assert "has rank 2" in refused("peft", tmp_path / "rank")


def test_a_full_disk_is_one_clear_message_and_no_file(tmp_path):
    """Needs a private mount; skipped where the kernel does not give one to this user."""
    write_gguf(tmp_path / "in.gguf")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o size=4k tmpfs {disk} || exit 99; {PROBE} copy-gguf {tmp_path}/in.gguf {disk}/out.gguf;"
        f"echo rc=$? left=$(ls -A {disk} | wc -l)"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    if "rc=" not in done.stdout:
        pytest.skip("no private mounts here")
    assert done.stdout.strip() == "rc=1 left=0"
    assert "disk is full" in done.stderr and "out.gguf" in done.stderr
