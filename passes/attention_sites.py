"""Every spelling of attention, read into one form: `AttentionSite`.

    fused    scaled_dot_product_attention(q, k, v, mask | is_causal, scale, enable_gqa)
    spelled  softmax of what `attention_scores.py` reads, -> matmul(., v)

In both, k and v may be repeated over the query heads of their group (repeat_kv). A softmax over
anything but tokens, such as the experts of a router, is none of them.
"""

import math
from dataclasses import dataclass

from torch import fx

from lcc.errors import PassError
from lcc.passes.attention_scores import (
    PRODUCTS,
    RESHAPES,
    SAME_VALUES,
    Bias,
    read_scores,
    split_scalar,
    through,
)
from lcc.passes.graph import ModelGraph, aten, emit, is_call, reached_from, shape
from lcc.passes.lift_state import recurrences


@dataclass(frozen=True)
class AttentionSite:
    """One attention: queries [1, Hq, Q, D], keys and values [1, Hkv, Q, D] before any repetition.

    output      the node whose value [1, Hq, Q, D], or [Hq, Q, D], the attention computes
    biases      what is added to scores or hides them; none = causal without a mask
    sinks       a number for each query head that is one more logit of every softmax; None = no such
    """

    output: fx.Node
    q: fx.Node
    k: fx.Node
    v: fx.Node
    biases: tuple[Bias, ...]
    scale: float
    softcap: float = 0.0
    sinks: fx.Node | None = None


def _same_shape(node: fx.Node) -> fx.Node:
    """Above copies and above reshapes that change nothing."""
    node = through(node)
    while is_call(node, *RESHAPES, aten.expand.default) and shape(node) == shape(node.args[0]):
        node = through(node.args[0])
    return node


def _heads(node: fx.Node) -> fx.Node:
    """[1, H, Q, D], of a view of it as [H, Q, D] too."""
    node = _same_shape(node)
    if len(shape(node)) == 3 and is_call(node, *RESHAPES):
        above = _same_shape(node.args[0])
        if len(shape(above)) == 4 and shape(above)[1:] == shape(node):
            return above
    return node


def without_repeat(node: fx.Node) -> fx.Node:
    """K or V before its heads were repeated for the query heads of a group."""
    node = _heads(node)
    if is_call(node, aten.repeat_interleave.self_int) and node.args[2:3] == (1,):
        return _same_shape(node.args[0])
    if not is_call(node, *RESHAPES):
        return node
    inner = through(node.args[0])
    if not is_call(inner, aten.expand.default) or len(shape(inner)) != 5:
        return node
    inner = through(inner.args[0])
    if is_call(inner, aten.unsqueeze.default) and inner.args[1] in (2, -3):
        return _same_shape(inner.args[0])
    return node


