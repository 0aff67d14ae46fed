"""The weight codecs against gguf-py, live on random data: decoding bit for bit, encoding byte for byte; FP8 against ml_dtypes.

Needs numpy, gguf and ml_dtypes, and the program format_probe.
"""

import subprocess

import gguf
import ml_dtypes
import numpy as np
import pytest

from places import BIN

TYPES = {
    name.lower(): gguf.GGMLQuantizationType[name]
    for name in (
        "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ2_XXS", "IQ2_XS", "IQ3_XXS",
        "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "IQ1_M", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4",
    )
}  # fmt: skip
NEWER = {"q1_0": (41, 128, 18), "q2_0": (42, 64, 18)}  # without a decoder in gguf-py: number, block, bytes
EXACT = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "tq1_0", "tq2_0")  # gguf-py encodes these


def probe(*args, data: bytes = b"") -> bytes:
    command = [BIN / "format_probe", *map(str, args)]
    done = subprocess.run(command, input=data, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{done.returncode}: {done.stderr.decode()}")
    return done.stdout


def encode(name: str, w: np.ndarray) -> np.ndarray:
    return np.frombuffer(probe("encode", name, *w.shape, data=w.tobytes()), np.uint8)


def decode(name: str, data: np.ndarray, rows: int, cols: int) -> np.ndarray:
    return np.frombuffer(probe("decode", name, rows, cols, data=data.tobytes()), np.float32).reshape(rows, cols)


@pytest.fixture
def rng():
    return np.random.default_rng(20240601)


def test_list_agrees_with_gguf():
    listed = {line.split()[0]: line.split()[1:] for line in probe("list").decode().splitlines()}
    for name, kind in TYPES.items():
        number, block, size, planes, _ = listed.pop(name)
        assert (int(number), (int(block), int(size)), planes) == (kind.value, gguf.GGML_QUANT_SIZES[kind], "1")
    for name, numbers in NEWER.items():
        assert tuple(map(int, listed.pop(name)[:3])) == numbers
    assert sorted(listed) == ["nf4", "nf4_plain"]


def test_every_code_of_fp8_decodes_as_in_ml_dtypes():
    codes = np.arange(256, dtype=np.uint8)
    wanted = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    np.testing.assert_array_equal(decode("fp8", codes, 1, 256)[0], wanted)  # a NaN equals a NaN
    assert np.isnan(wanted).sum() == 2


def test_fp8_rounds_as_ml_dtypes_and_saturates(rng):
    spread = np.ldexp(rng.standard_normal((64, 256)), rng.integers(-14, 9, (64, 256))).astype(np.float32)
    finite = np.arange(0x7F, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    halves = np.concatenate([(finite[1:] + finite[:-1]) / 2, finite, [1e-30], [464.0, 1e4]]).astype(np.float32)
    halves = np.concatenate([halves, -halves]).reshape(1, -1)
    for w in (spread, halves):  # ml_dtypes makes NaN of what lies beyond
        wanted = np.clip(w, -448, 448).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
        np.testing.assert_array_equal(encode("fp8", w), wanted.reshape(-1))


@pytest.mark.parametrize("name", TYPES)
def test_decode_of_random_bytes_equals_gguf(name, rng):
    block, size = gguf.GGML_QUANT_SIZES[TYPES[name]]
    data = rng.integers(0, 256, (37, 20 * size), dtype=np.uint8)  # meets every point of every lattice
    with np.errstate(all="ignore"):  # some scales are infinite or NaN: no defined weight, and no crash
        expected = gguf.dequantize(data, TYPES[name])
    ours = decode(name, data, 37, 20 * block)
    finite = np.isfinite(expected)
    assert finite.mean() > 0.8
    assert not np.isfinite(ours[~finite]).any()
    assert np.array_equal(ours[finite].view(np.uint32), expected[finite].view(np.uint32))


def test_decode_of_one_and_two_bits(rng):
    for name, (_, block, size) in NEWER.items():
        data = rng.integers(0, 256, (8, 5, size), dtype=np.uint8)
        d = (rng.standard_normal((8, 5, 1)) / 50).astype(np.float16)
        data[..., :2] = d.view(np.uint8)
        bits = np.unpackbits(data[..., 2:], axis=-1, bitorder="little").astype(np.float32)
        codes = 2 * bits - 1 if name == "q1_0" else bits[..., 0::2] + 2 * bits[..., 1::2] - 1
        expected = (d.astype(np.float32) * codes).reshape(8, 5 * block)
        assert np.array_equal(decode(name, data, 8, 5 * block).view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("scale", [1e-12, 1e-7, 1e-2, 1.0, 3000.0])
def test_encode_equals_gguf(name, scale, rng):
    w = (rng.standard_t(4, (41, 256 * 4 if name[0] == "t" else 32 * 33)) * scale).clip(-65504, 65504).astype(np.float32)
    w[3], w[4, 5:40], w[5] = 0, 0, -np.abs(w[5])
    w[6] = np.round(w[6] / np.float32(scale)) * np.float32(scale)  # many equal weights
    assert np.array_equal(encode(name, w), gguf.quantize(w, TYPES[name]).ravel())


# On normal weights llama.cpp's encoders reach 0.0874, 0.0226, 0.00507, 0.00130, 0.000313, 0.00576 and 0.00585.
@pytest.mark.parametrize(
    "name, limit",
    [("q2_k", 0.0705), ("q3_k", 0.0211), ("q4_k", 0.0050), ("q5_k", 0.0012), ("q6_k", 0.000305), ("iq4_nl", 0.0055),
     ("iq4_xs", 0.0056)],
)  # fmt: skip
def test_searching_encoders_reach_their_error_and_gguf_reads_them(name, limit, rng):
    w = rng.standard_normal((256, 1024)).astype(np.float32)
    read = gguf.dequantize(encode(name, w).reshape(256, -1), TYPES[name])
    assert ((read - w) ** 2).sum() / (w**2).sum() < limit


def test_mxfp4_is_no_further_off_than_gguf(rng):
    """Block by block; weights that are of the format already stay as they are."""
    w = (rng.standard_t(4, (64, 512)) * np.exp2(rng.integers(-20, 8, (64, 1)))).clip(-65504, 65504).astype(np.float32)
    ours, theirs = (gguf.dequantize(x.reshape(64, -1), TYPES["mxfp4"]) for x in (encode("mxfp4", w), gguf.quantize(w, TYPES["mxfp4"])))
    errors = [((x.astype(np.float64) - w) ** 2).reshape(-1, 32).sum(1) for x in (ours, theirs)]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all() and (errors[0] / errors[1]).mean() < 0.97
    np.testing.assert_array_equal(gguf.dequantize(encode("mxfp4", ours).reshape(64, -1), TYPES["mxfp4"]), ours)


@pytest.mark.parametrize("shape", [(1, 1), (3, 43), (8, 512)])
@pytest.mark.parametrize("name", ["nf4", "nf4_plain"])
def test_nf4_is_the_nearest_table_entry_times_the_scale(name, shape, rng):
    w = rng.standard_normal(shape).astype(np.float32)
    ours = decode(name, encode(name, w), *shape).ravel()
    flat, table = w.ravel().astype(np.float64), np.array(
        [-1, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0, 0.0795803, 0.16093020,
         0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1])  # fmt: skip
    for start in range(0, flat.size, 64):
        block = flat[start : start + 64]
        top = np.abs(block).max()
        nearest = table[np.abs(block[:, None] / top - table).argmin(1)] * top
        # Double quantization moves a scale by half a cell of the map, 0.7 % of the farthest from the mean at most.
        assert np.allclose(ours[start : start + 64], nearest, rtol=2e-6 if name == "nf4_plain" else 0.02, atol=1e-6)


@pytest.mark.parametrize(
    "args, code, words",
    [
        (("decode", "q8_0", 2, 33), 5, "blocks of 32"),
        (("decode", "q4_k", 1, 2**62), 5, "impossible"),
        (("encode", "iq2_s", 1, 256), 1, "read only"),
        (("decode", "q8_0", 1, 32), 1, "expected 34 bytes"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(args, code, words):
    with pytest.raises(RuntimeError, match=f"^{code}: .*{words}"):
        probe(*args)
