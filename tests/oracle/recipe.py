"""Numbers that Python and C++ make alike, bit for bit, without sharing a file.

Element i of the stream NAME is a hash, not a step of a generator, so any part can be made alone:
    seed = FNV-1a 64 of NAME's UTF-8 bytes
    word = splitmix64's finalizer of (seed + (i + 1) * 0x9E3779B97F4A7C15)          (64-bit wrapping)
    sign(i)    = -1 where the top bit of word is set, else +1
    uniform(i) = ((word >> 40) * 2 - 2^24 + 1) / 2^24, a float32 in (-1, 1), exact; times a power of two stays exact
    below(i,n) = (word >> 33) mod n
tests/support/recipe.h is the same in C++; tests/golden/README.md writes it out for people.
"""

import numpy as np

GOLDEN_RATIO = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def seed_of(name: str) -> int:
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def words(name: str, count: int, first: int = 0) -> np.ndarray:
    """Elements first … first + count - 1 of the stream, uint64."""
    index = np.arange(first + 1, first + count + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(seed_of(name)) + index * np.uint64(GOLDEN_RATIO)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def signs(name: str, count: int) -> np.ndarray:
    return np.where(words(name, count) >> np.uint64(63), -1.0, 1.0)


def uniform(name: str, shape, scale: float = 1.0) -> np.ndarray:
    """float32 of this shape (row-major) in (-scale, scale); scale is a power of two."""
    count = int(np.prod(shape))
    top = (words(name, count) >> np.uint64(40)).astype(np.int64) * 2 - (1 << 24) + 1
    return (top.astype(np.float64) / (1 << 24) * scale).astype(np.float32).reshape(shape)


def below(name: str, count: int, limit: int) -> np.ndarray:
    return ((words(name, count) >> np.uint64(33)) % np.uint64(limit)).astype(np.int64)


def projections(values: np.ndarray, count: int = 16) -> np.ndarray:
    """count sums of the values under random signs, in float64: the mean square of two arrays' differences in them is an
    unbiased estimate of the squared norm of the arrays' difference.  values (..., n) -> (..., count)."""
    flat = np.asarray(values, np.float64)
    matrix = np.stack([signs(f"projection {k}", flat.shape[-1]) for k in range(count)], axis=1)
    return flat @ matrix


def relative_error(ours: np.ndarray, golden: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """The estimated relative norm of the difference, from both sides' projections and the golden norm."""
    return np.sqrt(np.mean((np.asarray(ours) - np.asarray(golden)) ** 2, axis=-1)) / norm
