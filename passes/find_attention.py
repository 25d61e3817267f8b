"""Find every attention of a model, whatever it is spelled like, and its rotary embedding."""

import torch
from torch import fx

from lcc.errors import PassError
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.passes.attention_sites import AttentionSite, attention_sites, attention_softmaxes
from lcc.passes.base import Pass
from lcc.passes.causal_masks import window_of
from lcc.passes.find_rotation import (
    TOLERANCE,
    FoundRotation,
    between,
    find_rotation,
    images,
    pairs_of,
    position_roots,
    unit_input,
)
from lcc.passes.graph import ModelGraph, ancestors, aten, emit, is_call, reached_from, shape
from lcc.passes.position_table import position_table
from lcc.passes.rotation import Rotation


class FindAttention(Pass):
    """One operator per attention, with its rotation factored out of query and key.

        before   mul(k, cos), neg, cat, mul(., sin), add -> repeat_kv
                   -> sdpa, or matmul -> softmax -> matmul
        after    cos_0, sin_0 once
                 lcc.rotate(q, cos_0, sin_0), lcc.rotate(k, cos_0, sin_0), v -> lcc.attention

    Masks are computed and recognised (causal, or causal with a window) and then dropped; the
    repetition of KV heads is dropped too. What cannot be recognised is a PassError that names the
    node: nothing falls back to dense attention.

    table_size  positions for which rotation tables are made, for re-rotating kept entries; fewer
                where the model has a table of its own that ends before

    Ensures     no softmax over tokens is left, and positions enter by rotations or by a learned
                embedding only.
    """

    def __init__(self, table_size: int) -> None:
        self.table_size = table_size

    def rewrite(self, graph: ModelGraph) -> int:
        """Replace every attention; return how many there were."""
        sites = attention_sites(graph)
        texts = reached_from(graph.graph, [graph.placeholder("input_ids")])
        positions = reached_from(graph.graph, [graph.placeholder("position_ids")])
        rows = position_table(graph)
        table_size = self.table_size if rows is None else min(self.table_size, rows)
        rotations = _Rotations(graph, positions - texts, table_size)
        windows: dict[fx.Node | None, int] = {}
        for site in sites:
            if site.mask is not None and site.mask in texts:
                raise PassError(
                    f"find_attention: mask {site.mask.name} depends on the tokens themselves, as a "
                    "mask of padding does; wanted one that depends on their places only"
                )
            if site.mask not in windows:
                windows[site.mask] = window_of(graph, site.mask, self.table_size)
            found_q = find_rotation(graph, site.q, positions - texts, texts)
            found_k = find_rotation(graph, site.k, positions - texts, texts)
            with graph.graph.inserting_before(site.output):
                q, _ = rotations.apply(site.q, found_q)
                k, rotation = rotations.apply(site.k, found_k)
                v = token_major(graph.graph, site.v)
                out = emit(
                    graph.graph,
                    torch.ops.lcc.attention.default,
                    *(q, k, v, site.scale, windows[site.mask], site.softcap, rotation),
                )
                _check_heads(site, q, k, v)
                back = emit(graph.graph, aten.transpose.int, out, 1, 2)
            site.output.replace_all_uses_with(back)
            graph.graph.erase_node(site.output)  # dropout makes it impure: never dead by itself
        graph.graph.eliminate_dead_code()
        cancel_transposes(graph.graph)
        graph.rotations = tuple(rotations.tables)
        return len(sites)

    def ensures(self, graph: ModelGraph) -> None:
        """No attention and no unexplained use of positions is left."""
        left = graph.calls(aten.scaled_dot_product_attention.default)
        left += attention_softmaxes(graph)
        if left:
            raise PassError(f"find_attention: {left[0].name} is still there")
        texts = reached_from(graph.graph, [graph.placeholder("input_ids")])
        positions = reached_from(graph.graph, [graph.placeholder("position_ids")])
        for node in graph.calls(aten.arange.default):
            if any(is_call(i, aten.sym_size.int) for i in node.all_input_nodes):
                raise PassError(
                    f"find_attention: {node.name} takes positions from the length of the input; "
                    "the model must take them from position_ids"
                )
        for node in graph.graph.nodes:
            enters = [i for i in node.all_input_nodes if i in positions and i not in texts]
            if node not in texts or not enters or is_call(node, torch.ops.lcc.rotate.default):
                continue
            embedded = all(
                any(is_call(a, aten.embedding.default) and a in positions for a in ancestors(i))
                for i in enters
            )
            if not (embedded and is_call(node, aten.add.Tensor)):
                raise PassError(
                    f"find_attention: positions enter at {node.name} ({node.target}), which is "
                    "neither a rotary embedding of a query or key nor a learned one"
                )


