"""The operator `lcc::experts`: of many small networks, each token runs through the few it chose."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "silu": lambda x, alpha: x * torch.sigmoid(x * alpha),
    "gelu": lambda x, alpha: functional.gelu(x * alpha),
    "gelu_tanh": lambda x, alpha: functional.gelu(x * alpha, approximate="tanh"),
    "relu": lambda x, alpha: functional.relu(x * alpha),
    "relu2": lambda x, alpha: functional.relu(x * alpha).square(),
}


def gate(
    rows: Tensor, activation: str, alpha: float, beta: float, limit: float, interleaved: bool
) -> Tensor:
    """What an expert makes of its first product [n, 2I]: [n, I].

    activation  of the gate, see `ACTIVATIONS`; alpha scales what it is given
    beta        added to the other half before both are multiplied
    limit       the most that either may be, and the other half the least below zero; inf = any
    interleaved gate and other half are columns 0, 1, 0, 1, ...; otherwise one half, then the other
    """
    first, other = (rows[..., ::2], rows[..., 1::2]) if interleaved else rows.chunk(2, dim=-1)
    if not math.isinf(limit):
        first, other = first.clamp(max=limit), other.clamp(-limit, limit)
    return ACTIVATIONS[activation](first, alpha) * (other + beta)


@torch.library.custom_op("lcc::experts", mutates_args=())
def experts(
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
    """The sum of what the chosen experts make of each token, each times its share.

    x           [T, H]
    chosen      [T, K] int64    0 .. E-1; one that is named twice counts twice
    shares      [T, K]
    up          [E, 2I, H]      gate and other half of the first product; up_bias [E, 2I]. Where it
                is [E, I, H], there is no other half: the activation is all that is between
    down        [E, H, I]       down_bias [E, H]
    returns     [T, H]; the others are as in `gate`

    How a token chooses is no part of it: that is ordinary arithmetic before it.
    """
    out = torch.zeros_like(x)
    for expert in chosen.unique().tolist():
        tokens, places = (chosen == expert).nonzero(as_tuple=True)
        rows = functional.linear(
            x[tokens], up[expert], None if up_bias is None else up_bias[expert]
        )
        if up.shape[1] == down.shape[2]:
            rows = ACTIVATIONS[activation](rows, alpha)
        else:
            rows = gate(rows, activation, alpha, beta, limit, interleaved)
        rows = functional.linear(
            rows, down[expert], None if down_bias is None else down_bias[expert]
        )
        out.index_add_(0, tokens, rows * shares[tokens, places, None])
    return out


@experts.register_fake
def _(x: Tensor, chosen: Tensor, shares: Tensor, up: Tensor, down: Tensor, *rest: object) -> Tensor:
    return torch.empty_like(x)
