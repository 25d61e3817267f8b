"""Layers that see a fixed part of the text, and store nothing else (LongGen)."""

from operator import getitem

import msgspec
import torch
from torch import fx

from lcc.config import Positions
from lcc.errors import ConfigError, PassError
from lcc.ir.plan import BlockSparse, Full, Kind, SinkWindow, Sparse, parse_plan
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.base import Pass
from lcc.passes.graph import ModelGraph, ancestors, aten, emit, is_call, reached_from, shape
from lcc.passes.lift_kv_cache import USED

TOKENS_READ = Port("tokens_read", Role.COUNTER)
_LONG = {"dtype": torch.int64}


class HybridLayers(Pass):
    """Give every layer the kind of attention that a plan has for it (arXiv 2410.01485).

        before   lcc.cached_attention(q, k, v, key_<i>, value_<i>, used, ...)
        after    lcc.cached_sink_window(q, sink_q, k, v, key_<i>, value_<i>, used_<n>, ...), or
                 lcc.cached_block_sparse(q, k, v, key_<i>, value_<i>, used_<n>, positions, ...),
                 for the layers of kind n of the plan that are not full

    key_<i> and value_<i> shrink to `slots` entries, and such layers give out no queries_<i> and no
    retaining_<i>: no policy chooses among their entries. Where no layer gives out queries, there is
    no query_rows.

    used_<n>    [1] int32, a new input after `used`: entries before the step in layers of kind n
    kept_<n>    [1] int32, likewise, of block_sparse kinds: of them, those the last compaction left
    token_position_block_sparse_<n>
                [H, slots] int64, likewise: token position of each of these, for the layer with the
                most KV heads; entries that were read since lie behind them without a gap
    tokens_read [1] int64, where there is a block_sparse kind: tokens of the text before the step

    Under contiguous positions a layer's angles follow its own slots, so position inputs are
    computed from used_<n>. In a sink_window layer the first entries stay where they are while the
    window moves on, so queries are rotated for them as if the window began right behind
    (StreamingLLM, 2309.17453).

    Requires    LiftKVCache has run; the plan has a kind for every layer.
    Ensures     the graph knows its plan; every layer of a kind that is not full reads a cache of
                `slots` slots.
    """

    required = False  # a plan may have full layers only

    def __init__(
        self,
        plan: str,
        *,
        positions: Positions,
        chunk_size: int,
        catalyst_size: int = 0,
        lag: int = 0,
    ) -> None:
        """Keep what is asked for.

        plan            as `lcc.ir.plan.parse_plan` reads it
        chunk_size      tokens of a step, at most
        catalyst_size   see `CacheConfig`
        lag             newest tokens that are read once more, before a cycle: what they see is kept
        """
        self.text, self.positions, self.lag = plan, positions, lag
        self.sizes = chunk_size, catalyst_size

    def requires(self, graph: ModelGraph) -> None:
        """The plan fits the model."""
        sites = graph.calls(torch.ops.lcc.cached_attention.default)
        if not sites:
            raise PassError("hybrid_layers: no lcc.cached_attention; run lift_kv_cache first")
        self.plan = parse_plan(self.text, len(sites))
        for i, (site, kind) in enumerate(zip(sites, self.plan, strict=True)):
            if site.args[7] and not isinstance(kind, Full):
                raise ConfigError(
                    f"plan: layer {i} has a window of its own ({site.args[7]} tokens), which it "
                    "keeps; wanted full"
                )
            if len(site.args) > 10 and not isinstance(kind, Full):
                raise ConfigError(
                    f"plan: layer {i} has attention sinks or a bias by distance, of which only "
                    "full layers are supported; wanted full"
                )
            self._check_angles(graph, i, site, kind)

    def _check_angles(self, graph: ModelGraph, i: int, site: fx.Node, kind: Kind) -> None:
        """An entry that moves is turned by a table of angles, with a row for every slot moved."""
        rotation = site.args[9]
        turned = is_call(site.args[0], torch.ops.lcc.rotate.default)
        if rotation >= 0 and not turned and not isinstance(kind, Full):
            raise ConfigError(
                f"plan: layer {i} multiplies its queries behind their rotation (a norm with "
                "weights), of which only full layers are supported; wanted full"
            )
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
        graph.plan = self.plan
        return len(self.plan) - self.plan.count(Full())

    def _add_inputs(self, graph: ModelGraph) -> dict[Sparse, list[fx.Node]]:
        """used_<n> of each kind and, where its pattern asks for them, all token positions."""
        kinds = sparse_kinds(self.plan)
        one = torch.zeros(1, dtype=torch.int32)
        last = next(node for node in graph.graph.nodes if node.name == USED.name)
        read = None
        if any(isinstance(kind, BlockSparse) for kind in kinds):
            read = last = graph.add_input(TOKENS_READ, one.long(), after=last)
        inputs: dict[Sparse, list[fx.Node]] = {}
        found = []
        for number, kind in enumerate(kinds, start=1):
            port = Port(f"used_{number}", Role.COUNTER)
            used = last = graph.add_input(port, one, after=last)
            inputs[kind] = [used]
            if isinstance(kind, BlockSparse):
                port = Port(f"kept_{number}", Role.COUNTER)
                kept = graph.add_input(port, one, after=last)
                group = f"{kind.__struct_config__.tag}_{number}"
                port = Port(f"token_position_{group}", Role.TOKEN_POSITION)
                sizes = (self._heads(graph, kind), self._slots(kind))
                held = torch.zeros(sizes, dtype=torch.int64)
                position = last = graph.add_input(port, held, after=kept)
                found.append((kind, position, used, kept))
        for kind, position, used, kept in found:
            inputs[kind].append(_token_positions(graph, position, used, kept, read))
        return inputs

    def _slots(self, kind: Sparse) -> int:
        """Entries per KV head that a layer of a kind has room for.

        No more than that: `leaving` bounds how many are dropped at once.
        """
        return kind.slots(*self.sizes) + max(0, self.lag - 1)

    def _heads(self, graph: ModelGraph, kind: Sparse) -> int:
        """KV heads of the layer of a kind that has most."""
        sites = graph.calls(torch.ops.lcc.cached_attention.default)
        pairs = zip(sites, self.plan, strict=True)
        return max(shape(site.args[3])[1] for site, other in pairs if other == kind)

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
        slots = self._slots(kind)
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
        chosen_by_policy = (Role.QUERIES, Role.ENTRY_SCORE)
        graph.give(
            (port, node)
            for port, node in graph.results()
            if port.layer != i or port.role not in chosen_by_policy
        )

    def ensures(self, graph: ModelGraph) -> None:
        """Sparse layers have small caches."""
        for i, kind in enumerate(self.plan):
            slots = shape(graph.input(Role.KEY, i))[2]
            if not isinstance(kind, Full) and slots != self._slots(kind):
                raise PassError(f"hybrid_layers: layer {i} has {slots} slots left")


