"""How weights of experts lie in the file: what the inner loops read is in one piece."""

import math

import numpy as np

from lcc.targets.tvm_cpu.matmul import pack, packed_shape
from lcc.targets.tvm_cpu.tir import Tiles


def pack_up(weight: np.ndarray, tiles: Tiles, *, interleaved: bool) -> np.ndarray:
    """[E, 2I, H] -> [E, ceil(I / lanes), H, 2 * lanes]: a vector of the gate and one of the rest.

    interleaved     rows are gate and other half in turn; otherwise one half, then the other
    """
    if interleaved:
        first, other = weight[:, ::2], weight[:, 1::2]
    else:
        first, other = np.split(weight, 2, axis=1)
    count, inner, width = first.shape
    vectors = math.ceil(inner / tiles.lanes)
    packed = np.zeros((count, vectors * tiles.lanes, 2, width), weight.dtype)
    packed[:, :inner, 0], packed[:, :inner, 1] = first, other
    packed = packed.reshape(count, vectors, tiles.lanes, 2, width)
    return np.ascontiguousarray(packed.transpose(0, 1, 4, 3, 2)).reshape(
        count, vectors, width, 2 * tiles.lanes
    )


def pack_down(weight: np.ndarray, tiles: Tiles) -> np.ndarray:
    """[E, H, I] -> [E, ceil(H / columns), I, columns]."""
    return np.stack([pack(each, tiles) for each in weight])


def up_shape(sizes: tuple[int, ...], tiles: Tiles) -> tuple[int, int, int, int]:
    """Shape of `sizes`, [E, 2I, H], when it is packed."""
    count, rows, width = sizes
    return count, math.ceil(rows / 2 / tiles.lanes), width, 2 * tiles.lanes


def down_shape(sizes: tuple[int, ...], tiles: Tiles) -> tuple[int, int, int, int]:
    """Shape of `sizes`, [E, H, I], when it is packed."""
    count, width, inner = sizes
    return count, *packed_shape(width, inner, tiles)
