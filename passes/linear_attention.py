"""The operator `lcc::linear_attention`: a matrix a head in the place of a cache.

Nearly every recurrence that models carry beside attention is this one, with more or less of it:

    decay       beta
    -           -       linear attention (arXiv 2006.16236)
    a head      -       lightning attention (2401.04658); Mamba 2 (2405.21060)
    a channel   -       Mamba (2312.00752): every channel a head of one value; RG-LRU (2402.19427)
    a head      yes     gated delta rule (2412.06464)
    a channel   yes     Kimi delta attention (2510.26692)

Of state spaces (Mamba), q is C, k is B, v is dt x, and the decay dt A.
"""

import torch
from torch import Tensor


@torch.library.custom_op("lcc::linear_attention", mutates_args=())
def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    beta: Tensor | None,
    state: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """What each token reads from a state that it has changed first, head by head.

    q, k        [1, Q, G, K]    each for H / G heads that follow one another
    v           [1, Q, H, V]
    decay       [1, Q, H, 1] or [1, Q, H, K]    logarithm of what stays; None = all
    beta        [1, Q, H]       how much of what the state said is replaced; None = v is added
    state       [1, H, K, V]    zeros before a text
    returns     [1, Q, H, V], and the state behind the last token

    Of each token, with S of its head: S = exp(decay) S; then S = S + k v, or with beta
    S = S + k (beta (v - k S)); it reads scale q S.
    """
    repeats = v.shape[2] // k.shape[2]
    q, k = (each.repeat_interleave(repeats, dim=2) for each in (q, k))
    rows = []
    for token in range(v.shape[1]):
        key, value = k[:, token, :, :, None], v[:, token, :, None]  # [1, H, K, 1], [1, H, 1, V]
        if decay is not None:
            state = state * decay[:, token, :, :, None].exp()
        if beta is not None:
            value = (value - (key * state).sum(dim=2, keepdim=True)) * beta[:, token, :, None, None]
        state = state + key * value
        rows.append((q[:, token, :, :, None] * state).sum(dim=2) * scale)
    return torch.stack(rows, dim=1), state.clone()


@linear_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    beta: Tensor | None,
    state: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(v), torch.empty_like(state)
