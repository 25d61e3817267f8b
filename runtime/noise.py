"""Per-entry numbers that come from no program: noise."""

import numpy as np


def noise(seed: int, layers: int, heads: int, first_token: int, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1), one for each layer, head and token.

    returns     [layers, heads, count] float32; the same for the same token whatever came between
                (a save, a rewind, another chunk size), for it is a hash (splitmix64) and no stream
    """
    layer = np.arange(layers, dtype=np.uint64)[:, None, None]
    head = np.arange(heads, dtype=np.uint64)[:, None]
    token = np.arange(first_token, first_token + count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        mixed = (np.uint64(seed) << np.uint64(32)) + token  # a text of 2**32 tokens per seed
        mixed = _splitmix64(mixed) + (layer << np.uint64(16)) + head
        mixed = _splitmix64(mixed)
    return np.asarray((mixed >> np.uint64(40)) * 2.0**-24, np.float32)  # 24 bits: exact


def _splitmix64(number: np.ndarray) -> np.ndarray:
    """Steele, Lea, Flood: Fast splittable pseudorandom number generators (2014)."""
    number = number + np.uint64(0x9E3779B97F4A7C15)
    number = (number ^ (number >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    number = (number ^ (number >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    number ^= number >> np.uint64(31)
    return number
