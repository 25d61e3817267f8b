"""Rotary embedding as plain tensors: a table of unit rotations, and the function to apply it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotation:
    """The rotation of one layer's keys and queries, by position.

    A unit rotation: an attention scaling (YaRN) that a model multiplies into its tables is divided
    out, so that turning by a difference of positions is exact: R(b) = R(b - a) R(a).

    cos, sin      [M, R/2]  float32, rounded from float64; row p turns by position p
    interleaved   pairs are (0, 1), (2, 3), ...; otherwise (0, R/2), (1, R/2 + 1), ...

    Only the first R of the D numbers of a head turn; the rest passes (partial rotary).
    """

    cos: Tensor
    sin: Tensor
    interleaved: bool = False

    @classmethod
    def from_frequencies(
        cls, frequencies: Tensor, positions: int, *, interleaved: bool = False
    ) -> "Rotation":
        """Tables for positions 0 .. positions-1 of a rotation by `position * frequency`.

        frequencies   [R/2]  radians per position; a float32 angle of a few thousand radians is
                             already wrong by 1e-4, hence float64 until the last step
        """
        angles = torch.arange(positions)[:, None] * frequencies.to(torch.float64)  # [M, R/2]
        return cls(angles.cos().float(), angles.sin().float(), interleaved)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Turn each pair of numbers of `x` by the angle whose cosine and sine are given.

    x          [..., n, D]
    cos, sin   [n, R/2], or anything that broadcasts to [..., n, R/2]
    returns    [..., n, D]; numbers R .. D-1 as they were
    """
    half = cos.shape[-1]
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    if interleaved:
        a, b = turned.unflatten(-1, (half, 2)).unbind(-1)
        turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        a, b = turned[..., :half], turned[..., half:]
        turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned
