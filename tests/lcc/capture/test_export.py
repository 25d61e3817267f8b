"""What cannot be captured is an error in terms of the model."""

import pytest
import torch
from torch import nn

from lcc.capture.export import capture
from lcc.errors import CaptureError


class Branches(nn.Module):
    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        if input_ids.sum() > 3:
            return input_ids[..., None].float()
        return position_ids[..., None].float()


class NoLogits(nn.Module):
    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        return (input_ids + position_ids).float()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Branches(), r"Branches: torch.export failed: .*without branching on their values"),
        (NoLogits(), r"NoLogits: wanted logits \[1, Q, V\], got torch.Size\(\[1, "),
    ],
)
def test_other_modules_are_refused(module: nn.Module, words: str) -> None:
    with pytest.raises(CaptureError, match=words):
        capture(module)


class InPlace(nn.Module):
    """Writes into what it computed, and looks at it through views of views."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 8)

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids) * 1.0
        x += position_ids[..., None]
        x[..., 0] = 7.0
        return x.unflatten(-1, (2, 4)).flatten(2).mT.mT


def test_nothing_is_written_in_place_after_capture() -> None:
    graph = capture(InPlace())
    calls = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert not [
        call for call in calls if getattr(call, "_schema", None) and call._schema.is_mutable
    ]
    assert torch.ops.aten.flatten.using_ints not in calls
    ids, positions = torch.tensor([[3, 1, 4]]), torch.tensor([[2, 3, 4]])
    module = InPlace()
    module.load_state_dict({"embed.weight": graph.module.get_parameter("embed.weight").data})
    torch.testing.assert_close(graph.module(ids, positions)[0], module(ids, positions))


class InRegions(InPlace):
    """Computes without autocast, as rotary embeddings do, and has a dropout that is off."""

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids)
        with torch.autocast("cpu", enabled=False):
            x = x + position_ids[..., None].float()
        return nn.functional.dropout(x, 0.5, training=self.training) * 2


class AlwaysDrops(InPlace):
    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.embed(input_ids) + position_ids[..., None], 0.5)


def test_regions_are_inlined_and_only_idle_dropout_is_dropped() -> None:
    ids, positions = torch.tensor([[3, 1, 4]]), torch.tensor([[2, 3, 4]])
    graph = capture(InRegions())
    targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert all(isinstance(target, torch._ops.OpOverload) for target in targets)
    embedded = graph.module.get_parameter("embed.weight").data[ids]
    wanted = (embedded + positions[..., None]) * 2
    torch.testing.assert_close(graph.module(ids, positions)[0], wanted)
    always = [str(node.target) for node in capture(AlwaysDrops()).graph.nodes]
    assert any("dropout" in target for target in always)


class Slices(InPlace):
    """Joins what it cut, of which a part has no width."""

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(input_ids) + position_ids[..., None]
        whole = torch.cat((x * 2, x[..., 8:]), dim=-1)
        return torch.cat((whole[..., :4], whole[..., 8:], whole[..., 4:]), dim=-1)


def test_parts_of_no_width_are_left_out() -> None:
    """They would be constants of no bytes, which an engine need not take (phi3 for tvm:cpu)."""
    graph = capture(Slices())
    (cat,) = graph.calls(torch.ops.aten.cat.default)
    assert len(cat.args[0]) == 2
    assert all(0 not in node.meta["val"].shape for node in graph.graph.nodes if node.op != "output")
    ids, positions = torch.tensor([[3, 1, 4]]), torch.tensor([[2, 3, 4]])
    wanted = 2 * (graph.module.get_parameter("embed.weight").data[ids] + positions[..., None])
    torch.testing.assert_close(graph.module(ids, positions)[0], wanted)
