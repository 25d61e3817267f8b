"""A small trained MLP per layer that says how much each new entry is worth (Locret)."""

from collections.abc import Callable

import torch
from torch import fx

from lcc.artifact.heads_page import Activation
from lcc.errors import ConfigError, PassError
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.base import Pass
from lcc.passes.graph import ModelGraph, aten, emit, is_call, shape
from lcc.sources.heads import RetainingHeads

# What the graph calls, and what the training calls: one table, so that they are the same function.
ACTIVATIONS: dict[Activation, tuple[Callable, dict[str, str]]] = {
    "silu": (aten.silu.default, {}),
    "gelu": (aten.gelu.default, {}),
    "gelu_tanh": (aten.gelu.default, {"approximate": "tanh"}),
    "relu": (aten.relu.default, {}),
}


class InsertRetainingHeads(Pass):
    """Score every token, per KV head, from its own query, key and value (arXiv 2410.01805, 3.1).

        before   lcc.attention(lcc.rotate(q), lcc.rotate(k), v)
        after    the same, and retaining_<i> = W2 act(W1 [q; k; v])

    q, k and v are as before rotation, all heads side by side: (Hq + 2 Hkv) * D features. What a
    model does to them before it rotates (the norms of Qwen 3) has been done.

    New outputs, after the logits: retaining_<i> [Q, Hkv], for every full layer i. A layer with a
    window of its own shorter than the cache keeps its newest entries, so it needs none.

    Requires    FindAttention has run, LiftKVCache has not.
    Ensures     one score per KV head for every full layer.
    """

    required = False  # a model may have no full layer

    def __init__(self, heads: RetainingHeads, *, capacity: int) -> None:
        self.heads = heads
        self.capacity = capacity

    def requires(self, graph: ModelGraph) -> None:
        """Every full layer has heads of its shape."""
        sites = graph.calls(torch.ops.lcc.attention.default)
        if not sites:
            raise PassError("insert_retaining_heads: no lcc.attention in the graph")
        for i, site in enumerate(sites):
            if not is_full(site, self.capacity):
                continue
            features, kv_heads = head_sizes(site)
            if i not in self.heads.layers:
                raise ConfigError(
                    f"heads: none for layer {i}, which keeps every kind of entry; the file has "
                    f"heads for {len(self.heads.layers)} layers, the model {len(sites)} layers; "
                    "train heads for this model: lcc train heads"
                )
            first, second = self.heads.layers[i]
            if (first.shape[1], second.shape[0]) != (features, kv_heads):
                raise ConfigError(
                    f"heads: layer {i} takes {first.shape[1]} numbers and scores "
                    f"{second.shape[0]} KV heads; the model's has {features} and {kv_heads}; "
                    "they were trained for another model"
                )
        if max(self.heads.layers, default=-1) >= len(sites):
            raise ConfigError(
                f"heads: there are some for layer {max(self.heads.layers)}, the model has "
                f"{len(sites)} layers; they were trained for another model"
            )

    def rewrite(self, graph: ModelGraph) -> int:
        """Add the heads; return the number of layers that got some."""
        scores: list[tuple[Port, fx.Node]] = []
        for i, site in enumerate(graph.calls(torch.ops.lcc.attention.default)):
            if not is_full(site, self.capacity):
                continue
            first, second = self.heads.layers[i]
            graph.module.register_buffer(f"retaining_{i}_in", first, persistent=False)
            graph.module.register_buffer(f"retaining_{i}_out", second, persistent=False)
            with graph.graph.inserting_before(site):
                joined = emit(graph.graph, aten.cat.default, features_of(graph.graph, site), 2)
                hidden = self._linear(graph, joined, f"retaining_{i}_in", first)
                function, options = ACTIVATIONS[self.heads.page.activation]
                hidden = emit(graph.graph, function, hidden, **options)
                score = self._linear(graph, hidden, f"retaining_{i}_out", second)
                by_token = emit(graph.graph, aten.squeeze.dim, score, 0)
            scores.append((Port(f"retaining_{i}", Role.ENTRY_SCORE, i), by_token))
        logits, *others = graph.results()
        graph.give([logits, *scores, *others])
        return len(scores)

    def _linear(self, graph: ModelGraph, x: fx.Node, name: str, weight: torch.Tensor) -> fx.Node:
        constant = graph.graph.get_attr(name)
        fake_mode = x.meta["val"].fake_mode
        constant.meta["val"] = fake_mode.from_tensor(weight, static_shapes=True)
        return emit(graph.graph, aten.linear.default, x, constant)

    def ensures(self, graph: ModelGraph) -> None:
        """One score per KV head for every full layer."""
        sites = graph.calls(torch.ops.lcc.attention.default)
        full = [i for i, site in enumerate(sites) if is_full(site, self.capacity)]
        scored = [port.layer for port in graph.outputs if port.role == Role.ENTRY_SCORE]
        if scored != full:
            raise PassError(f"insert_retaining_heads: layers {scored} have scores, wanted {full}")


def is_full(site: fx.Node, capacity: int) -> bool:
    """Whether an `lcc.attention` sees all that a cache of `capacity` slots can hold."""
    window = int(site.args[4])
    return window == 0 or window >= capacity


def before_rotation(node: fx.Node) -> fx.Node:
    """The query or key [1, Q, H, D] that was rotated, or the same where none was."""
    turned = node
    while is_call(turned, aten.mul.Tensor):  # by the weights of a norm behind the rotation
        turned = turned.args[0]
    return turned.args[0] if is_call(turned, torch.ops.lcc.rotate.default) else node


def head_sizes(site: fx.Node) -> tuple[int, int]:
    """Features that a head of this `lcc.attention` reads, and KV heads that it scores."""
    q, k, v = site.args[:3]
    return sum(shape(x)[2] * shape(x)[3] for x in (q, k, v)), shape(k)[2]


def attention_sizes(graph: ModelGraph) -> list[tuple[int, int]]:
    """`head_sizes` of every attention layer, in order; FindAttention has run."""
    return [head_sizes(site) for site in graph.calls(torch.ops.lcc.attention.default)]


def features_of(graph: fx.Graph, site: fx.Node) -> list[fx.Node]:
    """q, k and v of an `lcc.attention` before rotation, each [1, Q, H * D]."""
    flat = []
    for node in (before_rotation(site.args[0]), before_rotation(site.args[1]), site.args[2]):
        _, _, heads, size = shape(node)
        length = emit(graph, aten.sym_size.int, node, 1)
        flat.append(emit(graph, aten.reshape.default, node, [1, length, heads * size]))
    return flat
