"""The `lcc::` operators: what the passes rewrite a model into, with their eager meaning.

The eager bodies are the specification, written for clarity; targets lower the operators to kernels.
Everything is token-major, [B, Q, H, D], as projections write it, so that no transpose is needed.
"""

import torch
from torch import Tensor

from lcc.ir.plan import BlockSparse
from lcc.passes import causal_conv, experts, linear_attention  # noqa: F401 - define lcc:: too
from lcc.passes.rotation import rotate as rotate_pairs


@torch.library.custom_op("lcc::rotate", mutates_args=())
def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Rotate the first R of D channels of every head by the angle of its token.

    x           [B, Q, H, D]
    cos, sin    [1, Q, R/2]     times the model's attention factor, where it has one
    interleaved pairs are (0, 1), (2, 3), ...; otherwise (0, R/2), (1, R/2 + 1), ...
    """
    return rotate_pairs(x, cos.unsqueeze(2), sin.unsqueeze(2), interleaved).clone()


@rotate.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    return torch.empty_like(x)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    first_slot: Tensor,
    scale: float,
    window: int,
    softcap: float,
    sinks: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    """Attention of Q queries in slots first_slot.. over S slots; float32 softmax."""
    length, slots = q.shape[1], k.shape[1]
    group = q.shape[2] // k.shape[2]
    scores = torch.einsum("bqhd,bshd->bhqs", q, k.repeat_interleave(group, dim=2)) * scale
    if softcap > 0:
        scores = torch.tanh(scores / softcap) * softcap
    if bias is not None:
        scores = scores + bias[:, None, :slots]
    query = torch.arange(length)[:, None] + first_slot
    key = torch.arange(slots)[None, :]
    visible = key <= query
    if window > 0:
        visible = visible & (query - key < window)
    scores = scores.masked_fill(~visible, float("-inf"))
    if sinks is not None:
        scores = torch.cat((scores, sinks[:, None, None].expand(*scores.shape[:3], 1)), dim=-1)
    weights = torch.softmax(scores.float(), dim=-1).to(v.dtype)[..., :slots]
    return torch.einsum("bhqs,bshd->bqhd", weights, v.repeat_interleave(group, dim=2)).contiguous()


@torch.library.custom_op("lcc::attention", mutates_args=())
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    window: int,
    softcap: float,
    rotation: int,
    sinks: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Causal attention of a text over itself: what find_attention makes of every spelling.

    q           [B, Q, Hq, D]   rotated
    k, v        [B, Q, Hkv, D]  k rotated; Hq is a multiple of Hkv
    window      keys a query sees, itself included; 0 = all
    softcap     scores become tanh(s / softcap) * softcap; 0 = as they are
    rotation    index of the rotation that k went through; -1 = none
    sinks       [Hq]            one more logit in every softmax of a head, which stands for no key
    bias        [Hq, M]         added to every score of the key in a slot, M >= Q (ALiBi)
    returns     [B, Q, Hq, D]
    """
    first = torch.zeros(1, dtype=torch.int64)
    return _attend(q, k, v, first, scale, window, softcap, sinks, bias)


@attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *rest: object) -> Tensor:
    return q.new_empty(q.shape)


@torch.library.custom_op("lcc::cached_attention", mutates_args=())
def cached_attention(
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
    """Write Q new entries in slots used .. used+Q-1 and attend over all valid slots.

    q           [B, Q, Hq, D]     rotated
    k, v        [B, Q, Hkv, D]    new entries, k rotated
    key_cache   [B, Hkv, S, D]    also value_cache; slots 0 .. used-1 are valid
    used        [1] int32
    returns     [B, Q, Hq, D] and the caches with the new entries in place
    rotation    as in lcc::attention, and sinks; bias is [Hq, M], M >= S

    Query j sees slots 0 .. used+j, the last `window` of them where window > 0.
    """
    slots = used.long() + torch.arange(q.shape[1])
    keys = key_cache.index_copy(2, slots, k.transpose(1, 2))
    values = value_cache.index_copy(2, slots, v.transpose(1, 2))
    filled = int(used) + q.shape[1]
    seen_keys, seen_values = (x[:, :, :filled].transpose(1, 2) for x in (keys, values))
    numbers = scale, window, softcap, sinks, bias
    return _attend(q, seen_keys, seen_values, used.long(), *numbers), keys, values


@cached_attention.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, key_cache: Tensor, value_cache: Tensor, *rest: object
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), torch.empty_like(key_cache), torch.empty_like(value_cache)


