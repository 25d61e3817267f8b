"""compressed-tensors (llm-compressor, vLLM): weight = (number - zero) * scale.

pack-quantized      weight_packed int32 [N, K * bits / 32], numbers plus 2^(bits - 1), of 4 or 8
                    bits; weight_shape [2]; weight_zero_point int32 [N * bits / 32, G]
int-quantized       weight int8 [N, K]; weight_zero_point int8 [N, G]
float-quantized     weight float8_e4m3fn [N, K]
naive-quantized     either of the two before

weight_scale        [N, G] by groups of inputs, [N, 1] by rows, [1] for all, or of blocks
weight_g_idx        int32 [K], the group of each input, where they were quantized in another
                    order
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lcc.errors import ModelError
from lcc.ir.lazy_tensor import LazyTensor
from lcc.ir.rounded import Levels, Rounded
from lcc.sources.quantized.fp8 import refuse_unscaled, scaled
from lcc.sources.quantized.parts import (
    BLOCK,
    about_zero,
    check_groups,
    check_shape,
    fields_of,
    need,
    of_groups,
    packed_weight,
    take,
    with_suffix,
)

FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized")
# Scales of what the kernels of others round while they read; lcc does not round it.
OF_ACTIVATIONS = (".input_scale", ".input_zero_point", ".output_scale", ".output_zero_point")
OF_CACHES = (".k_scale", ".v_scale", ".q_scale")


def unpack(
    tensors: dict[str, LazyTensor], page: Mapping[str, Any], name: str
) -> dict[str, LazyTensor]:
    """See the package; each module of `page` has bits and strategy of its group."""
    need(page, "format", FORMATS, name)
    # Rotations that the model would have to undo as it reads; weights of which some are left out.
    need({"transform_config": None, **page}, "transform_config", (None, {}), name)
    need({"format": "dense"} | (page.get("sparsity_config") or {}), "format", ("dense",), name)
    for suffix in (*OF_ACTIVATIONS, *OF_CACHES):
        for prefix in with_suffix(tensors, suffix):
            del tensors[prefix + suffix]
    for prefix in with_suffix(tensors, ".weight_packed"):
        tensors[f"{prefix}.weight"] = _packed(tensors, prefix, name)
    for prefix in with_suffix(tensors, ".weight_scale"):
        tensors[f"{prefix}.weight"] = _plain(tensors, prefix, page, name)
    refuse_unscaled(tensors, name)
    return tensors


def _packed(tensors: dict[str, LazyTensor], prefix: str, name: str) -> LazyTensor:
    parts = take(tensors, prefix, (".weight_packed", ".weight_scale"), name)
    (sizes,) = take(tensors, prefix, (".weight_shape",), name)
    outputs, inputs = (int(size) for size in sizes.whole().tolist())
    bits = 4 if parts[0].shape[1] == -(-inputs // 8) else 8
    check_shape(parts[0], (outputs, -(-inputs * bits // 32)), f"{prefix}.weight_packed", name)
    zeros = tensors.pop(f"{prefix}.weight_zero_point", None)
    middle = 1 << (bits - 1)
    if zeros is not None:
        wanted = (-(-outputs * bits // 32), parts[1].shape[-1])
        check_shape(zeros, wanted, f"{prefix}.weight_zero_point", name)

    def numbers(start: int, stop: int) -> Tensor:
        return fields_of(parts[0].rows(start, stop), bits, 1)[:, :inputs].float() - middle

    def zero(start: int, stop: int) -> Tensor:
        assert zeros is not None
        return fields_of(zeros.whole(), bits, 0)[start:stop].float() - middle

    more = [each for each in (zeros,) if each is not None]
    in_order = f"{prefix}.weight_g_idx" not in tensors
    weight = _by_groups(
        tensors, prefix, (outputs, inputs), [*parts, *more], numbers, zero if more else None, name
    )

    def levels(start: int, stop: int) -> Levels:
        level = fields_of(parts[0].rows(start, stop), bits, 1)[:, :inputs]
        scale = parts[1].rows(start, stop).float()
        offset = -(middle + zero(start, stop)) * scale if more else -middle * scale
        return of_groups(level, scale, offset)

    if in_order and inputs % (parts[1].shape[1] * BLOCK) == 0:
        weight.rounded = Rounded(levels, bits, BLOCK, about_zero=not more)
    return weight


def _plain(
    tensors: dict[str, LazyTensor], prefix: str, page: Mapping[str, Any], name: str
) -> LazyTensor:
    weight, scales = take(tensors, prefix, (".weight", ".weight_scale"), name)
    zeros = tensors.pop(f"{prefix}.weight_zero_point", None)
    blocks = scales.dim() == 2 and scales.shape[0] not in (1, weight.shape[0])
    if blocks or scales.numel() == 1:
        if zeros is not None and bool(zeros.whole().any()):
            raise ModelError(f"{name}: {prefix}: zero points of blocks, which lcc does not read")
        return scaled(
            weight, scales, _block_size(page, prefix, name) if blocks else (1, 1), prefix, name
        )
    if zeros is not None:
        check_shape(zeros, tuple(scales.shape), f"{prefix}.weight_zero_point", name)
    more = [each for each in (zeros,) if each is not None]
    in_order = f"{prefix}.weight_g_idx" not in tensors
    made = _by_groups(
        tensors,
        prefix,
        tuple(weight.shape),
        [weight, scales, *more],
        lambda start, stop: weight.rows(start, stop).float(),
        (lambda start, stop: zeros.rows(start, stop).float()) if zeros is not None else None,
        name,
    )
    whole_blocks = weight.shape[1] % (scales.shape[1] * BLOCK) == 0
    if weight.dtype == torch.int8 and not more and in_order and whole_blocks:
        made.rounded = about_zero(weight, lambda start, stop: scales.rows(start, stop).float())
    return made


def _block_size(page: Mapping[str, Any], prefix: str, name: str) -> tuple[int, ...]:
    groups = page.get("config_groups") or {}
    for each in groups.values():
        size = (each.get("weights") or {}).get("block_structure")
        if size:
            return tuple(map(int, size.split("x") if isinstance(size, str) else size))
    raise ModelError(f"{name}: {prefix}: scales of blocks, and no block_structure in config_groups")


def _by_groups(
    tensors: dict[str, LazyTensor],
    prefix: str,
    shape: tuple[int, ...],
    parts: list[LazyTensor],
    numbers: Any,
    zero: Any,
    name: str,
) -> LazyTensor:
    """Numbers [N, K] less a zero and times a scale, both by rows and groups of inputs."""
    outputs, inputs = shape
    scales = parts[1]
    groups = scales.shape[1] if scales.dim() == 2 else 1
    check_shape(scales, (outputs, groups), f"{prefix}.weight_scale", name)
    order = tensors.pop(f"{prefix}.weight_g_idx", None)
    group = None if order is None else order.whole().long()
    if group is not None and bool((group < 0).all()):  # none was needed
        group = None
    elif order is not None:
        check_shape(order, (inputs,), f"{prefix}.weight_g_idx", name)
        check_groups(order, groups, f"{prefix}.weight_g_idx", name)
    if group is None and inputs % groups:
        raise ModelError(f"{name}: {prefix}: {inputs} inputs in {groups} groups")
    if group is None:
        group = torch.arange(inputs) // (inputs // groups)
    check = group

    def rows(start: int, stop: int) -> Tensor:
        made = numbers(start, stop)
        if zero is not None:
            made = made - zero(start, stop)[:, check]
        return made * scales.rows(start, stop).float()[:, check]

    more = [order] if order is not None else []
    return packed_weight(shape, [*parts, *more], rows)
