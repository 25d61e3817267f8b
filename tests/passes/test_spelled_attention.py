"""Attention and masks in the spellings of many architectures, against the models themselves."""

from typing import Any

import pytest
import torch

from lcc.capture.export import capture
from lcc.errors import PassError
from lcc.ir.roles import Role
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph, attribute
from lcc.testing.tiny import tiny_model

attention = torch.ops.lcc.attention.default
IDS = torch.randint(0, 250, (1, 33), generator=torch.Generator().manual_seed(0))

# window and rotation of each layer, and what else its attention has
EXPECTED: dict[str, tuple[list[tuple[int, int]], str | None]] = {
    "gpt_oss": (
        [(8, 0), (0, 0)],
        "sinks",
    ),  # a column beside the scores
    "granite_swa": ([(8, 0), (0, 0)], "sinks"),  # a sigmoid that scales what is attended
    # Chunks that begin behind the cache; complex numbers; a norm before a transpose.
    "llama4_text": ([(0, 0), (0, -1)], None),
    "bloom": ([(0, -1), (0, -1)], "bias"),  # baddbmm of three axes
    "mpt": ([(0, -1), (0, -1)], "bias"),  # cut from a table, masked_fill
    "falcon": ([(0, -1), (0, -1)], "bias"),  # in the mask; rounded to bfloat16
    "codegen": ([(0, 0), (0, 0)], None),  # the mask is added before scores are scaled
    "xglm": ([(0, -1), (0, -1)], None),  # views around the mask, a maximum, products of three axes
    "gpt_neo": ([(0, -1), (8, -1)], None),  # where, from a table of its own
    "openai-gpt": ([(0, -1), (0, -1)], None),  # times a table, plus -1e4 times the rest
    "hunyuan_v1_dense": ([(0, 0), (0, 0)], None),  # a norm with weights behind the rotation
    "gemma3n_text": ([(8, 0), (0, 1), (8, 0), (0, 1)], None),  # the last two read others' keys
    "nanochat": ([(0, 0), (0, 0)], None),  # one without; it turns the other way round
}


@pytest.mark.parametrize("architecture", EXPECTED)
def test_every_spelling(architecture: str) -> None:
    model = tiny_model(architecture)
    found = FindAttention(table_size=64)(capture(model)).graph
    calls = found.calls(attention)
    layers, more = EXPECTED[architecture]
    assert [(call.args[4], call.args[6]) for call in calls] == layers
    assert len(found.rotations) == len({rotation for _, rotation in layers if rotation >= 0})
    for call in calls:
        given = dict(zip(("sinks", "bias"), call.args[7:], strict=False))
        assert [name for name, value in given.items() if value is not None] == (
            [] if more is None else [more]
        )
    for first in (0, 17):
        positions = torch.arange(first, first + 33)[None]
        with torch.no_grad():
            wanted = model(input_ids=IDS, position_ids=positions, use_cache=False).logits
            got = found.module(IDS, positions)[0]
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=0)


def test_a_bias_is_the_slopes_of_alibi() -> None:
    """Of four heads: a quarter, a sixteenth, ... for each token of distance."""
    (call, _) = FindAttention(table_size=64)(capture(tiny_model("bloom"))).graph.calls(attention)
    graph = call.graph.owning_module
    table = graph.get_buffer(call.args[8].target)
    distance = 63 - torch.arange(64)
    slopes = torch.tensor([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8])
    torch.testing.assert_close(table[:, :64], -slopes[:, None] * distance)


def test_sinks_are_the_models_own() -> None:
    model = tiny_model("gpt_oss")
    found = FindAttention(table_size=64)(capture(model)).graph
    for call, layer in zip(found.calls(attention), model.model.layers, strict=True):
        assert torch.equal(attribute(found, call.args[7]), layer.self_attn.sinks)


def seen(model: Any, table_size: int) -> ModelGraph:
    return FindAttention(table_size=table_size)(capture(model)).graph


def test_a_window_behind_the_cache_is_none() -> None:
    """However large it is: nothing of the cache is ever further away."""
    model = tiny_model("mistral", sliding_window=262144, max_position_embeddings=131072)
    found = seen(model, 64)
    assert [call.args[4] for call in found.calls(attention)] == [0, 0]
    words = (
        r"made with the number 2621\d\d; a window of more than 16384 tokens is not .* --capacity"
    )
    with pytest.raises(PassError, match=words):
        seen(model, 300_000)


def test_what_no_target_computes_is_computed_before() -> None:
    graph = capture(tiny_model("gemma3n_text"))
    assert not graph.calls(torch.ops.aten.erfinv.default)


def test_inputs_stay_what_they_were() -> None:
    found = seen(tiny_model("gpt_oss"), 64)
    assert [port.role for port in found.inputs] == [Role.TOKENS, Role.POSITIONS]
