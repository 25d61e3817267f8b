"""What the `lcc::` operators become in ONNX.

Attention is com.microsoft.GroupQueryAttention, which writes new entries into the cache in place
when one buffer is bound as past and present; rotation and norms are standard (opset 23).
"""

import torch
from torch import Tensor
from torch.onnx.ops import symbolic, symbolic_multi_out

from lcc.targets.attention_parts import blocks_seen, logits, window_seen

OPSET = 23


def _flat(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], x.shape[2] * x.shape[3])


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """RotaryEmbedding on [1, Q, H*D], with the cosines of each token given."""
    flat = _flat(x)
    attributes: dict = {"num_heads": x.shape[2], "interleaved": int(interleaved)}
    if 2 * cos.shape[2] < x.shape[3]:
        attributes["rotary_embedding_dim"] = 2 * cos.shape[2]
    out = symbolic(
        "RotaryEmbedding",
        (flat, cos, sin),
        attributes,
        dtype=x.dtype,
        shape=flat.shape,
        version=OPSET,
    )
    return out.reshape(x.shape)


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
    if bias is not None:  # a table, by slot
        bias = _slot_bias(bias, key_cache.shape[2], used, q.shape[1])
    args = (q, k, v, key_cache, value_cache, used)
    return _attend(*args, scale, window, softcap, sinks=sinks, bias=bias)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    used: Tensor,
    scale: float,
    window: int,
    softcap: float,
    *,
    sinks: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`bias`: [1, 1 or Hq, Q, slots in use], added to the logits after scale and cap."""
    last = used + (q.shape[1] - 1)  # int32 [1]: valid entries after the step, less one
    attributes: dict = {"num_heads": q.shape[2], "kv_num_heads": k.shape[2], "scale": scale}
    if window > 0:
        attributes["local_window_size"] = window
    if softcap > 0:
        attributes["softcap"] = softcap
    flat = _flat(q)
    # Angles and positions are already applied.
    more = () if bias is None and sinks is None else (None, None, None, bias)
    more = more if sinks is None else (*more, sinks)
    out, keys, values = symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        (flat, _flat(k), _flat(v), key_cache, value_cache, last, (last + 1).reshape(()), *more),
        attributes,
        dtypes=(q.dtype, key_cache.dtype, value_cache.dtype),
        shapes=(flat.shape, key_cache.shape, value_cache.shape),
        version=1,
    )
    return out.reshape(q.shape), keys, values


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
    """The kernel of full layers, with a bias: -inf where a query does not see.

    For the first entries, it is the difference between the logits of `sink_q`, which are wanted,
    and those of `q`, which the kernel computes.
    """
    length, slots, total = q.shape[1], key_cache.shape[2], used.long() + q.shape[1]
    query, slot = (total - length + torch.arange(length))[:, None], torch.arange(slots)[None]
    seen = window_seen(query, slot, sink, window, block)  # what comes after it the kernel hides
    bias = torch.where(seen, 0.0, -torch.inf).to(q.dtype)[None, None]  # [1, 1, Q, S]
    if sink == 0 or sink_q is q:
        bias = _cut(bias, total)
    else:
        near = _cut(bias[..., sink:], (total - sink).clamp(min=0))
        repeats = torch.cat([torch.full((1,), n) for n in (1, q.shape[2], 1, 1)])
        shape = (1, q.shape[2], *near.shape[2:])
        near = symbolic("Tile", (near, repeats), dtype=near.dtype, shape=shape, version=OPSET)
        more = _sink_bias(q, sink_q, _first_keys(key_cache, k, used, sink), scale, softcap)
        bias = torch.cat((_cut(more, total), near), dim=3)
    return _attend(q, k, v, key_cache, value_cache, used, scale, 0, softcap, bias=bias)


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
    """The kernel of full layers, with a bias: -inf where a query does not see."""
    *sees, scale, softcap, _ = numbers
    length = q.shape[1]
    seen = blocks_seen(places, used, length, k.shape[2], sees)
    bias = torch.where(seen, 0.0, -torch.inf).to(q.dtype)[None]
    if (heads := seen.shape[0]) > 1:
        group = q.shape[2] // heads
        bias = bias[:, :, None].expand(-1, -1, group, -1, -1).flatten(1, 2)  # [1, Hq, Q, S]
    bias = _cut(bias, used.long() + length)
    return _attend(q, k, v, key_cache, value_cache, used, scale, 0, softcap, bias=bias)


def _slot_bias(table: Tensor, slots: int, used: Tensor, length: int) -> Tensor:
    """[1, Hq, Q, slots in use] of a table [Hq, M], less that of the newest slot.

    So it is small where it counts, in half precision too.
    """
    total = used.long() + length
    rows = table[:, :slots]
    rows = (rows - rows.index_select(1, total - 1))[None, :, None]  # [1, Hq, 1, S]
    repeats = torch.cat([torch.full((1,), n) for n in (1, 1, length, 1)])
    shape = (1, table.shape[0], length, slots)
    cut = _cut(rows, total)
    return symbolic("Tile", (cut, repeats), dtype=rows.dtype, shape=shape, version=OPSET)


def _cut(x: Tensor, count: Tensor) -> Tensor:
    """The first `count` [1] int64 columns of x [1, H, Q, S]; of S, if there are fewer.

    How many they are is known when the program runs; here they pass for all.
    """
    zero, axis = torch.zeros(1, dtype=torch.int64), torch.full((1,), 3)
    return symbolic("Slice", (x, zero, count, axis), dtype=x.dtype, shape=x.shape, version=OPSET)


def _first_keys(key_cache: Tensor, k: Tensor, used: Tensor, sink: int) -> Tensor:
    """[Hkv, sink, D] keys of the first entries, of which some may come with this step."""
    both = torch.cat((key_cache[:, :, :sink], k.transpose(1, 2)), dim=2).squeeze(0)
    place = torch.arange(sink)
    new = (sink + place - used.long()).clamp(max=both.shape[1] - 1)
    return both.index_select(1, torch.where(place < used, place, new))


def _sink_bias(q: Tensor, sink_q: Tensor, keys: Tensor, scale: float, softcap: float) -> Tensor:
    """[1, Hq, Q, sink] logits of sink_q less those of q."""
    if softcap > 0:
        out = logits(sink_q, keys, scale, softcap) - logits(q, keys, scale, softcap)
    else:
        out = logits(sink_q - q, keys, scale, 0.0)
    return out.reshape(1, q.shape[2], q.shape[1], keys.shape[1])


def _experts(
    x: Tensor,
    chosen: Tensor,
    shares: Tensor,
    up: Tensor,
    down: Tensor,
    up_bias: Tensor | None,
    down_bias: Tensor | None,
    activation: str,
    alpha: float,
    beta: float,
    limit: float,
    interleaved: bool,
) -> Tensor:
    """One node, which `onnx_experts.py` makes a kernel's when the precision is known."""
    numbers = {"alpha": alpha, "beta": beta, "limit": limit}
    attributes: dict = {"activation": activation, "interleaved": int(interleaved), **numbers}
    attributes |= {"count": chosen.shape[1], "gated": int(up.shape[1] != down.shape[2])}
    inputs = (x, chosen, shares, up, down, up_bias, down_bias)
    return symbolic("lcc::Experts", inputs, attributes, dtype=x.dtype, shape=x.shape, version=1)


