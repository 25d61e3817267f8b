"""The operators of recurrences as a captured model calls them: from the beginning of a text."""

import torch
from torch import Tensor

from lcc.passes import causal_conv, linear_attention  # noqa: F401 - define lcc::


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`lcc::causal_conv` from the beginning of a text: x [1, Q, C], weight [C, K]."""
    state = x.new_zeros(1, weight.shape[1] - 1, x.shape[2])
    out, _ = torch.ops.lcc.causal_conv(x, weight, bias, state)
    return out


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    decay: Tensor | None,
    beta: Tensor | None = None,
    scale: float = 1.0,
) -> Tensor:
    """`lcc::linear_attention` from the beginning of a text; a decay [1, Q, H] is a head's."""
    if decay is not None and decay.dim() == 3:
        decay = decay[..., None]
    state = v.new_zeros(1, v.shape[2], k.shape[3], v.shape[3])
    out, _ = torch.ops.lcc.linear_attention(q, k, v, decay, beta, state, scale)
    return out


def shifted(x: Tensor) -> Tensor:
    """[1, Q, C]: of each token what x was at the one before, zero at the first."""
    weight = torch.tensor([1.0, 0.0]).expand(x.shape[2], 2)
    return convolve(x, weight, None)
