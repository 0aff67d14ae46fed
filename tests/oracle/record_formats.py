"""Records tests/golden/formats/*.bin: what other projects' codecs make of given weights and given bytes.

    python tests/oracle/record_formats.py [--check] [--ggml libggml-base.so]

Recorded with gguf 0.19.0, bitsandbytes 0.50.0, torch 2.13.0 (CPU, x86-64), numpy 2.4, and the ggml library of
llama-cpp-python 0.3.36 (found in that package unless --ggml names one). --check computes everything again, compares, and
fails where a byte differs. Python only; nothing of this project is imported.

A golden file is a sequence of sections: u32 name length, name, u64 byte length, bytes. Inputs that a formula gives are
not stored: weights() here and in tests/formats/golden.h are the same arithmetic, exact in f32.
"""

import argparse
import ctypes
import importlib.util
import pathlib
import struct
import sys

import bitsandbytes.functional as bnb
import gguf
import numpy as np
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "golden" / "formats"
# Where the 16-bit scales lie in each block; MXFP4 and NVFP4 have 8-bit ones that may be anything.
HALVES = {
    "q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0], "q2_k": [80, 82], "q3_k": [108],
    "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208], "iq2_xxs": [0], "iq2_xs": [0], "iq3_xxs": [0], "iq1_s": [0],
    "iq4_nl": [0], "iq3_s": [0], "iq2_s": [0], "iq4_xs": [0], "iq1_m": [], "tq1_0": [52], "tq2_0": [64], "mxfp4": [],
    "nvfp4": [], "q1_0": [0], "q2_0": [0],
}  # fmt: skip
NOT_IN_GGUF_PY = {"q1_0": (128, 18), "q2_0": (64, 18)}  # block, bytes; gguf 0.19.0 has no decoder: ggml's is taken
TYPES = {name: gguf.GGMLQuantizationType[name.upper()] for name in HALVES if name not in NOT_IN_GGUF_PY}


def size_of(name: str) -> tuple[int, int]:
    """Weights and bytes of a block."""
    return NOT_IN_GGUF_PY.get(name) or gguf.GGML_QUANT_SIZES[TYPES[name]]


