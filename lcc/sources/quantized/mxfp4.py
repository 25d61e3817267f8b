"""MXFP4, as gpt-oss has its experts: weight = value * 2^(scale - 127), blocks of 32 inputs.

    X_blocks    uint8 [E, N, K / 32, 16]    two values of 4 bits (E2M1), the lower bits first
    X_scales    uint8 [E, N, K / 32]        exponents (E8M0)

The model has X as [E, K, N]. (OCP Microscaling Formats 1.0, 5.3 and 6.3.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lcc.ir.lazy_tensor import LazyTensor
from lcc.sources.quantized.parts import check_shape, packed_weight, take, with_suffix

BLOCK = 32
_HALF = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
VALUES = torch.tensor([*_HALF, *(-each for each in _HALF)])


def unpack(
    tensors: dict[str, LazyTensor], page: Mapping[str, Any], name: str
) -> dict[str, LazyTensor]:
    """See the package."""
    for prefix in with_suffix(tensors, "_blocks"):
        parts = take(tensors, prefix, ("_blocks", "_scales"), name)
        check_shape(parts[0], (*parts[1].shape, BLOCK // 2), f"{prefix}_blocks", name)
        tensors[prefix] = _weight(parts)
    return tensors


def _weight(parts: list[LazyTensor]) -> LazyTensor:
    experts, outputs, count = parts[1].shape

    def rows(start: int, stop: int) -> Tensor:
        packed, exponents = (each.rows(start, stop) for each in parts)
        nibbles = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2)
        values = torch.ldexp(VALUES[nibbles.int()], exponents[..., None].int() - 127)
        return values.flatten(-2).transpose(1, 2).contiguous()

    return packed_weight((experts, count * BLOCK, outputs), parts, rows)