@torch.library.custom_op("lcc::cached_sink_window", mutates_args=())
def cached_sink_window(
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
    """As `cached_attention`, of a layer that sees its first entries and its newest (`lcc.ir.plan`).

    q           [B, Q, Hq, D]     rotated, for the entries of the window
    sink_q      [B, Q, Hq, D]     rotated for the first `sink` entries, which stay where they are
                                  while the window moves on
    k, v        [B, Q, Hkv, D]    new entries, k rotated
    key_cache   [B, Hkv, S, D]    also value_cache; slots 0 .. used-1 are valid: the first entries
                                  of the text, then newest ones without a gap
    used        [1] int32
    rotation    as in lcc::attention
    returns     [B, Q, Hq, D] and the caches with the new entries in place

    Query j, in slot i = used + j, sees slot s <= i where s < sink or i // block - s // block <
    window // block: a text's own blocks, as whole blocks are dropped only.
    """
    heads = q.shape[2] // k.shape[2]
    slots = used.long() + torch.arange(q.shape[1])
    keys = key_cache.index_copy(2, slots, k.transpose(1, 2))
    values = value_cache.index_copy(2, slots, v.transpose(1, 2))
    every = keys.repeat_interleave(heads, dim=1)  # [B, Hq, S, D]
    scores = torch.einsum("bqhd,bhsd->bhqs", q, every)
    scores[..., :sink] = torch.einsum("bqhd,bhsd->bhqs", sink_q, every[:, :, :sink])
    scores = scores * scale
    if softcap > 0:
        scores = torch.tanh(scores / softcap) * softcap
    query, slot = slots[:, None], torch.arange(keys.shape[2])[None, :]
    near = query // block - slot // block < window // block
    visible = (slot <= query) & ((slot < sink) | near)
    weights = torch.softmax(scores.masked_fill(~visible, float("-inf")).float(), dim=-1)
    every = values.repeat_interleave(heads, dim=1)
    # What lies in slots never used may be anything, and 0 * inf is not 0.
    every = torch.where(visible.any(0)[:, None], every, 0.0)
    out = torch.einsum("bhqs,bhsd->bqhd", weights.to(v.dtype), every).contiguous()
    return out, keys, values


@cached_sink_window.register_fake
def _(
    q: Tensor,
    sink_q: Tensor,
    k: Tensor,
    v: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    *n: object,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), torch.empty_like(key_cache), torch.empty_like(value_cache)


@torch.library.custom_op("lcc::cached_block_sparse", mutates_args=())
def cached_block_sparse(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    used: Tensor,
    places: Tensor,
    block: int,
    stride: int,
    local: int,
    sink: int,
    reach: int,
    offset: int,
    shift: int,
    scale: float,
    softcap: float,
    rotation: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `cached_attention`, of a layer that sees blocks of the text (`lcc.ir.plan.BlockSparse`).

    q           [B, Q, Hq, D]     rotated
    k, v        [B, Q, Hkv, D]    new entries, k rotated
    key_cache   [B, Hkv, S, D]    also value_cache; slots 0 .. used-1 are valid
    used        [1] int32
    places      [H, S] int64      place in the text of the token in each slot, of H >= Hkv heads;
                                  the new entries' are there already; all rows alike where shift
                                  is 0
    rotation    as in lcc::attention
    returns     [B, Q, Hq, D] and the caches with the new entries in place

    Query j, in slot used + j, sees the slots up to its own whose tokens `BlockSparse.sees`.
    """
    kind = BlockSparse(
        block=block,
        stride=stride,
        local=local,
        sink=sink,
        reach=reach,
        offset=offset,
        shift=shift,
    )
    heads = k.shape[2]
    group = q.shape[2] // heads
    slots = used.long() + torch.arange(q.shape[1])
    keys = key_cache.index_copy(2, slots, k.transpose(1, 2))
    values = value_cache.index_copy(2, slots, v.transpose(1, 2))
    filled = int(used) + q.shape[1]
    place = places[:heads, None, :filled]  # [Hkv, 1, filled]
    query = places[:heads].index_select(1, slots)[:, :, None]
    seen = kind.sees(query, place, torch.arange(heads)[:, None, None])
    visible = seen & (torch.arange(filled) <= slots[:, None])
    logits = torch.einsum("bqhgd,bhsd->bhgqs", q.unflatten(2, (heads, group)), keys[:, :, :filled])
    logits = logits * scale
    if softcap > 0:
        logits = torch.tanh(logits / softcap) * softcap
    weights = torch.softmax(logits.masked_fill(~visible[:, None], -torch.inf).float(), dim=-1)
    out = torch.einsum("bhgqs,bhsd->bqhgd", weights.to(v.dtype), values[:, :, :filled])
    return out.flatten(2, 3).contiguous(), keys, values


@cached_block_sparse.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, key_cache: Tensor, value_cache: Tensor, *rest: object
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), torch.empty_like(key_cache), torch.empty_like(value_cache)
