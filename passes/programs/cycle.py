"""The weightless programs, `score`, `evict`, `compact`, for one layer or a group of equals."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from lcc.passes.policies.base import Entries, EvictionPolicy
from lcc.passes.policies.merge import merge_values
from lcc.passes.rotation import Rotation, rotate

SCORE_OUTPUTS = ("attention",)
EVICT_OUTPUTS = ("kept", "kept_key", "kept_value")
COMPACT_OUTPUTS = EVICT_OUTPUTS[1:]


class Score(nn.Module):
    """How much attention each entry gets from some queries.

    queries   [Hq, n, D]      float32, rotated
    key       [1, Hkv, S, D]  float32, rotated
    start     [1]             int32, slot of the first query; query j sees slots 0 .. start + j

    returns attention [Hkv, S] float32: softmax over the visible slots, pooled over the queries,
    then over the query heads of one KV head; 0 where no query sees.
    """

    def __init__(
        self,
        *,
        scale: float,
        query_pool: Literal["sum", "max"] = "sum",
        group_pool: Literal["mean", "max"] = "mean",
        softcap: float = 0.0,
    ) -> None:
        """`softcap` bounds the logits as the layer itself does (Gemma 2); 0 = it does not."""
        super().__init__()
        self.scale, self.softcap = scale, softcap
        self.query_pool, self.group_pool = query_pool, group_pool

    def forward(self, queries: Tensor, key: Tensor, start: Tensor) -> Tensor:
        """See the class."""
        query_heads, n, size = queries.shape
        heads, slots = key.shape[1:3]
        slot = torch.arange(slots)
        hidden = slot > start + torch.arange(n)[:, None]  # [n, S]
        # Added, not filled in: ONNX Runtime's Where takes its output's memory several times over.
        mask = torch.zeros(()).masked_fill(hidden, -torch.inf)
        grouped = (queries * self.scale).reshape(heads, -1, size)  # [Hkv, Hq/Hkv*n, D]
        logits = grouped @ key[0].transpose(1, 2)
        if self.softcap:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        logits = logits.reshape(heads, query_heads // heads, n, slots)
        attention = (logits + mask).softmax(-1)
        attention = attention.sum(2) if self.query_pool == "sum" else attention.amax(2)
        return attention.mean(1) if self.group_pool == "mean" else attention.amax(1)


class Compact(nn.Module):
    """Entries that stay, in order, with closed ranks; which ones, the caller knows.

    key, value   [1, Hkv, S, D]  float32; keys rotated
    kept         [Hkv, n]        int64, slots, ascending in each head
    new_slots    [n]             int64, 0 .. n-1

    gives
    kept_key     [1, Hkv, n, D]  float32; turned from the old slot's angle to the new one's, where
                                 there is a rotation and positions are contiguous; an entry that
                                 does not move is untouched, bit for bit
    kept_value   [1, Hkv, n, D]  float32
    """

    def __init__(self, rotation: Rotation | None = None) -> None:
        """`rotation` is None under absolute positions and for layers without rotary embedding."""
        super().__init__()
        self.interleaved = rotation is not None and rotation.interleaved
        self.cos: Tensor | None
        self.sin: Tensor | None
        self.register_buffer("cos", None if rotation is None else rotation.cos)
        self.register_buffer("sin", None if rotation is None else rotation.sin)

    def forward(
        self, key: Tensor, value: Tensor, kept: Tensor, new_slots: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See the class."""
        heads, slots, size = key.shape[1:]
        count = new_slots.shape[0]
        # Whole rows of [Hkv * S, D]: a gather along S would address every single number.
        rows = (kept + slots * torch.arange(heads)[:, None]).flatten()
        kept_key = key.reshape(-1, size).index_select(0, rows).reshape(heads, count, size)
        kept_value = value.reshape(-1, size).index_select(0, rows).reshape(1, heads, count, size)
        if self.cos is not None:
            kept_key = self._turn_back(kept_key, kept - new_slots)
        return kept_key[None], kept_value

    def _turn_back(self, key: Tensor, moved: Tensor) -> Tensor:
        """Rotate `key` [Hkv, n, D] back by `moved` [Hkv, n] slots, each at least 0."""
        assert self.cos is not None
        assert self.sin is not None
        shape = (*moved.shape, self.cos.shape[1])
        cos = self.cos.index_select(0, moved.flatten()).reshape(shape)
        sin = self.sin.index_select(0, moved.flatten()).reshape(shape)
        turned = rotate(key, cos, -sin, self.interleaved)
        return torch.where((moved == 0)[:, :, None], key, turned)


