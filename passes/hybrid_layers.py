"""Layers that see a fixed part of the text, and store nothing else (LongGen)."""

from operator import getitem

import msgspec
import torch
from torch import fx

from lcc.config import Positions
from lcc.errors import ConfigError, PassError
from lcc.ir.plan import BlockSparse, Full, Kind, SinkWindow, Sparse
from lcc.passes.base import Pass
from lcc.passes.graph import ModelGraph, ancestors, aten, emit, is_call, reached_from, shape


class HybridLayers(Pass):
    """Give every layer the kind of attention that a plan has for it (arXiv 2410.01485).

        before   lcc.cached_attention(q, k, v, key_<i>, value_<i>, used, ...)
        after    lcc.cached_sink_window(q, sink_q, k, v, key_<i>, value_<i>, used_<n>, ...), or
                 lcc.cached_block_sparse(q, k, v, key_<i>, value_<i>, used_<n>, places_<n>, ...),
                 for the layers of kind n of the plan that are not full

    key_<i> and value_<i> shrink to `slots` entries, and such layers give out no queries_<i> and no
    retaining_<i>: no policy chooses among their entries. Where no layer gives out queries, there is
    no query_rows.

    used_<n>    [1] int32, a new input after `used`: entries before the step in layers of kind n
    places_<n>  [H, slots] int64, likewise, of block_sparse kinds: place in the text of the token
                in each slot, of the layer with the most KV heads

    Under contiguous positions a layer's angles follow its own slots, so position inputs are
    computed from used_<n>. In a sink_window layer the first entries stay where they are while the
    window moves on, so queries are rotated for them as if the window began right behind
    (StreamingLLM, 2309.17453).

    Requires    LiftKVCache has run; the plan has a kind for every layer.
    Ensures     every layer of a kind that is not full reads a cache of `slots` slots.
    """

    required = False  # a plan may have full layers only

    def __init__(
        self,
        plan: tuple[Kind, ...],
        *,
        positions: Positions,
        chunk_size: int,
        catalyst_size: int = 0,
    ) -> None:
        """`chunk_size`: tokens of a step, at most; `catalyst_size`: see `CacheConfig`."""
        self.plan, self.positions = plan, positions
        self.sizes = chunk_size, catalyst_size

    def requires(self, graph: ModelGraph) -> None:
        """The plan fits the model."""
        sites = graph.calls(torch.ops.lcc.cached_attention.default)
        if len(sites) != len(self.plan):
            raise PassError(
                f"hybrid_layers: {len(sites)} cached attentions, the plan has {len(self.plan)} "
                "layers; run lift_kv_cache first"
            )
        for i, (site, kind) in enumerate(zip(sites, self.plan, strict=True)):
            if site.args[7] and not isinstance(kind, Full):
                raise ConfigError(
                    f"plan: layer {i} has a window of its own ({site.args[7]} tokens), which it "
                    "keeps; wanted full"
                )
            self._check_angles(graph, i, site, kind)

    def _check_angles(self, graph: ModelGraph, i: int, site: fx.Node, kind: Kind) -> None:
        """An entry that moves is turned by a table of angles, with a row for every slot moved."""
        rotation = site.args[9]
        if isinstance(kind, Full) or self.positions == "absolute" or rotation < 0:
            return
        rows, moves = len(graph.rotations[rotation].cos), kind.leaving(*self.sizes)
        if moves >= rows:
            raise ConfigError(
                f"plan: layer {i}, {kind}: {moves} entries may be dropped at once, angles are made "
                f"for less than capacity ({rows}); wanted smaller blocks, or --capacity {moves + 1}"
            )

    def rewrite(self, graph: ModelGraph) -> int:
        """Rewrite the layers that are not full; return how many there are."""
        inputs = self._add_inputs(graph)
        rotations = _Rotations(graph, {k: nodes[0] for k, nodes in inputs.items()}, self.positions)
        sites = graph.calls(torch.ops.lcc.cached_attention.default)
        for i, (site, kind) in enumerate(zip(sites, self.plan, strict=True)):
            if not isinstance(kind, Full):
                self._rewrite_site(graph, i, site, kind, inputs[kind], rotations)
        _drop_query_rows(graph)
        return len(self.plan) - self.plan.count(Full())

    def _add_inputs(self, graph: ModelGraph) -> dict[Sparse, list[fx.Node]]:
        """used_<n> and, where it is asked for, places_<n> of each kind."""
        kinds = sparse_kinds(self.plan)
        sites = graph.calls(torch.ops.lcc.cached_attention.default)
        used = last = graph.placeholder("used")
        inputs: dict[Sparse, list[fx.Node]] = {}
        for number, kind in enumerate(kinds, start=1):
            values = {f"used_{number}": used.meta["val"]}
            if isinstance(kind, BlockSparse):
                heads = [
                    shape(site.args[3])[1]
                    for site, other in zip(sites, self.plan, strict=True)
                    if other == kind
                ]
                sizes = (max(heads), kind.slots(*self.sizes))
                values[f"places_{number}"] = used.meta["val"].new_empty(sizes, dtype=torch.int64)
            inputs[kind] = []
            for name, value in values.items():
                with graph.graph.inserting_after(last):
                    last = graph.graph.placeholder(name)
                last.meta["val"] = value
                inputs[kind].append(last)
        return inputs

    def _rewrite_site(
        self,
        graph: ModelGraph,
        i: int,
        site: fx.Node,
        kind: Sparse,
        inputs: list[fx.Node],
        rotations: "_Rotations",
    ) -> None:
        q, k, v, key, value, _, scale, _, softcap, rotation = site.args
        slots = kind.slots(*self.sizes)
        for node in (key, value):
            old = node.meta["val"]
            node.meta["val"] = old.new_empty((*old.shape[:2], slots, old.shape[3]))
        operator = torch.ops.lcc.cached_block_sparse.default
        with graph.graph.inserting_before(site):
            queries = [rotations.turn(q, kind)]
            if isinstance(kind, SinkWindow):
                operator = torch.ops.lcc.cached_sink_window.default
                queries.append(rotations.turn(q, kind, sink=True))
            cache = (rotations.turn(k, kind), v, key, value, *inputs)
            numbers = (*msgspec.structs.astuple(kind), scale, softcap, rotation)
            new = emit(graph.graph, operator, *queries, *cache, *numbers)
        for old in list(site.users):
            old.replace_input_with(site, new)
            old.meta["val"] = new.meta["val"][old.args[1]]
            assert is_call(old, getitem)
        graph.graph.erase_node(site)
        output = graph.graph.output_node()
        kept = [
            place
            for place, name in enumerate(graph.outputs)
            if name not in (f"queries_{i}", f"retaining_{i}")
        ]
        output.args = (tuple(output.args[0][place] for place in kept),)
        graph.outputs = tuple(graph.outputs[place] for place in kept)

    def ensures(self, graph: ModelGraph) -> None:
        """Sparse layers have small caches."""
        for i, kind in enumerate(self.plan):
            slots = shape(graph.placeholder(f"key_{i}"))[2]
            if not isinstance(kind, Full) and slots != kind.slots(*self.sizes):
                raise PassError(f"hybrid_layers: layer {i} has {slots} slots left")


