"""Models that lcc cannot compile are refused by name, at once, and with what to use instead."""

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from lcc.capture.export import capture
from lcc.capture.recurrences import FUNCTIONS
from lcc.capture.refusals import refusal
from lcc.errors import CaptureError
from lcc.testing.tiny import ARCHITECTURES, KINDS, tiny_model

SMALL: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
CASES = {  # indexed attention; others
    "deepseek_v32": ({}, "its indexed_attention layers choose by the tokens themselves"),
    "cpmant": (
        {"dim_ff": 32, "num_attention_heads": 2, "dim_head": 16},
        "its modules CpmAntSegmentPositionEmbedding put places of their own before",
    ),
    "doge": ({}, "its modules DogeAttention hide keys by their values"),
    "jetmoe": ({}, "its modules JetMoeMoA send each token to query heads of its own"),
}


def small_model(name: str) -> Any:
    with torch.device("meta"):  # no weight is looked at
        config = AutoConfig.for_model(name, **{**SMALL, **CASES[name][0]})
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name_and_at_once(name: str) -> None:
    model = small_model(name)
    began = time.perf_counter()
    with pytest.raises(CaptureError, match=f"{type(model).__name__}: {CASES[name][1]}.*; use a"):
        capture(model)
    assert time.perf_counter() - began < 1


def test_a_configuration_is_enough_for_most() -> None:
    """So that no weights are read for nothing."""
    assert "choose by the tokens" in str(refusal(small_model("deepseek_v32").config))
    assert refusal(small_model("doge").config) is None


class Plain(nn.Module):
    """A language model with one layer that looks back, of a kind that no operator is known for."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(64, 8), layer
        self.head = nn.Linear(8, 64)

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        return self.head(self.layer(self.embedding(input_ids)))


class Convolution(nn.Conv1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2)


class MovingMeanRecurrence(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        state, out = x[:, 0], []
        for token in range(x.shape[1]):
            state = 0.9 * state + x[:, token]
            out.append(state)
        return torch.stack(out, dim=1)


@pytest.mark.parametrize(
    "layer", [Convolution(8, 8, 3, padding=2), MovingMeanRecurrence()], ids=["conv", "loop"]
)
def test_a_recurrence_that_is_not_known_is_named(layer: nn.Module) -> None:
    kind = type(layer).__name__
    words = rf"Plain: layer \({kind}\) is one of the modules that carry a state .*; use a model"
    with pytest.raises(CaptureError, match=words):
        capture(Plain(layer))


def test_what_compiles_is_not_refused() -> None:
    for name in (*ARCHITECTURES, *KINDS):
        model = tiny_model(name)
        assert refusal(model.config, model.modules()) is None, name


@pytest.mark.parametrize("name", ["seq_idx", "initial_state"])
def test_arguments_of_a_recurrence_that_no_operator_has(name: str) -> None:
    """Several texts in one row, a state from elsewhere: never left out in silence."""
    x, weight = torch.zeros(1, 4, 5), torch.zeros(4, 3)
    convolve = FUNCTIONS["causal_conv1d_fn"]
    assert convolve(x, weight, **{name: None}).shape == x.shape
    with pytest.raises(CaptureError, match=f"called with {name}, which lcc has not"):
        convolve(x, weight, **{name: torch.zeros(1, 5)})
