"""The operator `lcc::causal_conv`: every channel is a sum over its newest numbers."""

import torch
from torch import Tensor


@torch.library.custom_op("lcc::causal_conv", mutates_args=())
def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """A short causal convolution of every channel by itself, from where a text was left.

    x           [1, Q, C]
    weight      [C, K]          the last one is of the token itself
    bias        [C]
    state       [1, K-1, C]     what x was before, oldest first; zeros before a text
    returns     [1, Q, C], and the state behind the last token
    """
    rows = torch.cat((state, x), dim=1)
    out = torch.empty_like(x)
    for token in range(x.shape[1]):
        out[:, token] = (rows[:, token : token + weight.shape[1]] * weight.T).sum(dim=1)
    if bias is not None:
        out += bias
    return out, rows[:, x.shape[1] :].clone()


@causal_conv.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(state)