def _drop_query_rows(graph: ModelGraph) -> None:
    """Take the input away where no layer is left that gives queries."""
    graph.clean()
    for node in graph.graph.find_nodes(op="placeholder"):
        if node.name == "query_rows" and not node.users:
            graph.graph.erase_node(node)


def sparse_kinds(plan: tuple[Kind, ...]) -> list[Sparse]:
    """The kinds of a plan that are not full, in the order of their first layer; from 1 on."""
    return list(dict.fromkeys(kind for kind in plan if not isinstance(kind, Full)))


class _Rotations:
    """Rotations by the slots of a kind of layer instead of the positions of the full ones."""

    def __init__(
        self, graph: ModelGraph, used: dict[Sparse, fx.Node], positions: Positions
    ) -> None:
        self.graph, self.used, self.positions = graph, used, positions
        self.given = graph.placeholder("positions")
        self.made: dict[tuple, fx.Node] = {}

    def turn(self, x: fx.Node, kind: Sparse, *, sink: bool = False) -> fx.Node:
        """The same query or key, rotated by its slot; for the first entries, by its place there."""
        if self.positions == "absolute" or not is_call(x, torch.ops.lcc.rotate.default):
            return x
        source, cos, sin, interleaved = x.args
        angles = [self._angle(node, kind, sink=sink) for node in (cos, sin)]
        return emit(self.graph.graph, torch.ops.lcc.rotate.default, source, *angles, interleaved)

    def _angle(self, node: fx.Node, kind: Sparse, *, sink: bool) -> fx.Node:
        """What the model computes of positions, computed of others."""
        if (node, kind, sink) in self.made:
            return self.made[node, kind, sink]
        copies = {self.given: self._places(kind, sink=sink)}
        depends = reached_from(self.graph.graph, [self.given])
        for old in ancestors(node):
            if old in depends and old is not self.given:
                copies[old] = self.graph.graph.node_copy(old, lambda n: copies.get(n, n))
        self.made[node, kind, sink] = copies[node]
        return copies[node]

    def _places(self, kind: Sparse, *, sink: bool) -> fx.Node:
        """[1, Q] int64: slots of the step's tokens, or their places behind the first entries."""
        if (kind, sink) in self.made:
            return self.made[kind, sink]
        graph = self.graph.graph
        if sink:
            assert isinstance(kind, SinkWindow)
            place = self._places(kind, sink=False)
            block = place
            if kind.block > 1:
                block = emit(graph, aten.floor_divide.default, place, kind.block)
                block = emit(graph, aten.mul.Tensor, block, kind.block)
            hidden = emit(graph, aten.sub.Tensor, block, kind.window - kind.block + kind.sink)
            made = emit(graph, aten.sub.Tensor, place, emit(graph, aten.clamp.default, hidden, 0))
        else:
            first = emit(graph, aten.sub.Tensor, self.given, self._first())
            used = emit(graph, aten._to_copy.default, self.used[kind], dtype=torch.int64)
            made = emit(graph, aten.add.Tensor, first, used)
        self.made[kind, sink] = made
        return made

    def _first(self) -> fx.Node:
        """[1, 1] the position of the step's first token."""
        return emit(self.graph.graph, aten.slice.Tensor, self.given, 1, 0, 1)
