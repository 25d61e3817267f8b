"""Find every attention of a model, whatever it is spelled like, and its rotary embedding."""

import torch
from torch import fx

from lcc.errors import PassError
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.passes.attention_scores import Bias, sinks_of
from lcc.passes.attention_sites import AttentionSite, attention_sites, attention_softmaxes
from lcc.passes.base import Pass
from lcc.passes.causal_masks import Mask, read_mask
from lcc.passes.graph import ModelGraph, ancestors, aten, emit, is_call, reached_from, shape
from lcc.passes.position_table import position_table
from lcc.passes.shared_rotations import SharedRotations, token_major

_LOOKUPS = (aten.embedding.default, aten.index_select.default, aten.index.Tensor)


class FindAttention(Pass):
    """One operator per attention, with its rotation factored out of query and key.

        before   mul(k, cos), neg, cat, mul(., sin), add -> repeat_kv
                   -> sdpa, or matmul -> softmax -> matmul
        after    cos_0, sin_0 once
                 lcc.rotate(q, cos_0, sin_0), lcc.rotate(k, cos_0, sin_0), v -> lcc.attention

    Masks are computed and recognised (causal, perhaps with a window or with a bias by distance) and
    then dropped; the repetition of KV heads is dropped too. A norm after the rotation changes
    places with it. What cannot be recognised is a PassError that names the
    node: nothing falls back to dense attention.

    table_size  positions for which rotation tables are made, for re-rotating kept entries; fewer
                where the model has a table of its own that ends before

    Ensures     no softmax over tokens is left, and positions enter by rotations or by a learned
                embedding only.
    """

    required = False  # of a model whose layers all carry a state

    def __init__(self, table_size: int) -> None:
        self.table_size = table_size

    def rewrite(self, graph: ModelGraph) -> int:
        """Replace every attention; return how many there were."""
        sites = attention_sites(graph)
        texts = reached_from(graph.graph, [graph.placeholder("input_ids")])
        positions = reached_from(graph.graph, [graph.placeholder("position_ids")]) - texts
        rows = position_table(graph)
        table_size = self.table_size if rows is None else min(self.table_size, rows)
        rotations = SharedRotations(graph, positions, texts, table_size)
        masks: dict[tuple[tuple[Bias, ...], int], Mask] = {}
        for site in sites:
            heads = shape(site.q)[1]
            for bias in site.biases:
                if bias.node in texts:
                    raise PassError(
                        f"find_attention: mask {bias.node.name} depends on the tokens themselves, "
                        "as a mask of padding does; wanted one that depends on their places only"
                    )
            if (site.biases, heads) not in masks:
                key = site.biases, heads
                masks[key] = read_mask(graph, site.biases, self.table_size, heads)
            _replace(graph, site, masks[site.biases, heads], rotations)
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
        positions = reached_from(
            graph.graph, [graph.placeholder("position_ids")], but=_is_beginning
        )
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
                any(is_call(a, *_LOOKUPS) and a in positions for a in ancestors(i)) for i in enters
            )
            if not (embedded and is_call(node, aten.add.Tensor)):
                raise PassError(
                    f"find_attention: positions enter at {node.name} ({node.target}), which is "
                    "neither a rotary embedding of a query or key nor a learned one"
                )


def _is_beginning(node: fx.Node) -> bool:
    """Whether it says that a text begins here, which no cycle changes: no entry moves to slot 0."""
    return is_call(node, aten.eq.Scalar) and node.args[1] == 0


def _replace(
    graph: ModelGraph, site: AttentionSite, mask: Mask, rotations: SharedRotations
) -> None:
    """Put `lcc::attention` in the place of one attention."""
    q, k = rotations.read(site.q), rotations.read(site.k)
    orders = [(each.before is None, bool(each.found and each.found.shuffled)) for each in (q, k)]
    if orders[0] != orders[1]:
        raise PassError(
            f"find_attention: {site.output.name}: query and key have their channels in different "
            "orders behind the rotation; wanted one order for both"
        )
    with graph.graph.inserting_before(site.output):
        query, _ = rotations.apply(q)
        key, rotation = rotations.apply(k)
        for weight in filter(None, (q.weight, k.weight)):
            query = emit(graph.graph, aten.mul.Tensor, query, weight)
        value = token_major(graph.graph, site.v)
        numbers = site.scale, mask.window, site.softcap, rotation
        more = _more(graph, site, mask)
        call = torch.ops.lcc.attention.default
        out = emit(graph.graph, call, query, key, value, *numbers, *more)
        _check_heads(site, query, key, value)
        back = emit(graph.graph, aten.transpose.int, out, 1, 2)
        if len(shape(site.output)) == 3:  # [Hq, Q, D]
            back = emit(graph.graph, aten.squeeze.dim, back, 0)
    site.output.replace_all_uses_with(back)
    graph.graph.erase_node(site.output)  # dropout makes it impure: never dead by itself


def _more(graph: ModelGraph, site: AttentionSite, mask: Mask) -> tuple[fx.Node | None, ...]:
    """Sinks and bias, as constants of the graph; nothing where there is neither."""
    sinks = None if site.sinks is None else sinks_of(graph, site.sinks, shape(site.q)[1])
    if sinks is not None and mask.bias is not None:
        raise PassError(
            f"find_attention: {site.output.name} has sinks and a bias by distance; lcc has no "
            "kernel for both"
        )
    found = [
        None if value is None else graph.constant(name, value)
        for name, value in (("sinks", sinks), ("bias", mask.bias))
    ]
    while found and found[-1] is None:
        found.pop()
    return tuple(found)


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
