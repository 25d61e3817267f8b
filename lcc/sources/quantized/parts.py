"""What the formats share: groups of tensors by their names, numbers of few bits in an int32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lcc.errors import ModelError
from lcc.ir.lazy_tensor import LazyTensor
from lcc.ir.rounded import Levels, Rounded
from lcc.ir.weight_reads import Latest

BLOCK = 32  # neighbouring inputs that share a scale in what lcc stores


def take(
    tensors: dict[str, LazyTensor], prefix: str, suffixes: Sequence[str], name: str
) -> list[LazyTensor]:
    """Take tensors of one weight out of a checkpoint.

    Raises:
        ModelError: one is missing.
    """
    for suffix in suffixes:
        if prefix + suffix not in tensors:
            raise ModelError(
                f"{name}: {prefix}{suffix} is missing beside {prefix}{suffixes[0]}; the checkpoint "
                "is damaged: download or convert it again"
            )
    return [tensors.pop(prefix + suffix) for suffix in suffixes]


def with_suffix(tensors: Mapping[str, Any], suffix: str) -> list[str]:
    """What stands before a suffix, of all names that end with it."""
    return [key.removesuffix(suffix) for key in tensors if key.endswith(suffix)]


def need(page: Mapping[str, Any], field: str, allowed: Sequence[Any], name: str) -> Any:
    """A field of `quantization_config`, one of the values that lcc knows.

    Raises:
        ModelError: it has another value, or none.
    """
    value = page.get(field)
    if value not in allowed:
        raise ModelError(
            f"{name}: quantization_config: {field} is {value!r}, wanted "
            f"{' or '.join(map(repr, allowed))}"
        )
    return value


def fields_of(numbers: Tensor, bits: int, axis: int) -> Tensor:
    """Numbers of `bits` bits out of int32, the lowest bits first, one behind the other on an axis.

    numbers     int32 [.., n, ..]; returns uint8 [.., n * 32 / bits, ..]
    """
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    axis %= numbers.dim()
    shape = [1] * (numbers.dim() + 1)
    shape[axis + 1] = len(shifts)
    spread = (numbers.unsqueeze(axis + 1) >> shifts.reshape(shape)) & ((1 << bits) - 1)
    return spread.to(torch.uint8).flatten(axis, axis + 1)


def packed_weight(
    shape: Sequence[int], parts: Sequence[LazyTensor], rows: Callable[[int, int], Tensor]
) -> LazyTensor:
    """A weight of float32 that is made of packed tensors, by rows."""
    keys = ("packed", *(each.key for each in parts))
    return LazyTensor(tuple(shape), torch.float32, rows, keys)


_WHOLE = Latest()


def whole_parts(parts: Sequence[LazyTensor]) -> list[Tensor]:
    """The numbers of tensors that have to be read whole for any row of a weight."""
    key = tuple(each.key for each in parts)
    return _WHOLE.of(key, lambda: [each.whole() for each in parts])


def check_groups(order: LazyTensor, groups: int, what: str, name: str) -> None:
    """Refuse groups of inputs that there are no scales of.

    Raises:
        ModelError: names the tensor.
    """
    numbers = order.whole()
    if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < groups:
        raise ModelError(f"{name}: {what} names groups outside 0 to {groups - 1}")


def check_shape(tensor: LazyTensor, wanted: Sequence[int], what: str, name: str) -> None:
    """Refuse a tensor of another shape.

    Raises:
        ModelError: says which, what it has and what was wanted.
    """
    if tuple(tensor.shape) != tuple(wanted):
        raise ModelError(f"{name}: {what} is {list(tensor.shape)}, wanted {list(wanted)}")


def of_groups(level: Tensor, scale: Tensor, offset: Tensor) -> Levels:
    """Rows of levels [n, K], with scales and offsets [n, G] of groups of whole blocks."""
    inputs = level.shape[1]
    repeats = inputs // BLOCK // scale.shape[1]
    scale, offset = (each.repeat_interleave(repeats, dim=1) for each in (scale, offset))
    return Levels(level.contiguous(), scale, offset)


def about_zero(weight: LazyTensor, scale: Callable[[int, int], Tensor]) -> Rounded:
    """Of a weight int8 [N, K], and scales [n, G] of rows and groups of whole blocks."""

    def rows(start: int, stop: int) -> Levels:
        level = (weight.rows(start, stop).int() + 128).to(torch.uint8)
        of_rows = scale(start, stop)
        return of_groups(level, of_rows, -128 * of_rows)

    return Rounded(rows, 8, BLOCK, about_zero=True)
