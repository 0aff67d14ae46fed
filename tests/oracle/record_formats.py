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
TYPES = {
    name.lower(): gguf.GGMLQuantizationType[name]
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
}
# Where the 16-bit scales lie in each block.
HALVES = {
    "q4_0": [0], "q4_1": [0, 2], "q5_0": [0], "q5_1": [0, 2], "q8_0": [0], "q2_k": [80, 82], "q3_k": [108],
    "q4_k": [0, 2], "q5_k": [0, 2], "q6_k": [208],
}  # fmt: skip


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
    size = gguf.GGML_QUANT_SIZES[TYPES[name]][1]
    need = count * size
    rounds = [np.argsort(splitmix(100 + r, 256), kind="stable") for r in range(-(-need // 256))]
    blocks = np.concatenate(rounds).astype(np.uint8)[:need].reshape(count, size)
    for field, at in enumerate(HALVES[name]):
        d = (weights(200 + field, count, False) * np.float32(0.5)).astype(np.float16)
        d[0], d[1], d[2], d[3] = 0, 6e-8, -3e-6, 700
        blocks[:, at : at + 2] = d.view(np.uint8).reshape(count, 2)
    return blocks


def decoded() -> dict:
    out = {}
    for name, kind in TYPES.items():
        blocks = block_bytes(name, 48 if gguf.GGML_QUANT_SIZES[kind][0] == 32 else 24)
        out[name + ".bytes"] = blocks
        out[name + ".weights"] = gguf.dequantize(blocks, kind)
    return out


def special_rows() -> np.ndarray:
    """Seven rows of 96 weights: the blocks on which encoders go wrong."""
    w = weights(1, 7 * 96, False).reshape(7, 96)
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
    return out


def k_quants(ggml: str) -> dict:
    library = ctypes.CDLL(ggml)
    out = {}
    for name in ("q4_k", "q6_k"):
        encode = getattr(library, f"quantize_row_{name.replace('k', 'K')}_ref")
        encode.argtypes, encode.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64], None
        for heavy in (False, True):
            w = weights(7, 64 * 256, heavy)
            blocks = np.zeros(64 * gguf.GGML_QUANT_SIZES[TYPES[name]][1], np.uint8)
            encode(w.ctypes.data, blocks.ctypes.data, w.size)
            out[f"{name}.{'heavy' if heavy else 'bell'}"] = blocks
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
    files = {
        "decoded": decoded(),
        "encoded": encoded(),
        "k_quants": k_quants(args.ggml or find_ggml()),
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
