"""The programs of a cycle: a `score`, `evict` or `compact` for each shape of layer, and others."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from lcc.config import CacheConfig
from lcc.errors import PassError
from lcc.ir.plan import Full, Kind, SinkWindow, Sparse
from lcc.ir.program import Program
from lcc.passes import lag_of
from lcc.passes.graph import ModelGraph, attribute, is_call, shape
from lcc.passes.hybrid_layers import sparse_kinds
from lcc.passes.policies import EvictionPolicy
from lcc.passes.policies.sink_window import SinkWindow as Newest
from lcc.passes.programs.annotate import annotate_program
from lcc.passes.programs.archive_layers import why_no_archive, with_archive
from lcc.passes.programs.compact import Compact, compact_program, see_program
from lcc.passes.programs.evict import Evict, EvictOldest, Protection, evict_program
from lcc.passes.programs.score import Score, score_program
from lcc.passes.rotation import Rotation
from lcc.passes.share_latents import shares_entries


@dataclass(frozen=True)
class CycleLayer:
    """One attention layer, and the programs that work on its cache; None = there is none.

    attend, vote    of the layers whose attention says what a question calls back

    window      tokens of the model's own window, where it is smaller than the cache; 0 = none
    slots       of a layer that is not full
    shared      the value of an entry is its key, and one buffer holds both
    """

    query_heads: int
    kv_heads: int
    head_size: int
    kind: Kind
    window: int = 0
    slots: int | None = None
    shared: bool = False
    score: str | None = None
    evict: str | None = None
    compact: str | None = None
    archive: str | None = None
    attend: str | None = None
    vote: str | None = None
    put_back: str | None = None

    @property
    def entry(self) -> tuple[str, ...]:
        """What is kept of an entry: its value only where that is not its key."""
        return ("key",) if self.shared else ("key", "value")


def cycle_programs(
    graph: ModelGraph,
    cache: CacheConfig,
    policy: EvictionPolicy,
    plan: tuple[Kind, ...],
    *,
    sentence_ends: Tensor | None = None,
    archive: bool = True,
) -> tuple[list[CycleLayer], list[Program]]:
    """Every layer of a specialized graph, and the programs that the layers name.

    sentence_ends   [V] bool, whether a token ends a sentence, where the policy reads sentences
    archive         the programs of an archive are wanted, where the policy can have one

    Layers that agree in heads, sizes, rotation and window share their programs.
    """
    layers = [_layer(site, kind, cache) for site, kind in zip(_sites(graph), plan, strict=True)]
    made = MadePrograms(graph, cache, policy)
    made.score_all(layers)
    named = []
    for layer, site in zip(layers, _sites(graph), strict=True):
        if not isinstance(layer.kind, Full):
            named.append(replace(layer, compact=made.compact(_rotation(site), layer, layers)))
            continue
        evict = made.evict(_rotation(site), layer) if policy.evicts else None
        named.append(replace(layer, evict=evict, score=made.score(site, layer)))
    if archive and why_no_archive(policy, layers, _sites(graph)) is None:
        named = with_archive(made, named, _sites(graph))
    programs = list(made.made.values())
    heads_of = [layer for layer in layers if isinstance(layer.kind, Full)]
    if policy.evicts and heads_of:
        annotate = annotate_program(policy.scores, sentence_ends, rows=cache.capacity + 1)
        programs = [*([annotate] if annotate is not None else []), *programs]
    for number, kind in enumerate(sparse_kinds(plan), start=1):
        of_kind = [layer for layer in layers if layer.kind == kind]
        assert of_kind[0].slots is not None
        heads = max(layer.kv_heads for layer in of_kind)
        sizes = {"heads": heads, "slots": of_kind[0].slots, "lag": lag_of(policy)}
        programs.append(see_program(f"see_{number}", kind, **sizes))
    return named, programs


def _sites(graph: ModelGraph) -> list[fx.Node]:
    """Every attention over a cache, of any kind, in the order of layers."""
    kinds = (
        torch.ops.lcc.cached_attention.default,
        torch.ops.lcc.cached_sink_window.default,
        torch.ops.lcc.cached_block_sparse.default,
    )
    return [node for node in graph.graph.nodes if is_call(node, *kinds)]


def _rotation(site: fx.Node) -> int:
    """Index of the rotation that the layer's keys went through."""
    full = is_call(site, torch.ops.lcc.cached_attention.default)
    return int(site.args[9 if full else -1])


