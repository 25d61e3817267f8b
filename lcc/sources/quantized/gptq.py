"""GPTQ: weight[n, k] = (level[k, n] - zero[g, n]) * scale[g, n], where g is the group of input k.

    qweight  int32 [K * bits / 32, N]   levels, packed along the inputs
    qzeros   int32 [G, N * bits / 32]   packed along the outputs; in the first format less one
    scales   float [G, N]
    g_idx    int32 [K]                  the group of each input: any order, after act-order

As AutoGPTQ and GPTQModel write it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lcc.errors import ModelError
from lcc.ir.lazy_tensor import LazyTensor
from lcc.ir.rounded import Levels, Rounded
from lcc.sources.quantized.parts import (
    BLOCK,
    check_groups,
    check_shape,
    fields_of,
    need,
    of_groups,
    packed_weight,
    take,
    whole_parts,
    with_suffix,
)


def unpack(
    tensors: dict[str, LazyTensor], page: Mapping[str, Any], name: str
) -> dict[str, LazyTensor]:
    """See the package; `page` says bits, group size and which of two formats."""
    bits = need(page, "bits", (2, 4, 8), name)
    kind = need(
        {"checkpoint_format": "gptq", **page}, "checkpoint_format", ("gptq", "gptq_v2"), name
    )
    for prefix in with_suffix(tensors, ".qweight"):
        parts = take(tensors, prefix, (".qweight", ".qzeros", ".scales"), name)
        if f"{prefix}.g_idx" in tensors:
            parts.append(tensors.pop(f"{prefix}.g_idx"))
        tensors[f"{prefix}.weight"] = _weight(prefix, parts, page, bits, kind, name)
    return tensors


def _weight(
    prefix: str,
    parts: list[LazyTensor],
    page: Mapping[str, Any],
    bits: int,
    kind: str,
    name: str,
) -> LazyTensor:
    levels, zeros, scales = parts[:3]
    inputs, outputs = levels.shape[0] * 32 // bits, levels.shape[1]
    groups = scales.shape[0]
    check_shape(zeros, (groups, outputs * bits // 32), f"{prefix}.qzeros", name)
    check_shape(scales, (groups, outputs), f"{prefix}.scales", name)
    if len(parts) == 4:
        check_shape(parts[3], (inputs,), f"{prefix}.g_idx", name)
        check_groups(parts[3], groups, f"{prefix}.g_idx", name)
    elif inputs % groups or page.get("desc_act"):
        raise ModelError(f"{name}: {prefix}: {inputs} inputs in {groups} groups, and no g_idx")
    more = 1 if kind == "gptq" else 0

    def rows(start: int, stop: int) -> Tensor:
        packed, packed_zeros, all_scales, *order = whole_parts(parts)
        some = slice(start, stop)
        zero = fields_of(packed_zeros, bits, 1)[:, some].float() + more
        scale = all_scales[:, some].float()
        level = fields_of(packed[:, some], bits, 0).float()
        if order:
            group = order[0].long()
            return ((level - zero[group]) * scale[group]).t().contiguous()
        size = inputs // groups
        level = level.reshape(groups, size, -1)
        made = (level - zero[:, None]) * scale[:, None]
        return made.reshape(inputs, -1).t().contiguous()

    weight = packed_weight((outputs, inputs), parts, rows)
    size = inputs // groups

    def of_levels(start: int, stop: int) -> Levels:
        packed, packed_zeros, all_scales, *_ = whole_parts(parts)
        some = slice(start, stop)
        zero = fields_of(packed_zeros, bits, 1)[:, some].float() + more
        scale = all_scales[:, some].float()
        level = fields_of(packed[:, some], bits, 0)
        return of_groups(level.t(), scale.t(), -zero.t() * scale.t())

    in_order = len(parts) == 3 or torch.equal(
        parts[3].whole(), torch.arange(inputs, dtype=torch.int32) // max(size, 1)
    )
    if bits in (4, 8) and in_order and size % BLOCK == 0:
        every = fields_of(zeros.whole(), bits, 1) + more
        about_zero = bool((every == 1 << (bits - 1)).all())
        weight.rounded = Rounded(of_levels, bits, BLOCK, about_zero)
    return weight
