"""The weightless programs of a model: one `score` and one `evict` for each kind of layer."""

import torch
from torch import Tensor

from lcc.artifact import LayerEntry
from lcc.config import CacheConfig, PolicyConfig
from lcc.passes.eviction import EvictionPolicy
from lcc.passes.eviction.programs import (
    EVICT_OUTPUTS,
    SCORE_OUTPUTS,
    Evict,
    Score,
    export_evict,
    export_score,
)
from lcc.passes.eviction.sink_window import SinkWindow
from lcc.passes.graph import ModelGraph, shape
from lcc.passes.rotation import Rotation
from lcc.program import Program


class EvictOldest(Evict):
    """For a layer with a window of the model's own: what counts is the newest entries, unbroken."""

    def forward(  # type: ignore[override]  # it reads no scalars
        self,
        key: Tensor,
        value: Tensor,
        used: Tensor,
        prefix: Tensor,
        recent: Tensor,
        new_slots: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As Evict, but nothing at the beginning is protected."""
        return super().forward(key, value, used, prefix * 0, recent, new_slots)


def eviction_programs(
    graph: ModelGraph, cache: CacheConfig, policy: EvictionPolicy
) -> tuple[list[LayerEntry], list[Program]]:
    """What the manifest says of each layer, and the programs it names.

    Layers that agree in heads, sizes, rotation and window share their programs.
    """
    layers: list[LayerEntry] = []
    kind: tuple
    programs: dict[tuple, Program] = {}
    for site in graph.calls(torch.ops.lcc.cached_attention.default):
        q, _, _, key, _, _, scale, window, softcap, rotation = site.args
        query_heads, kv_heads, size = shape(q)[2], shape(key)[1], shape(key)[3]
        if window >= cache.capacity:  # it never hides anything: a full layer
            window = 0
        entry = {"query_heads": query_heads, "kv_heads": kv_heads, "head_size": size}
        entry["window_size"] = window or None
        if policy.evicts:
            kind = ("evict", kv_heads, size, rotation, window > 0)
            if kind not in programs:
                name = f"evict_{sum(k[0] == 'evict' for k in programs)}"
                turn = graph.rotations[rotation] if rotation >= 0 else None
                if cache.positions == "absolute":
                    turn = None
                programs[kind] = _evict(name, policy, turn, window > 0, cache, kv_heads, size)
            entry["evict"] = programs[kind].names[0]
        if policy.queries is not None and not window:
            kind = ("score", query_heads, kv_heads, size, scale, softcap)
            if kind not in programs:
                name = f"score_{sum(k[0] == 'score' for k in programs)}"
                sizes = (query_heads, kv_heads, size)
                programs[kind] = _score(name, policy, scale, softcap, cache, sizes)
            entry["score"] = programs[kind].names[0]
        layers.append(LayerEntry(**entry))
    return layers, list(programs.values())


def _evict(
    name: str,
    policy: EvictionPolicy,
    rotation: Rotation | None,
    windowed: bool,
    cache: CacheConfig,
    kv_heads: int,
    head_size: int,
) -> Program:
    if windowed:
        module: Evict = EvictOldest(SinkWindow(PolicyConfig(name="sink_window")), rotation)
    else:
        module = Evict(policy, rotation)
    exported = export_evict(
        module,
        kv_heads=kv_heads,
        head_size=head_size,
        slots=cache.capacity,
        budget=cache.budget,
    )
    inputs = ("key", "value", "used", "prefix", "recent", "new_slots", *module.policy.scalars)
    return Program(names=(name,), exported=exported, inputs=inputs, outputs=EVICT_OUTPUTS)


def _score(
    name: str,
    policy: EvictionPolicy,
    scale: float,
    softcap: float,
    cache: CacheConfig,
    sizes: tuple[int, int, int],
) -> Program:
    module = Score(
        scale=scale,
        softcap=softcap,
        query_pool=policy.query_pool,
        group_pool=policy.group_pool,
    )
    query_heads, kv_heads, head_size = sizes
    exported = export_score(
        module,
        query_heads=query_heads,
        kv_heads=kv_heads,
        head_size=head_size,
        slots=cache.capacity,
        queries=min(cache.chunk_size, 8),
    )
    inputs = ("queries", "key", "start")
    return Program(names=(name,), exported=exported, inputs=inputs, outputs=SCORE_OUTPUTS)
