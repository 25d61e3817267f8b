"""What lowerings of attention to tensors have in common: logits, and what a query sees."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lcc.ir.plan import BlockSparse


def logits(q: Tensor, keys: Tensor, scale: float, softcap: float) -> Tensor:
    """[Hkv, Hq/Hkv * Q, S] of queries [1, Q, Hq, D] over keys [Hkv, S, D]; softcap 0 = none."""
    length, query_heads, size = q.shape[1:]
    heads = keys.shape[0]
    rows = (q * scale).reshape(length, heads, query_heads // heads, size).permute(1, 2, 0, 3)
    out = rows.reshape(heads, -1, size) @ keys.transpose(1, 2)
    return torch.tanh(out / softcap) * softcap if softcap > 0 else out


def window_seen(query: Tensor, slot: Tensor, sink: int, window: int, block: int) -> Tensor:
    """Bool, of slots not after the query: whether `lcc::cached_sink_window` lets it see them."""
    oldest = query - window
    if block > 1:
        oldest = query // block * block - window + block - 1
    return (slot < sink) | (slot > oldest)


def blocks_seen(
    places: Tensor, used: Tensor, length: int, heads: int, numbers: Sequence[float]
) -> Tensor:
    """The same of `lcc::cached_block_sparse`: [Hkv, Q, S], or [1, Q, S] where all heads see alike.

    places      [H, S] int64, H >= heads    used    [1] int32, slot of the first of `length` queries
    numbers     of the kind, in the order of its fields
    """
    fields = zip(BlockSparse.__struct_fields__, map(int, numbers), strict=True)
    kind = BlockSparse(**dict(fields))
    held = places[: heads if kind.shift else 1, None]  # [H, 1, S]
    query = held.index_select(2, used.long()) + torch.arange(length)[:, None]  # [H, Q, 1]
    return kind.sees(query, held, torch.arange(held.shape[0])[:, None, None])
