"""How a weight was rounded before lcc read it: levels, scales and offsets of blocks of inputs."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


class Levels(NamedTuple):
    """Rows [n, K] of a weight that was rounded once: weight = level * scale + offset.

    level   [n, K] uint8
    scale   [n, K / block] float32, of blocks of neighbouring inputs
    offset  likewise
    """

    level: Tensor
    scale: Tensor
    offset: Tensor


class Rounded(NamedTuple):
    """How the rows [n, K] of a weight were rounded before lcc read it.

    rows        from row, to row -> their levels
    bits        4 or 8: levels are below 2^bits
    block       inputs that share a scale, 16 or 32
    about_zero  the offset of every block is -2^(bits - 1) times its scale
    """

    rows: Callable[[int, int], Levels]
    bits: int
    block: int
    about_zero: bool
