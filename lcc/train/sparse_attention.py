"""Attention of sparse layers over a whole text, in blocks of queries."""

from __future__ import annotations

import torch
from torch import Tensor

from lcc.ir.plan import BlockSparse, SinkWindow
from lcc.train.recompute import recomputed

BLOCK = 256  # queries attended at once


def sink_positions(positions: Tensor, kind: SinkWindow) -> Tensor:
    """Where a query stands for the first tokens: as if the window began right behind them.

    positions   [n] int64, places in the text
    returns     [n] int64 (StreamingLLM, arXiv 2309.17453; `HybridLayers` says the same of slots)
    """
    block = positions // kind.block * kind.block
    return positions - (block - (kind.window - kind.block + kind.sink)).clamp(min=0)


def attend_window(
    q: Tensor,
    sink_q: Tensor,
    k: Tensor,
    v: Tensor,
    kind: SinkWindow,
    scale: float,
    softcap: float = 0.0,
) -> Tensor:
    """What `lcc::cached_sink_window` computes of a whole text, in memory linear in its length.

    For the gradient, too: the weights of no more than one block of queries exist at once.

    q           [1, n, Hq, D]   rotated by its place
    sink_q      [1, n, Hq, D]   rotated by `sink_positions`, for the first `kind.sink` keys; q
                                itself where every angle follows the place in the text
    k, v        [1, n, Hkv, D]
    returns     [1, n, Hq, D]
    """
    n, heads = k.shape[1:3]
    keys, values = (x[0].transpose(0, 1)[:, None] for x in (k, v))  # [Hkv, 1, n, D]
    place = torch.arange(n, device=q.device)

    def attend_block(start: int, q: Tensor, sink_q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        end = min(start + BLOCK, n)
        sinks = min(kind.sink, end)
        first = max(sinks, start // kind.block * kind.block - kind.window + 1)
        rows, slots = place[start:end, None], torch.cat((place[:sinks], place[first:end]))
        of_sinks = _by_head(sink_q[:, start:end], heads) @ keys[:, :, :sinks].mT
        near = _by_head(q[:, start:end], heads) @ keys[:, :, first:end].mT
        visible = (slots <= rows) & kind.sees(rows, slots, 0)
        weights = _weights(torch.cat((of_sinks, near), dim=3), visible, scale, softcap)
        return (weights @ values[:, :, slots]).permute(2, 0, 1, 3).flatten(1, 2)

    starts = range(0, n, BLOCK)
    return torch.cat([recomputed(attend_block, i, q, sink_q, keys, values) for i in starts])[None]


def attend_blocks(
    q: Tensor, k: Tensor, v: Tensor, kind: BlockSparse, scale: float, softcap: float = 0.0
) -> Tensor:
    """As `attend_window`, what `lcc::cached_block_sparse` computes; q and k rotated by places."""
    n, heads = k.shape[1:3]
    keys, values = (x[0].transpose(0, 1) for x in (k, v))  # [Hkv, n, D]
    head = torch.arange(heads, device=q.device)[:, None, None]

    def attend_block(start: int, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        end = min(start + BLOCK, n)
        rows = torch.arange(start, end, device=q.device)[:, None]
        slots = _slots(kind, heads, start, end).to(q.device)  # [Hkv, m]
        places = slots[:, None]
        visible = (places >= 0) & (places <= rows) & kind.sees(rows, places, head)
        held = slots.clamp(min=0)[:, :, None].expand(-1, -1, keys.shape[2])
        some_keys, some_values = (x.gather(1, held)[:, None] for x in (keys, values))
        logits = _by_head(q[:, start:end], heads) @ some_keys.mT
        weights = _weights(logits, visible[:, None], scale, softcap)
        return (weights @ some_values).permute(2, 0, 1, 3).flatten(1, 2)

    starts = range(0, n, BLOCK)
    return torch.cat([recomputed(attend_block, i, q, keys, values) for i in starts])[None]


def older_blocks(kind: BlockSparse, head: int, query: int) -> list[int]:
    """What a query in this block sees before its newest blocks: block numbers, ascending."""
    near = max(0, query - kind.local + 1)
    sinks = range(min(kind.sink, near))
    begin = -(kind.offset + head * kind.shift) % kind.stride
    oldest = max(len(sinks), query - kind.reach + 1)
    begin += max(0, -(-(oldest - begin) // kind.stride)) * kind.stride
    return [*sinks, *range(begin, near, kind.stride)]


def _slots(kind: BlockSparse, heads: int, start: int, end: int) -> Tensor:
    """[Hkv, m] places that some query in start .. end-1 may see, each once; -1 where none is left.

    Those too many for a query are among them.
    """
    first = start // kind.block
    older = [older_blocks(kind, head, first) for head in range(heads)]
    most = max(map(len, older))
    blocks = torch.tensor([[*row, *[-1] * (most - len(row))] for row in older], dtype=torch.int64)
    inside = torch.arange(kind.block)
    places = torch.where(blocks[:, :, None] < 0, -1, blocks[:, :, None] * kind.block + inside)
    newest = torch.arange(max(0, first - kind.local + 1) * kind.block, end).expand(heads, -1)
    return torch.cat((places.flatten(1), newest), dim=1)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """[1, rows, Hq, D] -> [Hkv, Hq/Hkv, rows, D]."""
    return x[0].unflatten(1, (heads, -1)).permute(1, 2, 0, 3)


def _weights(logits: Tensor, visible: Tensor, scale: float, softcap: float) -> Tensor:
    """Softmax of the logits [Hkv, g, rows, m] that are visible."""
    logits = logits * scale
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    return logits.masked_fill(~visible, -torch.inf).softmax(-1)