def _causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """CausalConvWithState, channels first: four times as fast as with tokens first.

    Around it models have channels first, too, so that ONNX Runtime drops most of the transposes.
    """
    out, after = symbolic_multi_out(
        "com.microsoft::CausalConvWithState",
        (x.transpose(1, 2), weight[:, None], bias, state.transpose(1, 2)),
        {},
        dtypes=(x.dtype, state.dtype),
        shapes=(x.transpose(1, 2).shape, state.transpose(1, 2).shape),
        version=1,
    )
    return out.transpose(1, 2), after.transpose(1, 2)


def _linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    beta: Tensor | None,
    state: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """LinearAttention, which wants a query and a key for each head; the state stays in place."""
    heads = v.shape[2]
    if q.shape[2] != heads:
        q, k = (_repeated(each, heads // each.shape[2]) for each in (q, k))
    rule = {(True, True): "gated_delta", (True, False): "gated", (False, True): "delta"}
    attributes: dict = {"q_num_heads": heads, "kv_num_heads": heads, "scale": scale}
    attributes["update_rule"] = rule.get((decay is not None, beta is not None), "linear")
    packed = (_flat(q), _flat(k), _flat(v), state, None if decay is None else _flat(decay))
    out, after = symbolic_multi_out(
        "com.microsoft::LinearAttention",
        (*packed, *([] if beta is None else [beta])),
        attributes,
        dtypes=(v.dtype, state.dtype),
        shapes=(packed[2].shape, state.shape),
        version=1,
    )
    return out.reshape(v.shape), after


def _repeated(x: Tensor, times: int) -> Tensor:
    """[1, Q, G, K] -> [1, Q, G * times, K]: heads that follow one another are alike."""
    return x[:, :, :, None].expand(-1, -1, -1, times, -1).flatten(2, 3)


def lowerings() -> dict:
    """What each lcc:: operator becomes; a program that holds them has registered them."""
    lcc = torch.ops.lcc
    known = {
        "rotate": _rotate,
        "cached_attention": _cached_attention,
        "cached_sink_window": _cached_sink_window,
        "cached_block_sparse": _cached_block_sparse,
        "experts": _experts,
        "causal_conv": _causal_conv,
        "linear_attention": _linear_attention,
    }
    return {getattr(lcc, n).default: f for n, f in known.items() if hasattr(lcc, n)}
