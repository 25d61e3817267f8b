"""What cannot be captured is an error in terms of the model."""

import pytest
import torch
from torch import nn

from lcc.capture import capture
from lcc.errors import CaptureError
from lcc.tiny import tiny_model


def test_angles_that_follow_the_length_are_refused() -> None:
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "factor": 4.0,
        "original_max_position_embeddings": 128,
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
    }
    with pytest.raises(CaptureError, match=r"Phi3ForCausalLM: the model changes .*inv_freq while"):
        capture(tiny_model("phi3", rope_parameters=rope))


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
