"""Angles that change with the length of a text, in caches that are shorter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lcc.capture.export import capture
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig, Positions
from lcc.errors import ConfigError
from lcc.passes.find_attention import FindAttention
from lcc.testing.tiny import tiny_model

END = 128
ROPES: dict[str, dict[str, Any]] = {
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": END,
        "short_factor": [1.0 + i / 10 for i in range(8)],
        "long_factor": [2.0] * 8,
    },
    "dynamic": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
}
LENGTHS = {"longrope": 512, "dynamic": END}


def model_of(kind: str) -> Any:
    return tiny_model("llama", rope_parameters=ROPES[kind], max_position_embeddings=LENGTHS[kind])


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


@pytest.mark.parametrize("kind", ROPES)
def test_short_texts_are_the_models(kind: str) -> None:
    """Also of a model that has read a long text before, and goes on reading."""
    model, ids = model_of(kind), torch.arange(END)[None] * 7 % 250
    before = logits(model, ids)
    longer = torch.arange(2 * END)[None] * 7 % 250
    whole = logits(model, longer)
    # The frequencies of the longer text change what its first half is to the model.
    assert (whole[:, :END] - before).abs().max() > 1e-2
    graph = capture(model)
    assert graph.positions_end == END
    found = FindAttention(table_size=END)(graph).graph
    assert found.positions_end == END
    with torch.no_grad():
        got = found.module(ids, torch.arange(END)[None])[0]
    torch.testing.assert_close(got, before, atol=2e-5, rtol=0)
    torch.testing.assert_close(logits(model, longer), whole)
    with torch.no_grad():  # and the graph is not what the model has read last
        again = found.module(ids, torch.arange(END)[None])[0]
    assert torch.equal(again, got)


SCALED: dict[str, dict[str, Any]] = {
    "ministral3": {
        "rope_parameters": {
            **{"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0},
            **{"original_max_position_embeddings": END, "llama_4_scaling_beta": 5.0},
        },
    },
    "llama4_text": {  # layer 1 has no rotation, and queries that grow
        **{"no_rope_layers": [1, 0], "moe_layers": [], "intermediate_size_mlp": 96},
        **{"attention_chunk_size": 8192, "floor_scale": END + 1, "attn_scale": 5.0},
    },
}


@pytest.mark.parametrize("kind", SCALED)
def test_queries_are_not_scaled_before_the_first_step(kind: str) -> None:
    sizes = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
    more = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
    more["num_key_value_heads"] = 2
    config = AutoConfig.for_model(kind, **sizes, **more, **SCALED[kind])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    ids, longer = (torch.arange(n)[None] * 7 % 250 for n in (END, END + 40))
    whole = logits(model, longer)
    graph = capture(model)
    assert graph.positions_end == END
    found = FindAttention(table_size=END)(graph).graph
    with torch.no_grad():
        got = found.module(ids, torch.arange(END)[None])[0]
    torch.testing.assert_close(got, whole[:, :END], atol=5e-5, rtol=0)
    assert torch.equal(logits(model, longer), whole)  # they are as they were


@pytest.mark.parametrize(
    ("capacity", "positions", "words"),
    [
        (END + 1, "contiguous", "capacity is 129, .* positions below 128; .*--capacity 128"),
        (END, "absolute", r"other angles in texts of more than 128 tokens \(LongRoPE"),
    ],
)
def test_longer_caches_are_refused(
    capacity: int, positions: Positions, words: str, tmp_path: Path
) -> None:
    sizes = {"budget": 64, "chunk_size": 16, "catalyst_size": 0, "recent_size": 8}
    cache = CacheConfig(capacity=capacity, positions=positions, **sizes)
    config = CompileConfig(cache=cache, policy=PolicyConfig(name="knorm"))
    with pytest.raises(ConfigError, match=words):
        compile_model(model_of("longrope"), tmp_path / "m.lcc", config)
