"""Random numbers of entries: uniform, the same for the same token, others elsewhere."""

import pytest
import torch
from torch import Tensor

from lcc.passes.programs.noise import PRIME, noise

COUNT = 20_000


def drawn(position: Tensor, layer: int = 0, seed: int = 0) -> Tensor:
    one = torch.tensor([layer], dtype=torch.int32), torch.tensor([seed], dtype=torch.int32)
    return noise(position, *one)


def heads(count: int, first: int = 0, length: int = COUNT) -> Tensor:
    return torch.arange(first, first + length).expand(count, -1)


def by_hand(position: int, head: int, layer: int, seed: int) -> float:
    """In Python's integers, which never overflow."""
    x = (position + (layer * 1009 + head + seed * 7919) * 104729) % (2**31 - 1)
    for factor, summand in ((48271, 11), (69621, 1013904223), (39373, 12345)):
        x = (x * x + factor * x + summand) % (2**31 - 1)
    return x / (2**31 - 1)


@pytest.mark.parametrize("seed", [0, 1, 2**31 - 1])
def test_the_numbers_are_those_of_whole_numbers(seed: int) -> None:
    positions = torch.tensor([[0, 1, 2, 1_000_000, 2**40]]).expand(3, -1)
    got = drawn(positions, layer=31, seed=seed)
    assert got.dtype == torch.float32
    for head, row in enumerate(got.tolist()):
        wanted = [by_hand(p, head, 31, seed) for p in positions[0].tolist()]
        assert row == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize("first", [0, 5_000_000, PRIME - 7])
def test_uniform(first: int) -> None:
    numbers = drawn(heads(4, first), layer=3, seed=5)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for row in numbers:
        tenths = torch.histc(row, bins=10, min=0, max=1)
        assert (tenths - COUNT / 10).abs().max() < 5 * (COUNT * 0.09) ** 0.5
    pairs = torch.corrcoef(torch.stack([numbers[0, :-1], numbers[0, 1:]]))
    assert abs(float(pairs[0, 1])) < 5 / COUNT**0.5  # neighbours say nothing of each other
    assert torch.corrcoef(numbers).sub(torch.eye(4)).abs().max() < 5 / COUNT**0.5


def test_it_is_the_tokens_and_not_the_slots() -> None:
    whole = drawn(heads(2, 0, 50))
    chosen = torch.tensor([[3, 7, 48], [0, 7, 9]])
    assert torch.equal(drawn(chosen), whole.gather(1, chosen))


def test_layers_heads_and_seeds_draw_others() -> None:
    rows = [drawn(heads(2, 0, 500), layer, seed) for layer in (0, 1, 29) for seed in (0, 1, 77)]
    every = torch.cat(rows)  # of 9 combinations, 2 heads each
    assert torch.corrcoef(every).sub(torch.eye(18)).abs().max() < 0.25
