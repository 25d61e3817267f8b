"""bitsandbytes: 4 bits (NF4, FP4) by a table and a scale a block; 8 bits with a scale a row.

4 bits:
    X                       uint8 [numbers / 2, 1]   the higher bits first
    X.absmax                float [blocks], or uint8 where scales are quantized, too
    X.quant_map             float [16]              what the levels stand for
    X.nested_absmax, X.nested_quant_map             of the scales, in blocks of their own
    X.quant_state.bitsandbytes__nf4 (or __fp4)      uint8: JSON with shape, block sizes, offset
8 bits:
    X                       int8 [N, K]
    X's SCB                 float [N]               127 stands for it
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lcc.errors import ModelError
from lcc.ir.lazy_tensor import LazyTensor
from lcc.sources.quantized.parts import (
    BLOCK,
    about_zero,
    check_shape,
    packed_weight,
    take,
    with_suffix,
)

STATES = (".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4")
SCALES, FORMAT = ".SCB", ".weight_format"


def unpack(
    tensors: dict[str, LazyTensor], page: Mapping[str, Any], name: str
) -> dict[str, LazyTensor]:
    """See the package; each tensor says itself how it is packed."""
    for suffix in STATES:
        for key in with_suffix(tensors, suffix):
            state = _state(tensors.pop(key + suffix), key, name)
            tensors[key] = _of_4_bits(tensors, key, state, name)
    for prefix in with_suffix(tensors, SCALES):
        weight, scales = take(tensors, prefix, (".weight", SCALES), name)
        order = tensors.pop(prefix + FORMAT, None)
        if order is not None and int(order.whole()) != 0:
            raise ModelError(f"{name}: {prefix}{FORMAT} is {int(order.whole())}, wanted 0: by rows")
        check_shape(scales, weight.shape[:1], prefix + SCALES, name)
        tensors[f"{prefix}.weight"] = _of_8_bits(weight, scales)
    return tensors


def _state(tensor: LazyTensor, key: str, name: str) -> dict[str, Any]:
    try:
        page = dict(json.loads(bytes(tensor.whole().tolist())))
    except ValueError as error:
        raise ModelError(f"{name}: {key}: its quant_state is no JSON ({error})") from None
    if not page.get("shape") or not page.get("blocksize"):
        raise ModelError(f"{name}: {key}: its quant_state has no shape or no blocksize")
    return page


def _of_4_bits(
    tensors: dict[str, LazyTensor], key: str, state: Mapping[str, Any], name: str
) -> LazyTensor:
    parts = take(tensors, key, ("", ".absmax", ".quant_map"), name)
    shape, size, nested = (
        tuple(state["shape"]),
        int(state["blocksize"]),
        state.get("nested_blocksize"),
    )
    if nested:
        parts += take(tensors, key, (".nested_absmax", ".nested_quant_map"), name)
    blocks = -(-math.prod(shape) // size)
    if parts[1].numel() != blocks or (nested and parts[3].numel() != -(-blocks // int(nested))):
        raise ModelError(f"{name}: {key} has {parts[1].numel()} scales, wanted {blocks}")
    if parts[0].numel() * 2 < math.prod(shape) or shape[-1] % 2:
        raise ModelError(
            f"{name}: {key} has {parts[0].numel()} bytes, wanted {list(shape)} numbers"
        )
    width = math.prod(shape[1:])

    def rows(start: int, stop: int) -> Tensor:
        begin, end = start * width, stop * width
        packed = parts[0].rows(begin // 2, -(-end // 2)).flatten()
        levels = torch.stack((packed >> 4, packed & 15), dim=-1).flatten()[: end - begin]
        scale = parts[1].whole()
        if nested:
            of_scales = parts[3].whole().repeat_interleave(int(nested))[: len(scale)]
            scale = parts[4].whole()[scale.int()] * of_scales + float(state["nested_offset"])
        blocks = torch.arange(begin, end) // size
        made = parts[2].whole()[levels.int()].float() * scale.float()[blocks]
        return made.reshape(stop - start, *shape[1:])

    return packed_weight(shape, parts, rows)


def _of_8_bits(weight: LazyTensor, scales: LazyTensor) -> LazyTensor:
    def rows(start: int, stop: int) -> Tensor:
        return weight.rows(start, stop).float() * (scales.rows(start, stop).float() / 127)[:, None]

    made = packed_weight(weight.shape, (weight, scales), rows)
    if weight.shape[1] % BLOCK == 0:
        made.rounded = about_zero(weight, lambda a, b: scales.rows(a, b).float()[:, None] / 127)
    return made
