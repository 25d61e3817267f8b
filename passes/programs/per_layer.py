"""The weightless programs of a model: one `score` and one `evict` for each kind of layer."""

import torch
from torch import Tensor, fx

from lcc.artifact.manifest import LayerEntry
from lcc.config import CacheConfig, PolicyConfig
from lcc.errors import ConfigError, LccError, PassError, first_line
from lcc.ir.plan import Full, Kind, SinkWindow, Sparse
from lcc.ir.program import Program
from lcc.passes.graph import ModelGraph, is_call, shape
from lcc.passes.policies import EvictionPolicy
from lcc.passes.policies.sink_window import SinkWindow as Newest
from lcc.passes.programs.cycle import (
    COMPACT_OUTPUTS,
    EVICT_OUTPUTS,
    SCORE_OUTPUTS,
    Compact,
    Evict,
    Score,
    export_compact,
    export_evict,
    export_score,
)
from lcc.passes.rotation import Rotation


class EvictOldest(Evict):
    """For a layer with a window of the model's own: what counts is the newest entries, unbroken.

    Of a window larger than the budget the newest `budget` entries are left, as of any full layer.
    """

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
    graph: ModelGraph, cache: CacheConfig, policy: EvictionPolicy, plan: tuple[Kind, ...]
) -> tuple[list[LayerEntry], list[Program]]:
    """What the manifest says of each layer, and the programs it names.

    Layers that agree in heads, sizes, rotation and window share their programs.
    """
    layers: list[LayerEntry] = []
    programs = _Programs(graph, cache, policy)
    for site in cache_sites(graph):
        kind = plan[len(layers)]
        if isinstance(kind, Full):
            layers.append(_full_layer(site, cache, policy, programs))
        else:
            layers.append(_sparse_layer(site, kind, programs))
    return layers, list(programs.made.values())


def cache_sites(graph: ModelGraph) -> list[fx.Node]:
    """Every attention over a cache, of any kind, in the order of layers."""
    kinds = (
        torch.ops.lcc.cached_attention.default,
        torch.ops.lcc.cached_sink_window.default,
        torch.ops.lcc.cached_block_sparse.default,
    )
    return [node for node in graph.graph.nodes if is_call(node, *kinds)]


def _full_layer(
    site: fx.Node, cache: CacheConfig, policy: EvictionPolicy, programs: "_Programs"
) -> LayerEntry:
    q, _, _, key, _, _, scale, window, softcap, rotation = site.args
    query_heads, kv_heads, size = shape(q)[2], shape(key)[1], shape(key)[3]
    if window >= cache.capacity:  # it never hides anything: a full layer
        window = 0
    evict = score = None
    if policy.evicts:
        chosen = Newest(PolicyConfig(name="sink_window")) if window else policy
        evict = programs.evict(chosen, rotation, kv_heads, size, oldest=window > 0)
    if policy.queries is not None and not window:
        score = programs.score(scale, softcap, (query_heads, kv_heads, size))
    return LayerEntry(
        query_heads=query_heads,
        kv_heads=kv_heads,
        head_size=size,
        window_size=window or None,
        evict=evict,
        score=score,
    )


def _sparse_layer(site: fx.Node, kind: Sparse, programs: "_Programs") -> LayerEntry:
    """Its evict program drops what no query sees any more; no policy decides."""
    q = site.args[0]
    key = site.args[4 if isinstance(kind, SinkWindow) else 3]
    _, kv_heads, slots, size = shape(key)
    return LayerEntry(
        query_heads=shape(q)[2],
        kv_heads=kv_heads,
        head_size=size,
        evict=programs.compact(site.args[-1], kv_heads, size),
        kind=kind,
        slots=slots,
    )


class _Programs:
    """The weightless programs made so far; layers that agree share them."""

    def __init__(self, graph: ModelGraph, cache: CacheConfig, policy: EvictionPolicy) -> None:
        self.graph, self.cache, self.policy = graph, cache, policy
        self.made: dict[tuple, Program] = {}

    def evict(
        self,
        policy: EvictionPolicy,
        rotation: int,
        kv_heads: int,
        head_size: int,
        *,
        oldest: bool = False,
    ) -> str:
        """The name of the program that evicts such a layer; `oldest`: no sinks are kept."""
        kind = ("evict", policy.config, oldest, kv_heads, head_size, rotation)
        if kind not in self.made:
            name = f"evict_{sum(k[0] == 'evict' for k in self.made)}"
            module = (EvictOldest if oldest else Evict)(policy, self._turn(rotation))
            self.made[kind] = _evict(name, module, self.cache, kv_heads, head_size)
        return self.made[kind].names[0]

    def compact(self, rotation: int, kv_heads: int, head_size: int) -> str:
        """The name of the program that closes the ranks of such a layer."""
        kind = ("compact", kv_heads, head_size, rotation)
        if kind not in self.made:
            name = f"compact_{sum(k[0] == 'compact' for k in self.made)}"
            module = Compact(self._turn(rotation))
            self.made[kind] = _compact(name, module, self.cache, kv_heads, head_size)
        return self.made[kind].names[0]

    def _turn(self, rotation: int) -> Rotation | None:
        """What turns a key that moves to another slot."""
        if rotation < 0 or self.cache.positions == "absolute":
            return None
        table = self.graph.rotations[rotation]
        if error := table.off_by():
            raise PassError(
                f"eviction: rotation {rotation} at position a + b is not that at a, turned by b "
                f"more (off by {error:.2g}), so that entries cannot move up; wanted one that goes "
                "by differences of positions, or --positions absolute"
            )
        return table

    def score(self, scale: float, softcap: float, sizes: tuple[int, int, int]) -> str:
        """The name of the program that scores such a layer."""
        kind = ("score", *sizes, scale, softcap)
        if kind not in self.made:
            name = f"score_{sum(k[0] == 'score' for k in self.made)}"
            self.made[kind] = _score(name, self.policy, scale, softcap, self.cache, sizes)
        return self.made[kind].names[0]


def _evict(name: str, module: Evict, cache: CacheConfig, kv_heads: int, head_size: int) -> Program:
    try:
        exported = export_evict(
            module,
            kv_heads=kv_heads,
            head_size=head_size,
            slots=cache.capacity,
            budget=cache.budget,
        )
    except LccError:
        raise
    except Exception as error:  # torch.export raises many types, and the policy its own
        raise ConfigError(
            f"policy {module.policy.name}: rank() cannot be traced: {first_line(error)}; wanted "
            "tensor code that branches on no value"
        ) from error
    inputs = ("key", "value", "used", "prefix", "recent", "new_slots", *module.policy.scalars)
    return Program(names=(name,), exported=exported, inputs=inputs, outputs=EVICT_OUTPUTS)


def _compact(
    name: str, module: Compact, cache: CacheConfig, kv_heads: int, head_size: int
) -> Program:
    sizes = {"slots": cache.capacity, "count": cache.budget}
    exported = export_compact(module, kv_heads=kv_heads, head_size=head_size, **sizes)
    inputs = ("key", "value", "kept", "new_slots")
    return Program(names=(name,), exported=exported, inputs=inputs, outputs=COMPACT_OUTPUTS)


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
