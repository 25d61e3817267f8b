"""Rotary embedding as plain tensors: a table of unit rotations, and the function to apply it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotation:
    """The rotation of one layer's keys and queries, by position.

    A unit rotation: an attention scaling (YaRN) that a model multiplies into its tables is divided
    out, so that turning by a difference of positions is exact: R(b) = T(b - a) R(a).

    cos, sin      [M, R/2]  float32, rounded from float64; row d turns by d positions
    interleaved   pairs are (0, 1), (2, 3), ...; otherwise (0, R/2), (1, R/2 + 1), ...

    Only the first R of the D numbers of a head turn; the rest passes (partial rotary).
    """

    cos: Tensor
    sin: Tensor
    interleaved: bool = False

    @classmethod
    def between(cls, cos: Tensor, sin: Tensor, *, interleaved: bool) -> "Rotation":
        """T(d) = R(d) R(0)^-1, of a model's own R, which may begin at any angle.

        cos, sin      [M, R/2]  float64; row p is R(p)
        """
        first, first_sin = cos[:1], sin[:1]
        turned = cos * first + sin * first_sin, sin * first - cos * first_sin
        return cls(turned[0].float(), turned[1].float(), interleaved)

    def off_by(self) -> float:
        """How far T(a + b) is from T(a) T(b), at most, beyond what rounding explains.

        0 where only differences of positions count, as they must where entries move up. A model
        that makes its angles in float32 is off by the rounding of its largest ones.
        """
        cos, sin = self.cos.double(), self.sin.double()
        rows, worst = len(cos), 0.0
        for step in {1, rows // 2} if rows > 1 else ():
            turned = cos[:-step] * cos[step] - sin[:-step] * sin[step]
            turned_sin = sin[:-step] * cos[step] + cos[:-step] * sin[step]
            error = torch.hypot(turned - cos[step:], turned_sin - sin[step:]).amax(1)
            rounding = 1e-5 + torch.arange(step, rows) * 2.0**-22
            worst = max(worst, float((error - rounding).max()))
        return max(worst, 0.0)

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
