"""Matrices of float32 -> whole numbers of 8 or 4 bits and the scales that give them back.

Rounding is to the nearest level, with no calibration: docs/precision.md has what it costs.
"""

from typing import NamedTuple

import numpy as np

BLOCK = 32  # neighbouring inputs of a column that share a scale, as in GGUF's Q4_0, Q4_1 and Q8_0


class Columns(NamedTuple):
    """A matrix in 8 bits: weight[k, n] = levels[k, n] * scales[n].

    levels  [K, N] int8, -127 .. 127
    scales  [N] float32
    """

    levels: np.ndarray
    scales: np.ndarray


class Blocks(NamedTuple):
    """A matrix in blocks of `BLOCK` inputs: weight = (level - middle) * scale + offset.

    levels  [N, K / BLOCK, BLOCK * bits / 8] uint8, the lower four bits first; middle is 8 or 128
    scales  [N, K / BLOCK] float32
    offsets [K / BLOCK, N] float32; None = zero
    """

    levels: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray | None = None


def columns_of_8_bits(weight: np.ndarray) -> Columns:
    """Round each column of [K, N] float32 to a scale of its own, even about zero."""
    scales = _not_zero(np.abs(weight).max(axis=0) / 127)
    return Columns(np.rint(weight / scales).astype(np.int8), scales)


def rows_of_8_bits(table: np.ndarray) -> Blocks:
    """Round blocks of each row of [N, K] float32, even about zero; K a multiple of `BLOCK`."""
    blocks = table.reshape(len(table), -1, BLOCK)
    scales = _not_zero(np.abs(blocks).max(axis=2) / 127)
    return Blocks((np.rint(blocks / scales[..., None]) + 128).astype(np.uint8), scales)


def blocks_of_4_bits(weight: np.ndarray) -> Blocks:
    """Round blocks of each column of [K, N] float32 to 16 levels, from its least to its largest.

    The levels need not meet zero, and a weight whose blocks use the lowest and the highest of 16
    levels (a model in Q4_1 once) is not changed. Where K is no multiple of `BLOCK`, the last row is
    repeated; what multiplies it must be zero.
    """
    rows = np.pad(weight, ((0, -len(weight) % BLOCK), (0, 0)), mode="edge")
    blocks = np.ascontiguousarray(rows.T).reshape(weight.shape[1], -1, BLOCK)
    least, largest = blocks.min(axis=2), blocks.max(axis=2)
    scales = _not_zero((largest - least) / 15)
    levels = np.rint((blocks - least[..., None]) / scales[..., None]).astype(np.uint8)
    offsets = np.ascontiguousarray((least + 8 * scales).T)
    return Blocks(levels[..., 0::2] | levels[..., 1::2] << 4, scales, offsets)


def blocks_about_zero(weight: np.ndarray, bits: int) -> Blocks:
    """Round blocks of the rows of [.., N, K] float32, K a multiple of `BLOCK`, about zero.

    levels  [.., N, K * bits / 8], and scales [.., N, K / BLOCK], of either sign: the number of a
            block that is farthest from zero is the lowest level, as in GGUF's Q4_0, whose weights
            are not changed
    """
    blocks = weight.reshape(*weight.shape[:-1], -1, BLOCK)
    middle = 1 << (bits - 1)
    place = np.abs(blocks).argmax(axis=-1)[..., None]
    scales = _signed(np.take_along_axis(blocks, place, axis=-1)[..., 0] / -middle)
    levels = np.rint(blocks / scales[..., None]) + middle
    levels = levels.clip(0, 2 * middle - 1).astype(np.uint8).reshape(weight.shape)
    if bits == 4:
        levels = levels[..., 0::2] | levels[..., 1::2] << 4
    return Blocks(levels, scales)


def _signed(scales: np.ndarray) -> np.ndarray:
    return np.where(scales == 0, 1, scales).astype(np.float32)


def _not_zero(scales: np.ndarray) -> np.ndarray:
    return np.where(scales > 0, scales, 1).astype(np.float32)
