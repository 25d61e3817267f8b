"""Attention that sees a text's first tokens and the most recent ones, in blocks of queries."""

from __future__ import annotations

import torch
from torch import Tensor

from lcc.plan import SinkWindow
from lcc.train.recompute import recomputed

BLOCK = 256  # queries attended at once


def sink_positions(positions: Tensor, kind: SinkWindow) -> Tensor:
    """Where a query stands for the first tokens: as if the window began right behind them.

    positions   [n] int64, places in the text
    returns     [n] int64 (StreamingLLM, arXiv 2309.17453; `HybridLayers` says the same of slots)
    """
    block = positions // kind.block * kind.block
    return positions - (block - (kind.window - kind.block + kind.sink)).clamp(min=0)


def attend_sparse(
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
    sink_q      [1, n, Hq, D]   rotated by `sink_positions`, for the first `kind.sink` keys
    k, v        [1, n, Hkv, D]
    returns     [1, n, Hq, D]
    """
    n, heads = k.shape[1:3]
    group = q.shape[2] // heads

    def by_head(x: Tensor) -> Tensor:  # [1, rows, Hq, D] -> [Hkv, g, rows, D]
        return x[0].unflatten(1, (heads, group)).permute(1, 2, 0, 3)

    keys, values = (x[0].transpose(0, 1)[:, None] for x in (k, v))  # [Hkv, 1, n, D]
    place = torch.arange(n, device=q.device)

    def attend_block(start: int, q: Tensor, sink_q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        end = min(start + BLOCK, n)
        sinks = min(kind.sink, end)
        first = max(sinks, start // kind.block * kind.block - kind.window + 1)
        rows, slots = place[start:end, None], torch.cat((place[:sinks], place[first:end]))
        near = rows // kind.block - slots // kind.block < kind.window // kind.block
        of_sinks = by_head(sink_q[:, start:end]) @ keys[:, :, :sinks].mT
        logits = torch.cat((of_sinks, by_head(q[:, start:end]) @ keys[:, :, first:end].mT), dim=3)
        logits = logits * scale
        if softcap:
            logits = torch.tanh(logits / softcap) * softcap
        visible = (slots <= rows) & ((slots < kind.sink) | near)
        weights = logits.masked_fill(~visible, -torch.inf).softmax(-1)
        return (weights @ values[:, :, slots]).permute(2, 0, 1, 3).flatten(1, 2)

    starts = range(0, n, BLOCK)
    return torch.cat([recomputed(attend_block, i, q, sink_q, keys, values) for i in starts])[None]
