"""Models that lcc cannot compile are refused by name, at once, and with what to use instead."""

import time
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lcc.capture.export import capture
from lcc.capture.refusals import refusal
from lcc.errors import CaptureError
from lcc.testing.tiny import ARCHITECTURES, KINDS, tiny_model

SMALL: dict[str, Any] = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
CASES = {  # a state, by the kinds of layers and by modules; indexed attention; others
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "its conv layers keep a state"),
    "qwen3_next": ({}, "its linear_attention layers keep a state"),
    "rwkv": ({"attention_hidden_size": 32}, "its modules RwkvSelfAttention keep a state"),
    "deepseek_v32": ({}, "its indexed_attention layers choose by the tokens themselves"),
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
    assert "keep a state" in str(refusal(small_model("qwen3_next").config))
    assert refusal(small_model("rwkv").config) is None


def test_what_compiles_is_not_refused() -> None:
    for name in (*ARCHITECTURES, *KINDS):
        model = tiny_model(name)
        assert refusal(model.config, model.modules()) is None, name
