"""Where a GGUF file arranges the numbers of a tensor in another way than transformers does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Layout = Callable[[Sequence[Tensor], Any], Tensor]
"""Tensors of the file, and the configuration -> the tensor of the module."""


def as_it_is(parts: Sequence[Tensor], config: Any) -> Tensor:
    """One tensor, unchanged."""
    (only,) = parts
    return only


def query_rows(parts: Sequence[Tensor], config: Any) -> Tensor:
    """[Hq*D, ...]: the file has the two halves of each head interleaved."""
    return _halves_apart(parts[0], config.num_attention_heads)


def key_rows(parts: Sequence[Tensor], config: Any) -> Tensor:
    """[Hkv*D, ...]: as `query_rows`."""
    return _halves_apart(parts[0], config.num_key_value_heads)


def _halves_apart(rows: Tensor, heads: int) -> Tensor:
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.transpose(1, 2).reshape(rows.shape)


ROWS_ONLY = (as_it_is, query_rows, key_rows)
"""Layouts that move whole rows, whatever these hold."""


def one_less(parts: Sequence[Tensor], config: Any) -> Tensor:
    """The weight of a norm that multiplies by 1 + weight: the file has the sum."""
    return parts[0] - 1


def transposed(parts: Sequence[Tensor], config: Any) -> Tensor:
    """A weight that transformers has as [in, out], and a bias unchanged."""
    return parts[0].T if parts[0].dim() == 2 else parts[0]


def one_row(parts: Sequence[Tensor], config: Any) -> Tensor:
    """[1, in]: the file has no dimension of size one."""
    return parts[0].reshape(1, -1)


def gate_and_up(parts: Sequence[Tensor], config: Any) -> Tensor:
    """[experts, 2*inner, hidden] of the gates and what they multiply, one after the other."""
    return torch.cat(list(parts), dim=1)


def gates_interleaved(parts: Sequence[Tensor], config: Any) -> Tensor:
    """[experts, hidden, 2*inner], or [experts, 2*inner] of biases: gate and up take turns."""
    pairs = torch.stack(list(parts), dim=2).flatten(1, 2)
    return pairs.transpose(1, 2) if pairs.dim() == 3 else pairs


def expert_columns(parts: Sequence[Tensor], config: Any) -> Tensor:
    """[experts, in, out] of a weight, and biases unchanged."""
    return parts[0].transpose(1, 2) if parts[0].dim() == 3 else parts[0]


def falcon_rows(parts: Sequence[Tensor], config: Any) -> Tensor:
    """[groups*(queries of a group + 2)*D, ...]: the file has queries, then keys, then values."""
    groups = config.num_kv_heads if config.new_decoder_architecture else 1
    if not (config.new_decoder_architecture or config.multi_query):
        groups = config.num_attention_heads
    return _grouped(parts[0], config.num_attention_heads, groups)


def neox_rows(parts: Sequence[Tensor], config: Any) -> Tensor:
    """[heads*3*D, ...]: the file has queries, then keys, then values."""
    return _grouped(parts[0], config.num_attention_heads, config.num_attention_heads)


def _grouped(rows: Tensor, heads: int, groups: int) -> Tensor:
    size = rows.shape[0] // (heads + 2 * groups)
    parts = rows.split([heads * size, groups * size, groups * size])
    shaped = [part.reshape(groups, -1, size, *rows.shape[1:]) for part in parts]
    return torch.cat(shaped, dim=1).reshape(rows.shape)


def latent_rows(parts: Sequence[Tensor], config: Any) -> Tensor:
    """[heads*(nope + value), rank]: the file has keys [heads, rank, nope] and values apart."""
    keys, values = parts
    return torch.cat([keys.transpose(1, 2), values], dim=1).flatten(0, 1)