def _fused_site(node: fx.Node) -> AttentionSite:
    names = ("q", "k", "v", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    mask = given.get("attn_mask")
    if mask is None and not given.get("is_causal", False):
        raise PassError(
            f"{node.name}: attention without a mask and not causal; lcc compiles decoders, in "
            "which a token sees only what came before it"
        )
    q, factor = split_scalar(given["q"])
    scale = given.get("scale")
    if scale is None:
        scale = 1.0 / math.sqrt(shape(q)[-1])
    return AttentionSite(
        output=node,
        q=q,
        k=without_repeat(given["k"]),
        v=without_repeat(given["v"]),
        biases=() if mask is None else (Bias(mask, "added"),),
        scale=scale * factor,
    )


def _spelled_site(graph: ModelGraph, softmax: fx.Node, texts: set[fx.Node]) -> AttentionSite:
    """The matmuls around a softmax; PassError names the first node that does not fit."""
    scores = read_scores(graph, softmax, texts)
    product = _product_with_values(softmax, with_sinks=scores.sinks is not None)
    output, sinks = _behind(product, texts)
    if not scores.biases:
        raise PassError(f"{softmax.name}: no mask is added to its scores, so it is not causal")
    return AttentionSite(
        output=output,
        q=_heads(scores.q),
        k=without_repeat(_not_transposed(softmax, _same_shape(scores.k))),
        v=without_repeat(product.args[1]),
        biases=tuple(scores.biases),
        scale=scores.scale,
        softcap=scores.softcap,
        sinks=scores.sinks or sinks,
    )


def _product_with_values(softmax: fx.Node, *, with_sinks: bool) -> fx.Node:
    """The product of probabilities and values; a column of sinks is cut off before it."""
    probs, users = softmax, list(softmax.users)
    passed = (*SAME_VALUES, *RESHAPES)
    while len(users) == 1 and is_call(users[0], *passed, *((aten.slice.Tensor,) * with_sinks)):
        probs, users = users[0], list(users[0].users)
    if len(users) != 1 or not is_call(users[0], *PRODUCTS) or users[0].args[0] is not probs:
        name = (users[0] if users else probs).name
        raise PassError(f"{softmax.name}: {name} is not a product of the probabilities with v")
    return users[0]


def _behind(product: fx.Node, texts: set[fx.Node]) -> tuple[fx.Node, fx.Node | None]:
    """What an attention gives, and its sinks, where they scale what it gives.

    out * sigmoid(logsumexp(scores) - sinks): what one more logit in the softmax would leave of it.
    """
    users = list(product.users)
    if len(users) != 1 or not is_call(users[0], aten.mul.Tensor):
        return product, None
    share = through(users[0].args[1], *RESHAPES)
    if not is_call(share, aten.sigmoid.default):
        return product, None
    difference = through(share.args[0])
    if not is_call(difference, aten.sub.Tensor) or difference.args[1] in texts:
        return product, None
    if not is_call(through(difference.args[0]), aten.logsumexp.default):
        return product, None
    return users[0], difference.args[1]


def _not_transposed(softmax: fx.Node, k: fx.Node) -> fx.Node:
    """Keys [.., Q, D] of k [.., D, Q]."""
    rank = len(shape(k))
    if is_call(k, aten.transpose.int) and {d % rank for d in k.args[1:]} == {rank - 2, rank - 1}:
        return k.args[0]
    if is_call(k, aten.permute.default) and [d % 4 for d in k.args[1]] == [0, 2, 3, 1]:
        with k.graph.inserting_before(k):
            return emit(k.graph, aten.transpose.int, k.args[0], 1, 2)
    raise PassError(f"{softmax.name}: {k.name} is not k transposed")


def attention_softmaxes(graph: ModelGraph) -> list[fx.Node]:
    """Every softmax over the tokens of a text: its length is as symbolic as the text's."""
    softmaxes = graph.calls(aten.softmax.int) + graph.calls(aten._softmax.default)
    return [node for node in softmaxes if not isinstance(shape(node)[node.args[1]], int)]


def attention_sites(graph: ModelGraph) -> list[AttentionSite]:
    """All attentions of a model, in order.

    Raises PassError with the nearest miss when a softmax is not part of an attention lcc can read.
    """
    texts = reached_from(graph.graph, [graph.placeholder("input_ids")])
    fused = graph.calls(aten.scaled_dot_product_attention.default)
    sites = [_fused_site(n) for n in fused]
    sites += [_spelled_site(graph, n, texts) for n in attention_softmaxes(graph)]
    if not sites and not recurrences(graph):
        raise PassError(
            f"find_attention: no attention in a graph of {len(graph.graph.nodes)} nodes: neither "
            "scaled_dot_product_attention nor a softmax over tokens; is this a decoder?"
        )
    for site in sites:
        for name in ("q", "k", "v"):
            if len(shape(getattr(site, name))) != 4:
                node = getattr(site, name)
                raise PassError(
                    f"find_attention: {site.output.name}: {name} ({node.name}) has shape "
                    f"{list(shape(node))}, wanted [1, heads, Q, D]"
                )
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    return sorted(sites, key=lambda site: order[site.output])
