"""A captured model run layer by layer: what its attention sees, for any length, never [n, n]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from lcc.errors import ConfigError
from lcc.passes.graph import ModelGraph
from lcc.train.recompute import recomputed

BLOCK = 256  # queries attended at once where a layer has a window or a cap


@dataclass(frozen=True)
class LayerStates:
    """One attention layer of one text.

    q           [n, Hq, D]     rotated
    k           [n, Hkv, D]    rotated
    features    [n, F]         query, key and value before rotation, all heads side by side
    scale       of the logits
    window      keys a query sees; 0 = all
    softcap     logits become tanh(x / softcap) * softcap; 0 = as they are
    """

    layer: int
    q: Tensor
    k: Tensor
    features: Tensor
    scale: float
    window: int
    softcap: float


Visit = Callable[[LayerStates], None]


class _Done(Exception):
    """The last layer was visited; nothing after it is wanted."""


def visit_layers(graph: ModelGraph, ids: Tensor, visit: Visit) -> None:
    """Run a model on ids [1, n] and show every layer's states as they come; computes no logits.

    graph       after FindAttention
    """
    walker = _Walker(graph, visit)
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    try:
        with torch.no_grad():
            walker.run(ids, positions)
    except _Done:
        pass


class _Walker(fx.Interpreter):
    def __init__(self, graph: ModelGraph, visit: Visit) -> None:
        super().__init__(graph.module)
        self.visit, self.layer = visit, 0
        self.layers = len(graph.calls(torch.ops.lcc.attention.default))
        self.sources: dict[int, tuple[Tensor, Tensor]] = {}  # id of rotated -> itself, source

    def call_function(self, target: Any, args: tuple, kwargs: dict) -> Any:
        if target is torch.ops.lcc.rotate.default:
            rotated = target(*args, **kwargs)
            self.sources[id(rotated)] = (rotated, args[0])
            return rotated
        if target is not torch.ops.lcc.attention.default:
            return super().call_function(target, args, kwargs)
        q, k, v, scale, window, softcap = plain_arguments(args, self.layer)
        before = [self.sources[id(x)][1] if id(x) in self.sources else x for x in (q, k)]
        features = torch.cat([x[0].flatten(1) for x in (*before, v)], dim=1)
        self.sources.clear()
        self.visit(LayerStates(self.layer, q[0], k[0], features, scale, window, softcap))
        self.layer += 1
        if self.layer == self.layers:
            raise _Done
        return attend(q, k, v, scale, window, softcap)


def plain_arguments(args: Sequence[Any], layer: int) -> tuple[Any, ...]:
    """q, k, v, scale, window and softcap of `lcc::attention`, in a layer that has no more.

    Raises:
        ConfigError: the layer has attention sinks, or a bias by distance.
    """
    plain, more = tuple(args[:6]), args[7:]
    if any(each is not None for each in more):
        what = "attention sinks" if more[0] is not None else "a bias by distance (ALiBi)"
        raise ConfigError(
            f"layer {layer} has {what}, with which lcc compiles models but neither trains them nor "
            "searches for plans; wanted a model without"
        )
    return plain


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, window: int, softcap: float) -> Tensor:
    """`lcc::attention` by library kernels, in memory linear in the length."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    length = q.shape[2]
    if window == 0 and softcap == 0:
        out = functional.scaled_dot_product_attention(
            q, k, v, is_causal=True, scale=scale, enable_gqa=True
        )
        return out.transpose(1, 2).contiguous()
    group = q.shape[1] // k.shape[1]
    place = torch.arange(length, device=q.device)

    def attend_block(start: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        end = min(start + BLOCK, length)
        first = max(0, start - window + 1) if window else 0
        keys = k[:, :, first:end].repeat_interleave(group, dim=1)
        logits = q[:, :, start:end] @ keys.transpose(2, 3) * scale
        if softcap:
            logits = torch.tanh(logits / softcap) * softcap
        distance = place[start:end, None] - place[None, first:end]
        hidden = distance < 0
        if window:
            hidden = hidden | (distance >= window)
        weights = logits.masked_fill(hidden, -torch.inf).softmax(-1)
        return weights @ v[:, :, first:end].repeat_interleave(group, dim=1)

    rows = [recomputed(attend_block, start, q, k, v) for start in range(0, length, BLOCK)]
    return torch.cat(rows, dim=2).transpose(1, 2).contiguous()
