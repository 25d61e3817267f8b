"""share_latents: the key in the place of a value that is a part of it, and only there."""

import pytest
import torch
from torch import fx

from lcc.capture.export import capture
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph, aten
from lcc.passes.share_latents import ShareLatents, shares_entries
from lcc.testing.tiny import tiny_model

IDS = torch.randint(0, 250, (1, 33), generator=torch.Generator().manual_seed(0))
POSITIONS = torch.arange(33)[None]


def found(architecture: str) -> ModelGraph:
    return FindAttention(table_size=64)(capture(tiny_model(architecture))).graph


def sites(graph: ModelGraph) -> list[fx.Node]:
    return graph.calls(torch.ops.lcc.attention.default)


@pytest.mark.parametrize("architecture", ["deepseek_v3", "minicpm3"])
def test_latents_are_shared_and_the_numbers_stay(architecture: str) -> None:
    """What is attended to in the rotated channels is another, and nobody reads it."""
    before = found(architecture)
    result = ShareLatents()(before)
    assert result.sites == 2
    assert all(map(shares_entries, sites(result.graph)))
    assert not any(map(shares_entries, sites(before))), "the input is unchanged"
    assert not result.graph.calls(aten.new_zeros.default), "and no zeros are left"
    with torch.no_grad():
        wanted, got = (each.module(IDS, POSITIONS)[0] for each in (before, result.graph))
    assert torch.equal(got, wanted)


def test_other_attention_is_left_alone() -> None:
    result = ShareLatents()(found("llama"))
    assert result.sites == 0
    assert ShareLatents()(ShareLatents()(found("minicpm3")).graph).sites == 0, "nothing is left"


def test_where_a_rotated_channel_is_read_values_are_kept() -> None:
    """Of the first layer, the slice behind the attention begins a channel too early."""
    graph = found("minicpm3")
    reads = graph.calls(aten.slice.Tensor)
    first = next(n for n in reads if n.args[1:3] == (3, -16) and sites(graph)[0] < n)
    first.update_arg(2, -17)
    result = ShareLatents()(graph)
    assert [shares_entries(site) for site in sites(result.graph)] == [False, True]


def test_where_the_value_is_another_one_it_is_kept() -> None:
    """Of the first layer it is that of the second."""
    graph = found("minicpm3")
    one, other = sites(graph)
    other.update_arg(2, one.args[2])
    result = ShareLatents()(graph)
    assert [shares_entries(site) for site in sites(result.graph)] == [True, False]
