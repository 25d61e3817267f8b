"""AWQ: weight[n, k] = (level[k, n] - zero[g, n]) * scale[g, n], groups of neighbouring inputs.

    qweight  int32 [K, N / 8]   levels of 4 bits, eight outputs in a number, in the order below
    qzeros   int32 [G, N / 8]   the same
    scales   float [G, N]

As AutoAWQ writes its version "gemm".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lcc.ir.lazy_tensor import LazyTensor
from lcc.ir.rounded import Levels, Rounded
from lcc.sources.quantized.parts import (
    BLOCK,
    check_shape,
    fields_of,
    need,
    of_groups,
    packed_weight,
    take,
    whole_parts,
    with_suffix,
)

# Which of eight neighbouring outputs each four bits are of, the lowest first.
ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def unpack(
    tensors: dict[str, LazyTensor], page: Mapping[str, Any], name: str
) -> dict[str, LazyTensor]:
    """See the package."""
    need(page, "bits", (4,), name)
    need({"version": "gemm", **page}, "version", ("gemm", "GEMM"), name)
    for prefix in with_suffix(tensors, ".qweight"):
        parts = take(tensors, prefix, (".qweight", ".qzeros", ".scales"), name)
        levels, zeros, scales = parts
        groups, outputs = scales.shape
        check_shape(levels, (levels.shape[0], outputs // 8), f"{prefix}.qweight", name)
        check_shape(zeros, (groups, outputs // 8), f"{prefix}.qzeros", name)
        tensors[f"{prefix}.weight"] = _weight(parts)
    return tensors


def _weight(parts: list[LazyTensor]) -> LazyTensor:
    inputs, (groups, outputs) = parts[0].shape[0], parts[2].shape

    def unpacked(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        packed, zeros, scales = whole_parts(parts)
        first, last = start // 8, -(-stop // 8)  # in steps of eight outputs, and cut then
        some = slice(start - first * 8, stop - first * 8)
        level = _in_order(packed[:, first:last])[:, some]
        zero = _in_order(zeros[:, first:last])[:, some].float()
        return level, zero, scales[:, start:stop].float()

    def rows(start: int, stop: int) -> Tensor:
        level, zero, scale = unpacked(start, stop)
        grouped = level.float().reshape(groups, -1, stop - start)
        made = (grouped - zero[:, None]) * scale[:, None]
        return made.reshape(inputs, -1).t().contiguous()

    def levels(start: int, stop: int) -> Levels:
        level, zero, scale = unpacked(start, stop)
        return of_groups(level.t(), scale.t(), -zero.t() * scale.t())

    weight = packed_weight((outputs, inputs), parts, rows)
    if inputs // groups % BLOCK == 0:
        weight.rounded = Rounded(levels, 4, BLOCK, about_zero=False)
    return weight


def _in_order(packed: Tensor) -> Tensor:
    """Int32 [r, n] -> uint8 [r, 8 n], in the order of the outputs."""
    mixed = fields_of(packed, 4, 1).reshape(len(packed), -1, 8)
    return mixed[..., torch.tensor(ORDER).argsort()].flatten(1)
