"""Angles that change with the length of a text, in caches that are shorter."""

from pathlib import Path
from typing import Any

import pytest
import torch

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
