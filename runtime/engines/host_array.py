"""Buffers in the host's memory, aligned as the kernels of all engines want them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register


def zeros(shape: Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
    """A new array, aligned for vector loads; pages are taken as they are first written."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    array: np.ndarray = raw[start : start + size].view(dtype).reshape(shape)
    return array