class _Rotations:
    """The distinct rotations of a model: tables, and the nodes that hold cosines and sines."""

    def __init__(self, graph: ModelGraph, positions: set[fx.Node], table_size: int) -> None:
        self.graph = graph
        self.positions = positions
        self.table_size = table_size
        self.tables: list[Rotation] = []
        self._known: dict[tuple, tuple[int, fx.Node, fx.Node]] = {}

    def apply(self, rotated: fx.Node, found: FoundRotation | None) -> tuple[fx.Node, int]:
        """The token-major rotated tensor, and its rotation's index (-1 where there is none)."""
        if found is None:
            return token_major(self.graph.graph, rotated), -1
        roots = position_roots(found, self.positions)
        key = (
            roots,
            found.size,
            found.interleaved,
            round(found.scale, 6),
            shape(found.rotated)[-1],
        )
        if key not in self._known:
            self._known[key] = self._add(found)
        index, cos, sin = self._known[key]
        source = found.source
        if isinstance(shape(source)[1], int):
            source = token_major(self.graph.graph, source)
        call = torch.ops.lcc.rotate.default
        return emit(self.graph.graph, call, source, cos, sin, found.interleaved), index

    def _add(self, found: FoundRotation) -> tuple[int, fx.Node, fx.Node]:
        index, dim = len(self.tables), shape(found.rotated)[-1]
        where = torch.arange(self.table_size)
        unit = unit_input(found, dim)
        repeated = unit.double().expand(self.table_size, dim)
        made = images(self.graph, found.source, found.rotated, where, repeated)
        cos, sin = (t / found.scale for t in pairs_of(made, found))
        if (error := float((torch.hypot(cos, sin) - 1).abs().max())) > TOLERANCE:
            raise PassError(
                f"find_attention: the length of {found.rotated.name} changes with the position (by "
                f"{error:.2g} below {self.table_size}); wanted a rotation"
            )
        self.tables.append(Rotation.between(cos, sin, interleaved=found.interleaved))
        return (index, *self._emit_angles(found, unit, index))

    def _emit_angles(
        self, found: FoundRotation, unit: torch.Tensor, index: int
    ) -> tuple[fx.Node, fx.Node]:
        """Cosines and sines [1, Q, R/2]: the model's own rotation, run on unit vectors."""
        graph = self.graph.graph
        self.graph.module.register_buffer(f"unit_{index}", unit, persistent=False)
        constant = graph.get_attr(f"unit_{index}")
        fake_mode = found.source.meta["val"].fake_mode
        constant.meta["val"] = fake_mode.from_tensor(unit, static_shapes=True)
        length = emit(graph, aten.sym_size.int, self.graph.placeholder("position_ids"), 1)
        sizes = list(shape(found.source))
        heads_first = isinstance(sizes[1], int)
        sizes[2 if heads_first else 1] = length
        copies = {found.source: emit(graph, aten.expand.default, constant, sizes)}
        for node in between(found):
            args = fx.node.map_arg(node.args, lambda n: copies.get(n, n))
            kwargs = fx.node.map_arg(node.kwargs, lambda n: copies.get(n, n))
            copies[node] = emit(graph, node.target, *args, **kwargs)
        first_axis = 1 if isinstance(shape(found.rotated)[1], int) else 2
        image = emit(graph, aten.select.int, copies[found.rotated], first_axis, 0)
        if found.interleaved:
            parts = [(0, found.size, 2), (1, found.size, 2)]
        else:
            half = found.size // 2
            parts = [(0, half, 1), (half, found.size, 1)]
        cos, sin = (emit(graph, aten.slice.Tensor, image, 2, *part) for part in parts)
        return cos, sin


def token_major(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """[1, H, Q, D] -> [1, Q, H, D], taking a transpose away where there is one."""
    if is_call(node, aten.transpose.int) and set(node.args[1:]) == {1, 2}:
        return node.args[0]
    return emit(graph, aten.transpose.int, node, 1, 2)


def cancel_transposes(graph: fx.Graph) -> None:
    """transpose(view_or_copy(transpose(x, 1, 2)), 1, 2) -> x, where nothing happens in between."""
    for node in graph.find_nodes(op="call_function", target=aten.transpose.int):
        if set(node.args[1:]) != {1, 2}:
            continue
        inner = node.args[0]
        same = (
            aten.view.default,
            aten.reshape.default,
            aten.clone.default,
            aten.contiguous.default,
        )
        while is_call(inner, *same) and (shape(inner) == shape(inner.args[0])):
            inner = inner.args[0]
        if is_call(inner, aten.transpose.int) and set(inner.args[1:]) == {1, 2}:
            node.replace_all_uses_with(inner.args[0])
    graph.eliminate_dead_code()


def _check_heads(site: AttentionSite, q: fx.Node, k: fx.Node, v: fx.Node) -> None:
    query_heads, kv_heads = shape(q)[2], shape(k)[2]
    if query_heads % kv_heads or shape(v)[2] != kv_heads or shape(v)[3] != shape(k)[3]:
        raise PassError(
            f"find_attention: {site.output.name}: q {list(shape(q))}, k {list(shape(k))} and v "
            f"{list(shape(v))} do not form groups of query heads over equal keys and values"
        )