def _drop_query_rows(graph: ModelGraph) -> None:
    """Take the input away where no layer is left that gives queries."""
    graph.clean()
    if any(port.role == Role.ROWS for port in graph.inputs):
        rows = graph.input(Role.ROWS)
        if not rows.users:
            graph.drop_input(rows)


def _token_positions(
    graph: ModelGraph, held: fx.Node, used: fx.Node, kept: fx.Node, read: fx.Node | None
) -> fx.Node:
    """[H, S] int64: of the entries that were kept as given, of those behind them counted on."""
    last = graph.graph.find_nodes(op="placeholder")[-1]
    with graph.graph.inserting_before(last.next), held.meta["val"].fake_mode:
        new = graph.graph
        slot = emit(new, aten.arange.default, shape(held)[1])
        before = emit(new, aten.sub.Tensor, read, emit(new, aten._to_copy.default, used, **_LONG))
        counted = emit(new, aten.add.Tensor, slot, before)
        old = emit(new, aten.lt.Tensor, slot, emit(new, aten._to_copy.default, kept, **_LONG))
        return emit(new, aten.where.self, old, held, counted)


def sparse_kinds(plan: tuple[Kind, ...]) -> list[Sparse]:
    """The kinds of a plan that are not full, in the order of their first layer; from 1 on."""
    return list(dict.fromkeys(kind for kind in plan if not isinstance(kind, Full)))


class _Rotations:
    """Rotations by the slots of a kind of layer instead of the positions of the full ones."""

    def __init__(
        self, graph: ModelGraph, used: dict[Sparse, fx.Node], positions: Positions
    ) -> None:
        self.graph, self.used, self.positions = graph, used, positions
        self.given = graph.input(Role.POSITIONS)
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
