"""Keys and values become explicit inputs and outputs, in slots."""

from operator import getitem

import torch

from lcc.errors import PassError
from lcc.passes.base import Pass
from lcc.passes.graph import ModelGraph, aten, emit, shape


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

    New outputs, after those there are: queries_<i> [Hq, R, D], rotated, where `queries` is asked
    for; then key_<i>_out and value_<i>_out, which replace the storage of key_<i> and value_<i>.

    Requires    FindAttention has run.
    Ensures     no `lcc.attention` is left.
    """

    def __init__(self, *, capacity: int, queries: bool) -> None:
        self.capacity = capacity
        self.queries = queries

    def requires(self, graph: ModelGraph) -> None:
        """There are attentions without a cache."""
        if not graph.calls(torch.ops.lcc.attention.default):
            raise PassError(
                "lift_kv_cache: no lcc.attention in the graph; run find_attention first"
            )

    def rewrite(self, graph: ModelGraph) -> int:
        """Add the cache; return the number of layers."""
        nodes = graph.graph
        sites = graph.calls(torch.ops.lcc.attention.default)
        inputs = nodes.find_nodes(op="placeholder")
        fake_mode = inputs[0].meta["val"].fake_mode
        for node, name in zip(inputs, ("tokens", "positions"), strict=True):
            node.name = node.target = name

        def placeholder(name: str, value: torch.Tensor) -> torch.fx.Node:
            node = nodes.placeholder(name)
            node.meta["val"] = fake_mode.from_tensor(value, static_shapes=True)
            return node

        queries, caches = [], []
        with nodes.inserting_after(inputs[-1]):
            used = previous = placeholder("used", torch.zeros(1, dtype=torch.int32))
        if self.queries:
            with nodes.inserting_after(used):
                rows = previous = placeholder("query_rows", torch.zeros(2, dtype=torch.int64))
        for i, site in enumerate(sites):
            q, k, v, scale, window, softcap, rotation = site.args
            slots = torch.zeros(
                1, shape(k)[2], self.capacity, shape(k)[3], dtype=k.meta["val"].dtype
            )
            with nodes.inserting_after(previous):
                key = placeholder(f"key_{i}", slots)
            with nodes.inserting_after(key):
                value = previous = placeholder(f"value_{i}", slots)
            with nodes.inserting_before(site):
                new = emit(
                    nodes,
                    torch.ops.lcc.cached_attention.default,
                    *(q, k, v, key, value, used, scale, window, softcap, rotation),
                )
                parts = [nodes.call_function(getitem, (new, part)) for part in range(3)]
                for part, node in enumerate(parts):
                    node.meta["val"] = new.meta["val"][part]
                if self.queries:
                    chosen = emit(nodes, aten.index_select.default, q, 1, rows)
                    first = emit(nodes, aten.squeeze.dim, chosen, 0)
                    queries.append(emit(nodes, aten.transpose.int, first, 0, 1))
            site.replace_all_uses_with(parts[0])
            nodes.erase_node(site)
            caches += parts[1:]
        output = nodes.output_node()
        output.args = ((*output.args[0], *queries, *caches),)
        graph.outputs += tuple(f"queries_{i}" for i in range(len(queries)))
        graph.outputs += tuple(
            f"{kind}_{i}_out" for i in range(len(sites)) for kind in ("key", "value")
        )
        return len(sites)