class Evict(nn.Module):
    """Keep the best `budget` entries of each head, in order, and close the ranks.

    key, value   [1, Hkv, S, D]  float32; keys rotated
    used         [1]             int32, slots in use, more than `budget`
    prefix       [1]             int32, leading slots that are protected
    recent       [1]             int32, newest slots that are protected
    new_slots    [budget]        int64, 0 .. budget-1; its length is the budget
    attention, consensus, retaining, novelty, noise, sentence
                 [Hkv, S]        float32, only those of `policy.scalars`

    gives
    kept         [Hkv, budget]         int64, slots, ascending
    kept_key     [1, Hkv, budget, D]   float32; turned from the old slot's angle to the new one's,
                                       where there is a rotation and positions are contiguous;
                                       an entry that does not move is untouched, bit for bit
    kept_value   [1, Hkv, budget, D]   float32; where the policy merges, with those evicted into it
    """

    def __init__(self, policy: EvictionPolicy, rotation: Rotation | None = None) -> None:
        """`rotation` is None under absolute positions and for layers without rotary embedding."""
        super().__init__()
        self.policy, self.compact = policy, Compact(rotation)

    def forward(
        self,
        key: Tensor,
        value: Tensor,
        used: Tensor,
        prefix: Tensor,
        recent: Tensor,
        new_slots: Tensor,
        attention: Tensor | None = None,
        consensus: Tensor | None = None,
        retaining: Tensor | None = None,
        novelty: Tensor | None = None,
        noise: Tensor | None = None,
        sentence: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        budget = new_slots.shape[0]
        slot = torch.arange(key.shape[2])
        valid = slot < used
        protected = valid & ((slot < prefix) | (slot >= used - recent))
        scalars = {
            "attention": attention,
            "consensus": consensus,
            "retaining": retaining,
            "novelty": novelty,
            "noise": noise,
            "sentence": sentence,
        }
        entries = Entries(key[0], value[0], slot, valid, protected, budget, scalars)
        kept = self.policy.select(entries)
        kept_key, kept_value = self.compact(key, value, kept, new_slots)
        if (least := self.policy.config.merge) is not None:
            kept_value = merge_values(key[0], value[0], kept, valid, least)[None]
        return kept, kept_key, kept_value


def export_score(
    score: Score,
    *,
    query_heads: int,
    kv_heads: int,
    head_size: int,
    slots: int,
    queries: int,
    symbolic: bool = True,
) -> ExportedProgram:
    """Export `score`; inputs named as in its docstring, outputs in the order of SCORE_OUTPUTS.

    slots, queries   sizes to trace with; with `symbolic` the program takes any other as well
    """
    inputs = {
        "queries": torch.zeros(query_heads, queries, head_size),
        "key": torch.zeros(1, kv_heads, slots, head_size),
        "start": torch.zeros(1, dtype=torch.int32),
    }
    shapes = {"queries": {1: Dim("queries", min=1)}, "key": {2: Dim("slots", min=8)}, "start": {}}
    return torch.export.export(
        score, (), kwargs=inputs, dynamic_shapes=shapes if symbolic else None
    )


def export_evict(
    evict: Evict, *, kv_heads: int, head_size: int, slots: int, budget: int, symbolic: bool = True
) -> ExportedProgram:
    """Export `evict`; inputs named as in its docstring, outputs in the order of EVICT_OUTPUTS.

    slots, budget   sizes to trace with; with `symbolic` the program takes any other as well
    """
    count = torch.zeros(1, dtype=torch.int32)
    cache = torch.zeros(1, kv_heads, slots, head_size)
    inputs = {
        "key": cache,
        "value": cache.clone(),
        "used": count,
        "prefix": count.clone(),
        "recent": count.clone(),
        "new_slots": torch.arange(budget),
    }
    s = Dim("slots", min=8)
    shapes: dict[str, dict] = {name: {} for name in inputs}
    shapes |= {"key": {2: s}, "value": {2: s}, "new_slots": {0: Dim("budget", min=1)}}
    names: tuple[str, ...] = evict.policy.scalars
    scalars = {name: torch.zeros(kv_heads, slots) for name in names}
    inputs |= scalars
    shapes |= {name: {1: s} for name in scalars}
    return torch.export.export(
        evict, (), kwargs=inputs, dynamic_shapes=shapes if symbolic else None
    )


def export_compact(
    compact: Compact, *, kv_heads: int, head_size: int, slots: int, count: int
) -> ExportedProgram:
    """Export `compact`; inputs named as in its docstring, outputs in the order of COMPACT_OUTPUTS.

    slots, count    sizes to trace with; the program takes any other as well
    """
    cache = torch.zeros(1, kv_heads, slots, head_size)
    inputs = {
        "key": cache,
        "value": cache.clone(),
        "kept": torch.arange(count).expand(kv_heads, -1).contiguous(),
        "new_slots": torch.arange(count),
    }
    s, n = Dim("slots", min=8), Dim("count", min=1)
    shapes = {"key": {2: s}, "value": {2: s}, "kept": {1: n}, "new_slots": {0: n}}
    return torch.export.export(compact, (), kwargs=inputs, dynamic_shapes=shapes)