def splitmix(seed: int, n: int) -> np.ndarray:
    """SplitMix64, n numbers."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def weights(seed: int, n: int, heavy: bool) -> np.ndarray:
    """Bell-shaped f32 around zero, below 1 in magnitude; heavy: cubed, which gives outliers."""
    z = splitmix(seed, n)
    total = sum(((z >> np.uint64(16 * k)) & np.uint64(0xFFFF)).astype(np.int64) for k in range(4)) - 131070
    x = total.astype(np.float32) / np.float32(131072)
    return x * x * x if heavy else x


def block_bytes(name: str, count: int) -> np.ndarray:
    """Blocks that hold every byte value in every field, with finite scales of both signs, subnormal ones and zero."""
    size = size_of(name)[1]
    need = count * size
    rounds = [np.argsort(splitmix(100 + r, 256), kind="stable") for r in range(-(-need // 256))]
    blocks = np.concatenate(rounds).astype(np.uint8)[:need].reshape(count, size)
    for field, at in enumerate(HALVES[name]):
        d = (weights(200 + field, count, False) * np.float32(0.5)).astype(np.float16)
        d[0], d[1], d[2], d[3] = 0, 6e-8, -3e-6, 700
        blocks[:, at : at + 2] = d.view(np.uint8).reshape(count, 2)
    if name == "iq1_m":  # its scale is spread over the high nibbles of four words; keep the exponent below infinity
        blocks[:, 55] &= 0xBF
    return blocks


def decode_with_ggml(ggml: str, name: str, blocks: np.ndarray) -> np.ndarray:
    decode = getattr(ctypes.CDLL(ggml), f"dequantize_row_{name}")
    decode.argtypes, decode.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
    out = np.zeros((len(blocks), size_of(name)[0]), np.float32)
    decode(blocks.ctypes.data, out.ctypes.data, out.size)
    return out


def decoded(ggml: str) -> dict:
    out = {}
    for name in HALVES:
        blocks = block_bytes(name, 24 if size_of(name)[0] == 256 else 48)
        out[name + ".bytes"] = blocks
        if name in NOT_IN_GGUF_PY:
            out[name + ".weights"] = decode_with_ggml(ggml, name, blocks)
        else:
            with np.errstate(over="ignore"):  # MXFP4's largest scale times 2
                out[name + ".weights"] = gguf.dequantize(blocks, TYPES[name])
    return out


def special_rows(columns: int = 96) -> np.ndarray:
    """Seven rows of weights: the blocks on which encoders go wrong."""
    w = weights(1, 7 * columns, False).reshape(7, columns)
    w[1, :32] = 0
    w[1, 32:64] = 0.25
    w[1, 64:] = -0.25
    w[2] = np.round(w[2] * 16) / 16  # ties between codes
    w[3] *= np.float32(1e-6)  # scales that are subnormal in 16 bits
    w[4] = np.sign(w[4]) * np.float32(65504)
    w[5] = -np.abs(w[5])
    w[5, 7] = -1
    w[6, 3], w[6, 40], w[6, 41] = 1, 1, -1  # one peak; two equal ones of different sign
    return w


def encoded() -> dict:
    w = special_rows()
    out = {"weights": w}
    for name in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0"):
        out[name] = gguf.quantize(w, TYPES[name])
    out["wide.weights"] = special_rows(256)
    for name in ("tq1_0", "tq2_0"):
        out[name] = gguf.quantize(out["wide.weights"], TYPES[name])
    return out


SEARCHED = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4")


def real_weights() -> np.ndarray:
    """The first 16384 weights of a matrix of SmolLM2, as its Q4_1 blocks."""
    model = pathlib.Path(__file__).resolve().parents[2] / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    tensor = next(t for t in gguf.GGUFReader(model).tensors if t.name == "blk.12.ffn_down.weight")
    return np.ascontiguousarray(tensor.data).view(np.uint8).ravel()[: 64 * 256 // 32 * 20].reshape(-1, 20)


def k_quants(ggml: str) -> dict:
    """What llama-quantize makes of three kinds of weights without an importance matrix."""
    library = ctypes.CDLL(ggml)
    blocks = real_weights()
    kinds = {"bell": weights(7, 64 * 256, False), "heavy": weights(7, 64 * 256, True)}
    kinds["real"] = gguf.dequantize(blocks, TYPES["q4_1"]).ravel()
    out = {"real.q4_1": blocks}
    for name in SEARCHED:
        encode = getattr(library, f"quantize_{name.replace('k', 'K')}")
        encode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
        encode.restype = ctypes.c_size_t
        for kind, w in kinds.items():
            blocks = np.zeros(w.size // size_of(name)[0] * size_of(name)[1], np.uint8)
            assert encode(w.ctypes.data, blocks.ctypes.data, 64, 256, None) == blocks.size
            out[f"{name}.{kind}"] = blocks
    return out


NF4_SHAPES = ((1, 1), (1, 5), (1, 64), (7, 96), (5, 101), (33, 576))


def nf4_weights(rows: int, cols: int) -> np.ndarray:
    w = weights(rows * 10000 + cols, rows * cols, True).reshape(rows, cols)
    if rows == 7:
        w.ravel()[64:128] = 0
        w.ravel()[-40:] = 0
    return w


def nf4_tail() -> np.ndarray:
    """46 weights on and beside the boundaries between codes: a short block divides where a whole one multiplies."""
    table = bnb.get_4bit_type("nf4", "cpu").numpy()
    top = np.float32(0.7071)
    middles = (table[1:] + table[:-1]) / np.float32(2) * top
    return np.concatenate([[top], middles, np.nextafter(middles, -1), np.nextafter(middles, 1)]).astype(np.float32)


def nf4() -> dict:
    tail = nf4_tail()
    codes, _ = bnb.quantize_4bit(torch.from_numpy(tail), blocksize=64, quant_type="nf4")
    out = {"tail.input": tail, "tail.0": codes.numpy()}
    for rows, cols in (*NF4_SHAPES, (2100, 1024)):
        w = torch.from_numpy(nf4_weights(rows, cols))
        for nested in (True, False):
            codes, state = bnb.quantize_4bit(w, blocksize=64, compress_statistics=nested, quant_type="nf4")
            name = f"{rows}x{cols}.{'nf4' if nested else 'nf4_plain'}"
            scales = state.absmax
            if nested:
                scales = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
                out[name + ".1"] = state.absmax.numpy()
                out[name + ".2"] = state.state2.absmax.numpy()
                out[name + ".3"] = state.offset.numpy()
            if rows < 2100:  # the largest case is there for its scales
                out[name + ".0"] = codes.numpy()
                out.setdefault(name + ".1", state.absmax.numpy())
                # Not dequantize_4bit: its AVX-512 path takes the wrong scale where a block crosses the end of a row.
                flat = _dequantize_4bit_compute(
                    codes.reshape(-1), scales, bnb.get_4bit_type("nf4", "cpu"), 64, (1, rows * cols), torch.float32
                )
                out[name + ".weights"] = flat.numpy()
    return out


def dynamic8() -> dict:
    """The maps, and for each code the first of 65536 even steps from -1 to 1 that the quantizer gives it (or -1)."""
    out = {}
    steps = np.float32(-1) + np.float32(2) * np.arange(65536, dtype=np.float32) / np.float32(65535)
    for name in ("signed", "unsigned"):
        values = bnb.create_dynamic_map(signed=name == "signed")
        codes, state = bnb.quantize_blockwise(torch.from_numpy(steps), code=values, blocksize=65536)
        assert state.absmax.item() == 1
        first = np.full(256, -1, np.int32)
        used, where = np.unique(codes.numpy(), return_index=True)
        first[used] = where
        out[name + ".values"], out[name + ".first_steps"] = values.numpy(), first
    return out


def pack(sections: dict) -> bytes:
    blob = bytearray()
    for name, values in sections.items():
        data = np.ascontiguousarray(values).tobytes()
        blob += struct.pack("<I", len(name)) + name.encode() + struct.pack("<Q", len(data)) + data
    return bytes(blob)


def find_ggml() -> str:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None:
        sys.exit("record_formats: install llama-cpp-python or give --ggml libggml-base.so")
    return str(pathlib.Path(spec.origin).parent / "lib" / "libggml-base.so")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--ggml")
    args = parser.parse_args()
    torch.set_num_threads(1)  # the order of the sums
    ggml = args.ggml or find_ggml()
    files = {
        "decoded": decoded(ggml),
        "encoded": encoded(),
        "k_quants": k_quants(ggml),
        "nf4": nf4(),
        "dynamic8": dynamic8(),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    wrong = []
    for name, sections in files.items():
        path, blob = FOLDER / f"{name}.bin", pack(sections)
        if not args.check:
            path.write_bytes(blob)
        elif path.read_bytes() != blob:
            wrong.append(path.name)
        print(f"{path.name}: {len(blob)} bytes{' DIFFERS' if path.name in wrong else ''}")
    if wrong:
        sys.exit(f"record_formats: no longer equal: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
