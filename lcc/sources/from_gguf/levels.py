"""Tensors of GGUF files -> the levels that they were rounded to, and what each block makes of them.

    Q4_0    weight = (level - 8) * d                    blocks of 32
    Q4_1    weight = level * d + m                      blocks of 32
    Q4_K    weight = level * d * scale - dmin * min     blocks of 32, 8 of which share d and dmin
    Q5_0, Q5_1, Q5_K    the same with a fifth bit; about 16
    Q6_K    weight = (level - 32) * d * scale           blocks of 16, 16 of which share d
    Q8_0    weight = level * d, levels with a sign      blocks of 32

As ggml defines them (`ggml-common.h`, `ggml-quants.c`). Levels of more than 4 bits are given in 8,
about 128 where they were about a middle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch

from lcc.ir.rounded import Levels

MIDDLE = 128
Parts = tuple[np.ndarray, np.ndarray, np.ndarray]


def _nibbles(data: np.ndarray) -> np.ndarray:
    """The lower halves of all bytes, then the higher ones."""
    return np.concatenate((data & 15, data >> 4), axis=-1)


def _half(data: np.ndarray, place: int) -> np.ndarray:
    return np.ascontiguousarray(data[..., place : place + 2]).view(np.float16).astype(np.float32)


def _fifth(data: np.ndarray) -> np.ndarray:
    """Bits of 4 bytes, the lowest first, in the place of a fifth one."""
    return np.unpackbits(data, axis=-1, bitorder="little") << 4


def _q4_0(blocks: np.ndarray) -> Parts:
    scale = _half(blocks, 0)
    return _nibbles(blocks[..., 2:]), scale, -8 * scale


def _q4_1(blocks: np.ndarray) -> Parts:
    return _nibbles(blocks[..., 4:]), _half(blocks, 0), _half(blocks, 2)


def _q5_0(blocks: np.ndarray) -> Parts:
    scale = _half(blocks, 0)
    level = _nibbles(blocks[..., 6:]) | _fifth(blocks[..., 2:6])
    return level + np.uint8(MIDDLE - 16), scale, -MIDDLE * scale


def _q5_1(blocks: np.ndarray) -> Parts:
    level = _nibbles(blocks[..., 8:]) | _fifth(blocks[..., 4:8])
    return level, _half(blocks, 0), _half(blocks, 2)


def _q8_0(blocks: np.ndarray) -> Parts:
    scale = _half(blocks, 0)
    return blocks[..., 2:] ^ np.uint8(MIDDLE), scale, -MIDDLE * scale


def _k_scales(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and minima of 8 blocks, 6 bits each, out of 12 bytes."""
    first, second, third = (blocks[..., 4 + 4 * i : 8 + 4 * i] for i in range(3))
    scale = np.concatenate((first & 63, third & 15 | (first >> 6) << 4), axis=-1)
    least = np.concatenate((second & 63, third >> 4 | (second >> 6) << 4), axis=-1)
    return _half(blocks, 0) * scale, -(_half(blocks, 2) * least)


def _q4_k(blocks: np.ndarray) -> Parts:
    pairs = blocks[..., 16:].reshape(*blocks.shape[:-1], 4, 32)
    return _nibbles(pairs).reshape(*blocks.shape[:-1], 256), *_k_scales(blocks)


def _q5_k(blocks: np.ndarray) -> Parts:
    pairs = blocks[..., 48:].reshape(*blocks.shape[:-1], 4, 32)
    level = _nibbles(pairs).reshape(*blocks.shape[:-1], 8, 32)
    high = blocks[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return (level | high << 4).reshape(*blocks.shape[:-1], 256), *_k_scales(blocks)


def _q6_k(blocks: np.ndarray) -> Parts:
    low = _nibbles(blocks[..., :128].reshape(*blocks.shape[:-1], 2, 64))
    pairs = blocks[..., None, 128:192].reshape(*blocks.shape[:-1], 2, 1, 32)
    high = pairs >> (2 * np.arange(4, dtype=np.uint8))[:, None] & 3
    level = low.reshape(*blocks.shape[:-1], 2, 4, 32) | high << 4
    scale = np.ascontiguousarray(blocks[..., 192:208]).view(np.int8) * _half(blocks, 208)
    level = level.reshape(*blocks.shape[:-1], 256) + np.uint8(MIDDLE - 32)
    return level, scale, -MIDDLE * scale


class Kind(NamedTuple):
    """A ggml type.

    numbers     of one of its blocks, and the bytes they take
    read        bytes of blocks [.., size] -> levels, and scales and offsets of blocks
    bits, block, about_zero     see `Rounded`
    """

    numbers: int
    size: int
    read: Callable[[np.ndarray], Parts]
    bits: int
    block: int
    about_zero: bool


KINDS: Mapping[int, Kind] = {
    2: Kind(32, 18, _q4_0, 4, 32, about_zero=True),
    3: Kind(32, 20, _q4_1, 4, 32, about_zero=False),
    6: Kind(32, 22, _q5_0, 8, 32, about_zero=True),
    7: Kind(32, 24, _q5_1, 8, 32, about_zero=False),
    8: Kind(32, 34, _q8_0, 8, 32, about_zero=True),
    12: Kind(256, 144, _q4_k, 4, 32, about_zero=False),
    13: Kind(256, 176, _q5_k, 8, 32, about_zero=False),
    14: Kind(256, 210, _q6_k, 8, 16, about_zero=True),
}


def levels_of(kind: int, data: np.ndarray, inputs: int) -> Levels:
    """Rows of a tensor.

    kind    number of its ggml type, one of `KINDS`
    data    uint8, whole rows of `inputs` numbers
    """
    numbers, size, read, *_ = KINDS[kind]
    level, scale, offset = read(data.reshape(-1, inputs // numbers, size))
    rows = len(level)
    return Levels(
        torch.from_numpy(level.reshape(rows, inputs)),
        torch.from_numpy(scale.reshape(rows, -1)),
        torch.from_numpy(offset.reshape(rows, -1)),
    )
