"""spell_out_complex: rotations by complex numbers become real, with the same numbers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lcc.capture.export import capture
from lcc.errors import PassError
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.passes.spell_out_complex import SpellOutComplex
from lcc.testing.tiny import tiny_model

IDS = torch.randint(0, 250, (1, 33), generator=torch.Generator().manual_seed(0))


def is_real(graph: ModelGraph) -> bool:
    values = [node.meta.get("val") for node in graph.graph.nodes]
    return not any(isinstance(each, Tensor) and each.is_complex() for each in values)


@pytest.mark.parametrize("architecture", ["deepseek_v2", "llama4_text"])
def test_models_are_real_and_the_numbers_stay(architecture: str) -> None:
    before = FindAttention(table_size=64)(capture(tiny_model(architecture))).graph
    assert not is_real(before), "else there is nothing to do"
    result = SpellOutComplex()(before)
    assert result.sites == 1, "the angles of all layers are computed once"
    assert is_real(result.graph)
    assert not is_real(before), "the input is unchanged"
    for first in (0, 17):
        positions = torch.arange(first, first + 33)[None]
        with torch.no_grad():
            wanted, got = (each.module(IDS, positions)[0] for each in (before, result.graph))
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    assert SpellOutComplex()(result.graph).sites == 0


class Complex(nn.Module):
    """Logits [1, Q, 8] of a function of complex numbers [1, Q, 4]."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.table, self.function = nn.Embedding(250, 8), function
        nn.init.normal_(self.table.weight, generator=torch.Generator().manual_seed(1))

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        pairs = torch.view_as_complex(self.table(input_ids).unflatten(-1, (4, 2)))
        return torch.view_as_real(self.function(pairs)).flatten(2)


def turned(x: Tensor) -> Tensor:
    """Products with numbers, real and complex values, in both orders; other places."""
    size = torch.full((4, 1, 1), 1.5)
    angle = torch.polar(size, torch.arange(4.0)[:, None, None] * size)
    product = 0.5 * (x.transpose(1, 2)[:, :, None] * angle[None]) * x.real.mean()
    return product.select(2, 0).transpose(1, 2)


def test_what_may_be_done_with_complex_numbers() -> None:
    model = Complex(turned)
    result = SpellOutComplex()(capture(model)).graph
    assert is_real(result)
    with torch.no_grad():
        wanted, got = model(IDS, IDS), result.module(IDS, IDS)[0]
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


def test_other_operators_are_refused_by_name() -> None:
    with pytest.raises(PassError, match=r"exp \(aten\.exp\.default\) of complex numbers; wanted"):
        SpellOutComplex()(capture(Complex(torch.exp)))
