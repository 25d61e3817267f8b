"""What the `lcc::` operators become in standard operators, for accelerators, in static shapes.

No kernel of anyone's own: attention is matrix products and a softmax over all slots, and new
entries go into the cache by a product with zeros and ones, because NNAPI and Core ML have nothing
that writes into a buffer. What depends on `used` alone is computed once, before the layers.
"""

import torch
from torch import Tensor

from lcc.targets.attention_parts import blocks_seen, logits, window_seen

OPSET = 18  # the last one before norms and rotation are single operators
_HIDDEN = -1e4  # added to a logit: a share of exactly 0, in half precision, too


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    half = cos.shape[-1]
    cos, sin = (each.to(x.dtype).unsqueeze(2) for each in (cos, sin))
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    if interleaved:
        pairs = turned.unflatten(-1, (half, 2))
        a, b = pairs[..., 0], pairs[..., 1]
        turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    else:
        a, b = turned[..., :half], turned[..., half:]
        turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def _slots(used: Tensor, length: int, slots: int) -> tuple[Tensor, Tensor]:
    """[Q, 1] slot of each query, [1, S] every slot."""
    return (used + torch.arange(length, dtype=torch.int32))[:, None], torch.arange(slots)[None]


def _write(cache: Tensor, new: Tensor, used: Tensor) -> Tensor:
    """The cache [1, Hkv, S, D] with new entries [1, Q, Hkv, D]; none is put beyond its end."""
    query, slot = _slots(used, new.shape[1], cache.shape[2])
    places = (slot == query).to(new.dtype)  # [Q, S]
    old = (places.mean(0) * -new.shape[1] + 1.0)[:, None]  # 1 less the sum, which NNAPI lacks
    return cache * old + places.transpose(0, 1) @ new.transpose(1, 2)


def _weigh(
    q: Tensor,
    scores: Tensor,
    seen: Tensor,
    values: Tensor,
    *,
    sinks: Tensor | None = None,
    table: Tensor | None = None,
) -> Tensor:
    """[1, Q, Hq, D]; scores [Hkv, Hq/Hkv * Q, S]; seen [Q, S], or [1 or Hkv, Q, S].

    sinks, table    see `lcc::cached_attention`
    """
    heads, length, slots = scores.shape[0], q.shape[1], seen.shape[-1]
    bias = ((~seen).to(q.dtype) * _HIDDEN).reshape(-1, 1, length, slots)
    scores = scores.reshape(heads, -1, length, slots) + bias
    if table is not None:
        scores = scores + table[:, :slots].reshape(heads, -1, 1, slots)
    if sinks is not None:
        column = sinks.reshape(heads, -1, 1, 1).expand(-1, -1, length, 1)
        scores = torch.cat((scores, column), dim=-1)
    weights = scores.softmax(-1)[..., :slots]
    out = weights.reshape(heads, -1, slots) @ values.squeeze(0)
    return out.reshape(1, q.shape[2], length, q.shape[3]).transpose(1, 2)


def _cached_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    used: Tensor,
    scale: float,
    window: int,
    softcap: float,
    rotation: int,
    sinks: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    keys, values = _write(key_cache, k, used), _write(value_cache, v, used)
    query, slot = _slots(used, q.shape[1], keys.shape[2])
    seen = slot <= query
    if window > 0:
        seen = seen & (slot > query - window)
    scores = logits(q, keys.squeeze(0), scale, softcap)
    return _weigh(q, scores, seen, values, sinks=sinks, table=bias), keys, values


def _cached_sink_window(
    q: Tensor,
    sink_q: Tensor,
    k: Tensor,
    v: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    used: Tensor,
    sink: int,
    window: int,
    block: int,
    scale: float,
    softcap: float,
    rotation: int,
) -> tuple[Tensor, Tensor, Tensor]:
    keys, values = _write(key_cache, k, used), _write(value_cache, v, used)
    query, slot = _slots(used, q.shape[1], keys.shape[2])
    seen = (slot <= query) & window_seen(query, slot, sink, window, block)
    if sink == 0 or sink_q is q:
        return _weigh(q, logits(q, keys.squeeze(0), scale, softcap), seen, values), keys, values
    first = logits(sink_q, keys.squeeze(0)[:, :sink], scale, softcap)
    both = torch.cat((first, logits(q, keys.squeeze(0)[:, sink:], scale, softcap)), dim=2)
    return _weigh(q, both, seen, values), keys, values


def _cached_block_sparse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    used: Tensor,
    places: Tensor,
    *numbers: float,
) -> tuple[Tensor, Tensor, Tensor]:
    *sees, scale, softcap, _ = numbers
    keys, values = _write(key_cache, k, used), _write(value_cache, v, used)
    query, slot = _slots(used, q.shape[1], keys.shape[2])
    seen = blocks_seen(places, used, q.shape[1], k.shape[2], sees) & (slot <= query)
    return _weigh(q, logits(q, keys.squeeze(0), scale, softcap), seen, values), keys, values


def _layer_norm(
    x: Tensor,
    shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    axes = list(range(-len(shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    out = centred / (centred.pow(2).mean(axes, keepdim=True) + eps).sqrt()
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def lowerings() -> dict:
    """What each lcc:: operator becomes; a program that holds them has registered them."""
    lcc = torch.ops.lcc
    known = {
        "rotate": _rotate,
        "cached_attention": _cached_attention,
        "cached_sink_window": _cached_sink_window,
        "cached_block_sparse": _cached_block_sparse,
    }
    return {getattr(lcc, n).default: f for n, f in known.items() if hasattr(lcc, n)} | {
        torch.ops.aten.rsqrt.default: lambda x: x.sqrt() / x,  # NNAPI has no reciprocal
        torch.ops.aten.layer_norm.default: _layer_norm,  # nor this in one
    }
