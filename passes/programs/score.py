"""The program `score`: how much attention queries pay to each entry of a layer; no weights."""

from typing import Literal

import torch
from torch import Tensor, nn

from lcc.ir.program import Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.policies import EvictionPolicy


class Score(nn.Module):
    """Adds what some queries pay to what was paid before.

    queries   [n, Hq, D]      float32, rotated
    key       [1, Hkv, S, D]  float32, rotated
    start     [1]             int32, slot of the first query; query j sees slots 0 .. start + j
    known     [1]             int32, entries that have a score from before: slots 0 .. known-1
    layer     [1]             int32
    paid      [Hkv, S], or [S] where all layers and KV heads add to one score; float32

    returns   the same shape: decay * paid + softmax over the visible slots, pooled over the
              queries, then over the query heads of one KV head; 0 where no query sees. Of one score
              for all it is the mean over the KV heads of all layers, and the first layer begins it.

    KV heads are worked on one after the other, so that a call never holds the logits of all.
    """

    def __init__(
        self,
        *,
        scale: float,
        query_pool: Literal["sum", "max"] = "sum",
        group_pool: Literal["mean", "max"] = "mean",
        softcap: float = 0.0,
        decay: float = 0.0,
        sinks: Tensor | None = None,
        bias: Tensor | None = None,
        for_all: tuple[int, int] | None = None,
    ) -> None:
        """Keep the numbers of a layer.

        softcap     bounds the logits as the layer itself does (Gemma 2); 0 = it does not
        decay       share of the earlier score that is kept
        sinks, bias of a layer's attention, see `lcc::cached_attention`
        for_all     the first layer that is scored and the number of KV heads of all of them, where
                    they share one score
        """
        super().__init__()
        self.scale, self.softcap, self.decay = scale, softcap, decay
        self.query_pool, self.group_pool, self.for_all = query_pool, group_pool, for_all
        self.sinks: Tensor | None
        self.bias: Tensor | None
        self.register_buffer("sinks", sinks)
        self.register_buffer("bias", bias)

    def forward(
        self,
        queries: Tensor,
        key: Tensor,
        start: Tensor,
        known: Tensor,
        layer: Tensor,
        paid: Tensor,
    ) -> Tensor:
        """See the class."""
        n, query_heads, size = queries.shape
        heads, slots = key.shape[1:3]
        slot = torch.arange(slots)
        hidden = slot > start + torch.arange(n)[:, None]  # [n, S]
        # Added, not filled in: ONNX Runtime's Where takes its output's memory several times over.
        mask = torch.zeros(()).masked_fill(hidden, -torch.inf)
        grouped = (queries * self.scale).reshape(n, heads, query_heads // heads, size)
        grouped = grouped.permute(1, 2, 0, 3).reshape(heads, -1, size)  # [Hkv, Hq/Hkv*n, D]
        rows = []
        for head in range(heads):
            logits = grouped[head] @ key[0, head].transpose(0, 1)
            if self.softcap:
                logits = self.softcap * torch.tanh(logits / self.softcap)
            logits = logits.reshape(query_heads // heads, n, slots) + mask
            attention = self._shares(logits, head)
            attention = attention.sum(1) if self.query_pool == "sum" else attention.amax(1)
            group = attention.mean(0) if self.group_pool == "mean" else attention.amax(0)
            rows.append(group[None])
        new = torch.cat(rows)  # [Hkv, S]
        if self.for_all is not None:
            first, count = self.for_all
            return torch.where(layer == first, 0.0, paid) + new.sum(0) / count
        if self.decay == 0:
            return new
        return torch.where(slot < known, paid * self.decay, 0.0) + new

    def _shares(self, logits: Tensor, head: int) -> Tensor:
        """[Hq/Hkv, n, S] softmax of the logits of one KV head."""
        group, n, slots = logits.shape
        mine = slice(head * group, (head + 1) * group)
        if self.bias is not None:
            logits = logits + self.bias[mine, None, :slots]
        if self.sinks is None:
            return logits.softmax(-1)
        sinks = self.sinks[mine, None, None].expand(-1, n, -1)
        return torch.cat((logits, sinks), dim=-1).softmax(-1)[..., :-1]


def score_program(
    name: str,
    score: Score,
    policy: EvictionPolicy,
    *,
    query_heads: int,
    kv_heads: int,
    head_size: int,
    capacity: int,
    queries: int,
) -> Program:
    """Export `score`; capacity and queries are sizes to trace with, it takes any others."""
    most = None if score.bias is None else score.bias.shape[1]
    slots = "slots", torch.export.Dim("slots", min=8, max=most)
    rows = "rows", torch.export.Dim("rows", min=1)
    (paid,) = [each for each in policy.scores if each.made_by == "queries"]
    shape = (capacity,) if paid.for_all else (kv_heads, capacity)
    one = torch.zeros(1, dtype=torch.int32)
    inputs = [
        Input(
            Port("queries", Role.QUERIES), torch.zeros(queries, query_heads, head_size), {0: rows}
        ),
        Input(Port("key", Role.KEY), torch.zeros(1, kv_heads, capacity, head_size), {2: slots}),
        *(Input(Port(each, Role.COUNTER), one.clone()) for each in ("start", "known", "layer")),
        Input(Port(paid.name, Role.ENTRY_SCORE), torch.zeros(shape), {len(shape) - 1: slots}),
    ]
    out = f"{paid.name}_out"
    return export(score, (name,), inputs, [Port(out, Role.ENTRY_SCORE)], {out: paid.name})
