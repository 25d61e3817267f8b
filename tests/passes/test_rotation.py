import pytest
import torch

from lcc.passes.rotation import Rotation, rotate
from lcc.testing import oracles as testing

FREQUENCIES = torch.tensor([1.0, 0.3, 0.02], dtype=torch.float64)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("head_size", [6, 8])  # all of the head turns; only its first 6 numbers
def test_rotate_is_a_turn_of_complex_numbers(interleaved, head_size):
    rotation = Rotation.from_frequencies(FREQUENCIES, 50, interleaved=interleaved)
    x = torch.randn(2, 50, head_size, generator=torch.Generator().manual_seed(0))
    y = rotate(x, rotation.cos, rotation.sin, rotation.interleaved)
    for head in range(2):
        for position in (0, 1, 7, 49):
            expected = testing.rotate(
                x[head, position].tolist(), position, FREQUENCIES.tolist(), interleaved=interleaved
            )
            assert y[head, position].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_two_pairings_differ():
    table = Rotation.from_frequencies(FREQUENCIES, 2)
    x = torch.arange(6.0).expand(2, 6)
    assert not torch.equal(
        rotate(x, table.cos, table.sin, False), rotate(x, table.cos, table.sin, True)
    )


def test_quarter_turn_spelled_out():
    cos, sin = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])  # pair 0 turns by 90 degrees
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    assert rotate(x, cos, sin, False).tolist() == [[-3.0, 2.0, 1.0, 4.0, 5.0]]
    assert rotate(x, cos, sin, True).tolist() == [[-2.0, 1.0, 3.0, 4.0, 5.0]]


def test_tables_are_exact_to_float32_at_far_positions():
    far = 131_071
    rotation = Rotation.from_frequencies(FREQUENCIES, far + 1)
    exact = (far * FREQUENCIES).cos()
    assert (rotation.cos[far].double() - exact).abs().max() < 6e-8
    in_float32 = (torch.tensor(float(far)) * FREQUENCIES.float()).cos()
    assert (in_float32.double() - exact).abs().max() > 1e-4  # what the test is there to prevent
