"""A norm between the rotation of a key and its attention: it changes places with the rotation.

    before   rotate -> norm [-> mul by weights]
    after    norm -> rotate [-> mul by weights]

A rotation does not change how long a key is, so a norm without weights is the same before it and
after it. Weights do not commute: those of a query are applied behind its rotation, those of a key
to the query as well, because (w k) q = k (w q). So what a cache holds is rotated by position only.
"""

from dataclasses import dataclass

import torch
from torch import fx

from lcc.errors import PassError
from lcc.passes.attention_scores import RESHAPES, through
from lcc.passes.graph import ModelGraph, ancestors, aten, emit, evaluate, is_call, shape

TOLERANCE = 1e-5


@dataclass(frozen=True)
class NormAfter:
    """rotated -> norm -> `normed`, which is multiplied by weights [D] or by nothing."""

    rotated: fx.Node
    normed: fx.Node
    weight: fx.Node | None


def norm_after_rotation(
    graph: ModelGraph, node: fx.Node, positions: set[fx.Node], texts: set[fx.Node]
) -> NormAfter | None:
    """The norm that a query or key [1, H, Q, D] comes out of, if positions enter before it.

    Raises PassError for a norm that does not commute with rotations of its input.
    """
    node, weight = through(node), None
    if is_call(node, aten.transpose.int) and set(node.args[1:]) == {1, 2}:  # a norm of [1, Q, H, D]
        node = through(node.args[0])
    if is_call(node, aten.mul.Tensor):
        for one, other in (node.args[:2], node.args[1::-1]):
            outside = isinstance(one, fx.Node) and one not in texts and one not in positions
            if outside and len(shape(one)) <= 1:
                weight, node = one, through(other)
                break
    source = _normed(node, texts)
    if source is None:
        return None
    above = ancestors(source)
    if not any(i in positions for each in above if each in texts for i in each.all_input_nodes):
        return None
    _check(graph, source, node)
    return NormAfter(source, node, weight)


def _normed(node: fx.Node, texts: set[fx.Node]) -> fx.Node | None:
    """The x of x * rsqrt(mean(x * x) + eps), or of a norm in one; None = it is no norm."""
    if is_call(node, aten.rms_norm.default):
        return node.args[0] if len(node.args) < 3 or node.args[2] is None else None
    if not is_call(node, aten.mul.Tensor):
        return None
    for x, factor in (node.args[:2], node.args[1::-1]):
        if not isinstance(x, fx.Node) or not is_call(factor, aten.rsqrt.default):
            continue
        x = through(x)
        if x in texts and x in ancestors(factor):
            return x
    return None


def _check(graph: ModelGraph, source: fx.Node, normed: fx.Node) -> None:
    """Turn random keys by a random rotation, before and after the norm."""
    draw = torch.Generator().manual_seed(0)
    size, length = shape(source)[-1], 3
    sizes = [s if isinstance(s, int) else length for s in shape(source)]
    keys = torch.randn(sizes, generator=draw, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(size, size, generator=draw, dtype=torch.float64))[0]
    given = {
        graph.placeholder("position_ids"): torch.arange(length)[None],
        graph.placeholder("input_ids"): torch.zeros(1, length, dtype=torch.int64),
    }
    after = evaluate(graph, normed, {**given, source: keys}, double=True) @ turn
    before = evaluate(graph, normed, {**given, source: keys @ turn}, double=True)
    if (error := float((after - before).abs().max())) > TOLERANCE:
        raise PassError(
            f"find_attention: {normed.name} changes {source.name} after its rotation, and not as a "
            f"norm over all of its channels does (off by {error:.2g})"
        )


def copied(graph: ModelGraph, norm: NormAfter, source: fx.Node) -> fx.Node:
    """The same norm of another tensor, at the graph's insertion point."""
    copies = {norm.rotated: source}
    for node in ancestors(norm.normed):
        if node is norm.rotated or not any(i in copies for i in node.all_input_nodes):
            continue
        if is_call(node, *RESHAPES):
            raise PassError(f"find_attention: {node.name} reshapes a key between rotation and norm")
        args, kwargs = (
            fx.node.map_arg(x, lambda n: copies.get(n, n)) for x in (node.args, node.kwargs)
        )
        copies[node] = emit(graph.graph, node.target, *args, **kwargs)
    return copies[norm.normed]
