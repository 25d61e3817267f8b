"""FP8: weight = number * scale, a scale for each block of 128 x 128, or one for all.

    X           float8_e4m3fn [.., N, K]
    X_scale_inv float [.., N / 128, K / 128], rounded up; or [] or [1]

As DeepSeek V3 and transformers' fine-grained FP8 have it ("inv": what the numbers were divided by
is what they are multiplied with).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lcc.errors import ModelError
from lcc.ir.lazy_tensor import LazyTensor
from lcc.sources.quantized.parts import packed_weight, with_suffix

SUFFIX = "_scale_inv"
# Scales of what the kernels of others round before a product, which lcc does not round.
OF_INPUTS = (".activation_scale", ".input_scale")


def unpack(
    tensors: dict[str, LazyTensor], page: Mapping[str, Any], name: str
) -> dict[str, LazyTensor]:
    """See the package; `weight_block_size` of `page` are rows and columns of a block."""
    size = tuple(page.get("weight_block_size") or (128, 128))
    for suffix in OF_INPUTS:
        for prefix in with_suffix(tensors, suffix):
            del tensors[prefix + suffix]
    for prefix in with_suffix(tensors, SUFFIX):
        if prefix not in tensors:
            raise ModelError(f"{name}: {prefix}{SUFFIX} is there, {prefix} is not")
        scales = tensors.pop(prefix + SUFFIX)
        tensors[prefix] = scaled(tensors[prefix], scales, size, prefix, name)
    refuse_unscaled(tensors, name)
    return tensors


def refuse_unscaled(tensors: Mapping[str, LazyTensor], name: str) -> None:
    """Refuse numbers of 8 bits that nothing says the scale of.

    Raises:
        ModelError: names the first.
    """
    for key, tensor in tensors.items():
        if tensor.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
            raise ModelError(f"{name}: {key} is {tensor.dtype}, and has no scale beside it")


def scaled(
    numbers: LazyTensor, scales: LazyTensor, size: tuple[int, ...], what: str, name: str
) -> LazyTensor:
    """Numbers of 8 bits times the scales of their blocks, or of all of them.

    numbers     [.., N, K]
    scales      [.., N / size[0], K / size[1]], rounded up; or of one number

    Raises:
        ModelError: the shapes do not fit.
    """
    wanted = (*numbers.shape[:-2], *(-(-numbers.shape[i] // size[i]) for i in (-2, -1)))
    if scales.numel() != 1 and tuple(scales.shape) != wanted:
        raise ModelError(
            f"{name}: the scales of {what} are {list(scales.shape)}, wanted {list(wanted)} for "
            f"{list(numbers.shape)} in blocks of {size[0]} x {size[1]}"
        )

    def rows(start: int, stop: int) -> Tensor:
        some = numbers.rows(start, stop).float()
        if scales.numel() == 1:
            return some * scales.whole().float().reshape(())
        if numbers.dim() > 2:
            scale = scales.rows(start, stop).float().repeat_interleave(size[0], -2)
            scale = scale[..., : numbers.shape[-2], :]
        else:
            first, last = start // size[0], -(-stop // size[0])
            scale = scales.rows(first, last).float().repeat_interleave(size[0], 0)
            scale = scale[start - first * size[0] : stop - first * size[0]]
        return some * scale.repeat_interleave(size[1], -1)[..., : numbers.shape[-1]]

    return packed_weight(numbers.shape, (numbers, scales), rows)
