"""Latent attention: the value of an entry is a part of its key, and is not kept a second time."""

import torch
from torch import fx

from lcc.passes.base import Pass
from lcc.passes.graph import ModelGraph, aten, is_call, shape

_SAME_ORDER = (
    aten.clone.default,
    aten.contiguous.default,
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.alias.default,
)


class ShareLatents(Pass):
    """Give the key in the place of a value that is a part of it.

        before   rotate(cat(r, latent)), cat(zeros, latent) -> lcc.attention -> channels of latent
        after    rotate(cat(r, latent)), the same -> lcc.attention -> channels of latent

    What is attended to in the rotated channels is read by nothing. Where key and value of an entry
    are one, a full layer keeps one buffer: see `shares_entries`.

    Requires    FindAttention has run; LiftKVCache has not.
    """

    required = False

    def rewrite(self, graph: ModelGraph) -> int:
        """Replace the values; return in how many layers."""
        sites = [s for s in graph.calls(torch.ops.lcc.attention.default) if _is_shared(s)]
        for site in sites:
            site.update_arg(2, site.args[1])
        graph.graph.eliminate_dead_code()
        return len(sites)


def shares_entries(site: fx.Node, *, key: int = 1) -> bool:
    """Whether the new values of an attention are its new keys, the argument of number `key`."""
    return site.args[key] is site.args[key + 1]


def _is_shared(site: fx.Node) -> bool:
    """Whether the value has the key's unrotated channels, and only those are read behind it."""
    key, value = site.args[1:3]
    if not is_call(key, torch.ops.lcc.rotate.default):
        return False
    turned, cos = key.args[:2]
    rotated = 2 * shape(cos)[2]
    same = _behind(turned, rotated)
    if same is None or same != _behind(value, rotated):
        return False
    return _reads_from(site, site, rotated)


def _behind(node: fx.Node, rotated: int) -> tuple[fx.Node, bool] | None:
    """What is in the channels from `rotated` on, and whether its tokens and heads changed places.

    None = it is not of two parts, of which the first one ends there.
    """
    node, turned = _upright(node, False)
    if not is_call(node, aten.cat.default) or len(node.args[0]) != 2:
        return None
    first, second = node.args[0]
    axis = node.args[1] if len(node.args) > 1 else 0
    if axis not in (-1, 3) or shape(first)[3] != rotated:
        return None
    return _upright(second, turned)


def _upright(node: fx.Node, turned: bool) -> tuple[fx.Node, bool]:
    while is_call(node, aten.transpose.int) and set(node.args[1:]) == {1, 2}:
        node, turned = node.args[0], not turned
    return node, turned


def _reads_from(node: fx.Node, site: fx.Node, first: int) -> bool:
    """Whether all that is read of an attention are channels from `first` on."""
    heads, size = shape(site)[2:]
    for user in node.users:
        if is_call(user, aten.slice.Tensor):
            source, axis, start = user.args[:3]
            whole = source is node and shape(node)[-2:] == (heads, size)
            if not whole or axis not in (-1, 3) or start % size < first:
                return False
        elif not is_call(user, *_SAME_ORDER) or not _reads_from(user, site, first):
            return False
    return True
