"""Keys and values become explicit inputs and outputs, in slots."""

from operator import getitem

import torch
from torch import fx

from lcc.errors import PassError
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.base import Pass
from lcc.passes.graph import ModelGraph, aten, emit, shape
from lcc.passes.lift_state import recurrences

USED = Port("used", Role.COUNTER)


class LiftKVCache(Pass):
    """Turn attention over a text into attention over slots that are an input and an output.

        before   lcc.attention(q, k, v, ...)
        after    lcc.cached_attention(q, k, v, key_<i>, value_<i>, used, ...)
                   -> out, key_<i>_out, value_<i>_out

    New inputs, after tokens [1, Q] and positions [1, Q]:

    used        [1] int32           valid slots before the step
    query_rows  [R] int64           rows of the step whose queries are handed out, 0 .. Q-1; where
                                    `queries` is asked for
    key_<i>     [1, Hkv, S, D]      also value_<i>, for layer i

    New outputs, after those there are: queries_<i> [R, Hq, D], rotated, where `queries` is asked
    for; then key_<i>_out and value_<i>_out, which replace the storage of key_<i> and value_<i>.

    A model without attention gets `used` only, as a clock.

    Requires    FindAttention has run.
    Ensures     no `lcc.attention` is left.
    """

    def __init__(self, *, capacity: int, queries: bool) -> None:
        self.capacity = capacity
        self.queries = queries

    required = False

    def requires(self, graph: ModelGraph) -> None:
        """There are attentions without a cache, or recurrences."""
        if not graph.calls(torch.ops.lcc.attention.default) and not recurrences(graph):
            raise PassError(
                "lift_kv_cache: no lcc.attention in the graph, and no recurrence; run "
                "find_attention first"
            )

    def ensures(self, graph: ModelGraph) -> None:
        """Every attention has a cache."""
        if left := graph.calls(torch.ops.lcc.attention.default):
            raise PassError(f"lift_kv_cache: {len(left)} attentions have no cache")

    def rewrite(self, graph: ModelGraph) -> int:
        """Add the cache; return the number of layers."""
        sites = graph.calls(torch.ops.lcc.attention.default)
        inputs = graph.graph.find_nodes(op="placeholder")
        for node, port in zip(inputs, graph.inputs, strict=True):
            node.name = node.target = port.name
        one = torch.zeros(1, dtype=torch.int32)
        used = last = graph.add_input(USED, one, after=inputs[-1])
        rows = None
        if self.queries and sites:
            port = Port("query_rows", Role.ROWS)
            rows = last = graph.add_input(port, torch.zeros(2, dtype=torch.int64), after=last)
        queries: list[tuple[Port, fx.Node]] = []
        caches: list[tuple[Port, fx.Node]] = []
        for i, site in enumerate(sites):
            k = site.args[1]
            slots = torch.zeros(
                1, shape(k)[2], self.capacity, shape(k)[3], dtype=k.meta["val"].dtype
            )
            key = graph.add_input(Port(f"key_{i}", Role.KEY, i), slots, after=last)
            value = last = graph.add_input(Port(f"value_{i}", Role.VALUE, i), slots, after=key)
            if rows is not None:
                port = Port(f"queries_{i}", Role.QUERIES, i)
                queries.append((port, _chosen_queries(graph, site, rows)))
            parts = _with_cache(graph, site, key, value, used)
            caches.append((Port(f"key_{i}_out", Role.KEY, i), parts[0]))
            caches.append((Port(f"value_{i}_out", Role.VALUE, i), parts[1]))
        graph.give([*graph.results(), *queries, *caches])
        return len(sites)


def _chosen_queries(graph: ModelGraph, site: fx.Node, rows: fx.Node) -> fx.Node:
    """[R, Hq, D]: the queries of some rows of a step."""
    with graph.graph.inserting_before(site):
        chosen = emit(graph.graph, aten.index_select.default, site.args[0], 1, rows)
        return emit(graph.graph, aten.squeeze.dim, chosen, 0)


def _with_cache(
    graph: ModelGraph, site: fx.Node, key: fx.Node, value: fx.Node, used: fx.Node
) -> list[fx.Node]:
    """Replace an attention by one over a cache; returns the keys and values that it gives."""
    q, k, v, *numbers = site.args
    with graph.graph.inserting_before(site):
        new = emit(
            graph.graph,
            torch.ops.lcc.cached_attention.default,
            *(q, k, v, key, value, used, *numbers),
        )
        parts = [graph.graph.call_function(getitem, (new, part)) for part in range(3)]
    for part, node in enumerate(parts):
        node.meta["val"] = new.meta["val"][part]
    site.replace_all_uses_with(parts[0])
    graph.graph.erase_node(site)
    return parts[1:]
