"""lcc::experts against loops over lists of numbers."""

import math

import pytest
import torch

from lcc.passes.experts import ACTIVATIONS

TOKENS, CHOICES, EXPERTS, WIDTH, INNER = 5, 2, 4, 8, 6


def drawn(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def activation(name: str, x: float, alpha: float) -> float:
    if name == "silu":
        return x / (1 + math.exp(-alpha * x))
    x = alpha * x
    if name == "relu":
        return max(0.0, x)
    if name == "relu2":
        return max(0.0, x) ** 2
    if name == "gelu":
        return x * (1 + math.erf(x / math.sqrt(2))) / 2
    return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def expected(
    given: dict[str, list],
    name: str,
    alpha: float,
    beta: float,
    limit: float,
    interleaved: bool,
) -> list[list[float]]:
    """Token by token and choice by choice."""
    out = []
    for x, chosen, shares in zip(given["x"], given["chosen"], given["shares"], strict=True):
        total = [0.0] * WIDTH
        for expert, share in zip(chosen, shares, strict=True):
            rows = [
                sum(a * b for a, b in zip(x, row, strict=True)) + bias
                for row, bias in zip(given["up"][expert], given["up_bias"][expert], strict=True)
            ]
            gates = rows[::2] if interleaved else rows[:INNER]
            others = rows[1::2] if interleaved else rows[INNER:]
            inner = [
                activation(name, min(gate, limit), alpha) * (max(-limit, min(other, limit)) + beta)
                for gate, other in zip(gates, others, strict=True)
            ]
            for i, row in enumerate(given["down"][expert]):
                made = sum(a * b for a, b in zip(inner, row, strict=True))
                total[i] += share * (made + given["down_bias"][expert][i])
        out.append(total)
    return out


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(
    ("name", "alpha", "beta", "limit"),
    [*((name, 1.0, 0.0, math.inf) for name in ACTIVATIONS), ("silu", 1.702, 1.0, 0.7)],
)
def test_every_gate(name: str, alpha: float, beta: float, limit: float, interleaved: bool) -> None:
    x, up, down = (
        drawn(TOKENS, WIDTH),
        drawn(EXPERTS, 2 * INNER, WIDTH, seed=1),
        drawn(EXPERTS, WIDTH, INNER, seed=2),
    )
    chosen = torch.tensor([[0, 3], [3, 1], [0, 1], [1, 0], [3, 0]])  # nobody chooses 2
    shares = drawn(TOKENS, CHOICES, seed=3)
    biases = drawn(EXPERTS, 2 * INNER, seed=4), drawn(EXPERTS, WIDTH, seed=5)
    numbers = name, alpha, beta, limit, interleaved
    got = torch.ops.lcc.experts(x, chosen, shares, up, down, *biases, *numbers)
    given = dict(
        zip(
            ("x", "chosen", "shares", "up", "down", "up_bias", "down_bias"),
            (each.tolist() for each in (x, chosen, shares, up, down, *biases)),
            strict=True,
        )
    )
    wanted = torch.tensor(expected(given, *numbers), dtype=torch.float64)
    torch.testing.assert_close(got, wanted)


def test_an_expert_that_is_named_twice_counts_twice() -> None:
    x, up, down = drawn(1, WIDTH), drawn(2, 2 * INNER, WIDTH), drawn(2, WIDTH, INNER)
    gate = None, None, "silu", 1.0, 0.0, math.inf, False
    twice, once = torch.tensor([[1, 1]]), torch.tensor([[1]])
    shares = torch.tensor([[0.25, 0.5]], dtype=torch.float64)
    got = torch.ops.lcc.experts(x, twice, shares, up, down, *gate)
    wanted = torch.ops.lcc.experts(x, once, shares.sum(1, keepdim=True), up, down, *gate)
    torch.testing.assert_close(got, wanted)
