"""Every spelling of attention, read into one form: `AttentionSite`.

    fused    scaled_dot_product_attention(q, k, v, mask | is_causal, scale, enable_gqa)
    spelled  matmul(q, k^T) [* scale] [softcap] [+ mask] -> softmax -> matmul(., v)

In both, k and v may be repeated over the query heads of their group (repeat_kv). A softmax over
anything but tokens, such as the experts of a router, is none of them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import fx

from lcc.errors import PassError
from lcc.passes.graph import ModelGraph, aten, is_call, shape

_SAME_VALUES = (
    aten.clone.default,
    aten.alias.default,
    aten.contiguous.default,
    aten._to_copy.default,
    aten.dropout.default,
)
_RESHAPES = (aten.view.default, aten._unsafe_view.default, aten.reshape.default)
_NUMBERS = (int, float)
_PRODUCTS = (aten.matmul.default, aten.bmm.default)


@dataclass(frozen=True)
class AttentionSite:
    """One attention: queries [1, Hq, Q, D], keys and values [1, Hkv, Q, D] before any repetition.

    output      the node whose value [1, Hq, Q, D] the attention computes
    mask        additive or boolean, [.., Q, Q]; None = causal without a mask
    """

    output: fx.Node
    q: fx.Node
    k: fx.Node
    v: fx.Node
    mask: fx.Node | None
    scale: float
    softcap: float


def _through(node: fx.Node, *targets: Callable) -> fx.Node:
    """The node that holds the same values, above copies and casts."""
    while is_call(node, *_SAME_VALUES, *targets):
        node = node.args[0]
    return node


def _same_shape(node: fx.Node) -> fx.Node:
    """Above copies and above reshapes that change nothing."""
    node = _through(node)
    while is_call(node, *_RESHAPES, aten.expand.default) and shape(node) == shape(node.args[0]):
        node = _through(node.args[0])
    return node


def without_repeat(node: fx.Node) -> fx.Node:
    """K or V before its heads were repeated for the query heads of a group."""
    node = _same_shape(node)
    if is_call(node, aten.repeat_interleave.self_int) and node.args[2:3] == (1,):
        return _same_shape(node.args[0])
    if not is_call(node, *_RESHAPES):
        return node
    inner = _through(node.args[0])
    if not is_call(inner, aten.expand.default) or len(shape(inner)) != 5:
        return node
    inner = _through(inner.args[0])
    if is_call(inner, aten.unsqueeze.default) and inner.args[1] in (2, -3):
        return _same_shape(inner.args[0])
    return node


def _split_scalar(node: fx.Node) -> tuple[fx.Node, float]:
    """Peel products and quotients with a number: node = inner * factor."""
    factor = 1.0
    while True:
        node = _through(node)
        if is_call(node, aten.mul.Tensor, aten.mul.Scalar) and isinstance(node.args[1], _NUMBERS):
            factor *= float(node.args[1])
        elif is_call(node, aten.div.Tensor, aten.div.Scalar) and isinstance(node.args[1], _NUMBERS):
            factor /= float(node.args[1])
        else:
            return node, factor
        node = node.args[0]


def _fused_site(node: fx.Node) -> AttentionSite:
    names = ("q", "k", "v", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    if given.get("attn_mask") is None and not given.get("is_causal", False):
        raise PassError(
            f"{node.name}: attention without a mask and not causal; lcc compiles decoders, in "
            "which a token sees only what came before it"
        )
    q, factor = _split_scalar(given["q"])
    scale = given.get("scale")
    if scale is None:
        scale = 1.0 / math.sqrt(shape(q)[-1])
    return AttentionSite(
        output=node,
        q=q,
        k=without_repeat(given["k"]),
        v=without_repeat(given["v"]),
        mask=given.get("attn_mask"),
        scale=scale * factor,
        softcap=0.0,
    )


def _spelled_site(softmax: fx.Node) -> AttentionSite:
    """The matmuls around a softmax; PassError names the first node that does not fit."""

    def refuse(node: object, wanted: str) -> PassError:
        name = node.name if isinstance(node, fx.Node) else str(node)
        return PassError(f"{softmax.name}: {name} is not {wanted}")

    if softmax.args[1] not in (-1, len(shape(softmax)) - 1):
        raise refuse(softmax, "a softmax over the last axis")
    probs, users = softmax, list(softmax.users)
    while len(users) == 1 and is_call(users[0], *_SAME_VALUES):
        probs, users = users[0], list(users[0].users)
    if len(users) != 1 or not is_call(users[0], *_PRODUCTS) or users[0].args[0] is not probs:
        raise refuse(users[0] if users else probs, "a product of the probabilities with v")
    product = users[0]

    scores, mask = _through(softmax.args[0]), None
    if is_call(scores, aten.add.Tensor):
        left, right = scores.args[:2]
        if not _is_scores(left):
            left, right = right, left
        scores, mask = _through(left), right
    softcap, scale = 0.0, 1.0
    inner, cap = _split_scalar(scores)
    if is_call(inner, aten.tanh.default):
        scores, per_cap = _split_scalar(inner.args[0])
        softcap = cap
        scale = per_cap * cap
    else:
        scores, scale = inner, cap
    if not is_call(scores, *_PRODUCTS):
        raise refuse(scores, "a product of q with the transpose of k")
    q, factor = _split_scalar(scores.args[0])
    k, key_factor = _split_scalar(scores.args[1])
    k = _same_shape(k)
    if not is_call(k, aten.transpose.int) or {d % 4 for d in k.args[1:]} != {2, 3}:
        raise refuse(k, "k transposed")
    if mask is None:
        raise refuse(softmax, "causal: no mask is added to its scores")
    return AttentionSite(
        output=product,
        q=_same_shape(q),
        k=without_repeat(k.args[0]),
        v=without_repeat(product.args[1]),
        mask=mask,
        scale=scale * factor * key_factor,
        softcap=softcap,
    )


def _is_scores(node: fx.Node) -> bool:
    inner, _ = _split_scalar(node)
    if is_call(inner, aten.tanh.default):
        inner, _ = _split_scalar(inner.args[0])
    return is_call(inner, *_PRODUCTS)


def attention_softmaxes(graph: ModelGraph) -> list[fx.Node]:
    """Every softmax over the tokens of a text: its length is as symbolic as the text's."""
    softmaxes = graph.calls(aten.softmax.int) + graph.calls(aten._softmax.default)
    return [node for node in softmaxes if not isinstance(shape(node)[node.args[1]], int)]


def attention_sites(graph: ModelGraph) -> list[AttentionSite]:
    """All attentions of a model, in order.

    Raises PassError with the nearest miss when a softmax is not part of an attention lcc can read.
    """
    fused = graph.calls(aten.scaled_dot_product_attention.default)
    sites = [_fused_site(n) for n in fused]
    sites += [_spelled_site(n) for n in attention_softmaxes(graph)]
    if not sites:
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