def _layer(site: fx.Node, kind: Kind, cache: CacheConfig) -> CycleLayer:
    key = site.args[4 if isinstance(kind, SinkWindow) else 3]
    _, kv_heads, slots, size = shape(key)
    window = int(site.args[7]) if isinstance(kind, Full) else 0
    return CycleLayer(
        query_heads=shape(site.args[0])[2],
        kv_heads=kv_heads,
        head_size=size,
        kind=kind,
        window=0 if window >= cache.capacity else window,  # then it never hides anything
        slots=None if isinstance(kind, Full) else slots,
        shared=isinstance(kind, Full) and shares_entries(site),
    )


class MadePrograms:
    """The weightless programs made so far; layers that agree share them."""

    def __init__(self, graph: ModelGraph, cache: CacheConfig, policy: EvictionPolicy) -> None:
        self.graph, self.cache, self.policy = graph, cache, policy
        self.made: dict[tuple, Program] = {}
        self.scored: list[int] = []
        self.scored_heads = 0

    def score_all(self, layers: list[CycleLayer]) -> None:
        """Note which layers are scored: the full ones that a policy chooses among."""
        if self.policy.queries is None:
            return
        self.scored = [
            i for i, each in enumerate(layers) if isinstance(each.kind, Full) and not each.window
        ]
        self.scored_heads = sum(layers[i].kv_heads for i in self.scored)

    def evict(self, rotation: int, layer: CycleLayer) -> str:
        """The name of the program that evicts such a layer."""
        sizes_of = layer.kv_heads, layer.head_size
        kind = ("evict", layer.window > 0, *sizes_of, rotation, layer.shared)
        if kind not in self.made:
            cache = self.cache
            sizes = Protection(cache.sink_size, cache.recent_size, self.policy.tail_size)
            module: Evict
            if layer.window:
                policy: EvictionPolicy = Newest(Newest.Options())
                module = EvictOldest(policy, sizes, self.turn(rotation), shared=layer.shared)
            else:
                module = Evict(self.policy, sizes, self.turn(rotation), shared=layer.shared)
            self.made[kind] = evict_program(
                self._name("evict"),
                module,
                kv_heads=layer.kv_heads,
                head_size=layer.head_size,
                capacity=cache.capacity,
                budget=cache.budget,
            )
        return self.made[kind].names[0]

    def compact(self, rotation: int, layer: CycleLayer, layers: list[CycleLayer]) -> str:
        """The name of the program that moves the entries of such a layer."""
        heads = max(each.kv_heads for each in layers if each.kind == layer.kind)
        assert layer.slots is not None
        kind = ("compact", layer.slots, layer.kv_heads, layer.head_size, rotation, heads)
        if kind not in self.made:
            self.made[kind] = compact_program(
                self._name("compact"),
                Compact(self.turn(rotation)),
                kv_heads=layer.kv_heads,
                head_size=layer.head_size,
                heads=heads,
                slots=layer.slots,
            )
        return self.made[kind].names[0]

    def score(self, site: fx.Node, layer: CycleLayer) -> str | None:
        """The name of the program that scores such a layer; None where nobody reads its score."""
        policy, scale, softcap = self.policy, site.args[6], site.args[8]
        more = [each and attribute(self.graph, each) for each in (*site.args[10:], None, None)[:2]]
        if policy.queries is None or layer.window:
            return None
        sizes = layer.query_heads, layer.kv_heads, layer.head_size
        kind = ("score", *sizes, scale, softcap, *site.args[10:])
        if kind not in self.made:
            for_all = any(each.for_all for each in policy.scores)
            module = Score(
                scale=scale,
                softcap=softcap,
                query_pool=policy.query_pool,
                group_pool=policy.group_pool,
                decay=policy.decay,
                sinks=more[0],
                bias=more[1],
                for_all=(self.scored[0], self.scored_heads) if for_all else None,
            )
            self.made[kind] = score_program(
                self._name("score"),
                module,
                policy,
                query_heads=layer.query_heads,
                kv_heads=layer.kv_heads,
                head_size=layer.head_size,
                capacity=self.cache.capacity,
                queries=min(self.cache.chunk_size, 8),
            )
        return self.made[kind].names[0]

    def once(self, kind: tuple, make: Callable[[str], Program]) -> str:
        """The name of a program of this kind, which is made the first time."""
        if kind not in self.made:
            self.made[kind] = make(kind[0] if len(kind) == 1 else self._name(kind[0]))
        return self.made[kind].names[0]

    def _name(self, program: str) -> str:
        return f"{program}_{sum(kind[0] == program for kind in self.made)}"

    def turn(self, rotation: int) -> Rotation | None:
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


def sparse_kind_of(layers: list[CycleLayer]) -> list[Sparse]:
    """The kinds of the layers that are not full, in the order of their first layer."""
    return sparse_kinds(tuple(layer.kind for layer in layers))
