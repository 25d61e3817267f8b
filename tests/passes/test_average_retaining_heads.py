"""average_retaining_heads: one score a token, the mean of what all heads expect."""

import math

import pytest
import torch

from lcc.capture.export import capture
from lcc.errors import ConfigError
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.average_retaining_heads import AverageRetainingHeads
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.passes.hybrid_layers import HybridLayers
from lcc.passes.insert_retaining_heads import InsertRetainingHeads
from lcc.passes.lift_kv_cache import LiftKVCache
from lcc.sources.heads import RetainingHeads
from lcc.testing.tiny import random_heads, tiny_model

IDS, POSITIONS = torch.arange(5, 16)[None] * 17 % 250, torch.arange(11)[None]
LAYERS = 3
PLAN = "0: full; 1: sink_window(sink=2, window=9); 2: full"


@pytest.fixture(scope="module")
def graph() -> ModelGraph:
    """Heads whose scores go far beyond 80, and far below 0."""
    model = tiny_model("llama", num_hidden_layers=LAYERS)
    heads = random_heads(model)
    large = {i: (first, second * 300) for i, (first, second) in heads.layers.items()}
    found = FindAttention(64)(capture(model)).graph
    return InsertRetainingHeads(RetainingHeads(heads.page, large), capacity=40)(found).graph


def run(graph: ModelGraph) -> dict[str, torch.Tensor]:
    one = torch.zeros(1, dtype=torch.int32)
    given = {"tokens": IDS, "positions": POSITIONS}
    inputs = []
    for port, node in zip(graph.inputs, graph.graph.find_nodes(op="placeholder"), strict=True):
        cache = port.role in (Role.KEY, Role.VALUE)
        inputs.append(torch.zeros(node.meta["val"].shape) if cache else given.get(port.name, one))
    with torch.no_grad():
        outputs = graph.module(*inputs)
    return {port.name: value for port, value in zip(graph.outputs, outputs, strict=True)}


def loops(scores: list[torch.Tensor]) -> list[float]:
    """[n]: of the scores [n, Hkv] of several layers."""
    found = []
    for token in range(len(scores[0])):
        every = [x for layer in scores for x in layer[token].tolist()]
        found.append(math.fsum(math.exp(min(x, 80.0)) for x in every) / len(every))
    return found


@pytest.mark.parametrize(("plan", "layers"), [(None, (0, 1, 2)), (PLAN, (0, 2))])
def test_the_mean_over_the_layers_that_are_full(
    graph: ModelGraph, plan: str | None, layers: tuple[int, ...]
) -> None:
    lifted = LiftKVCache(capacity=40, queries=False)(graph).graph
    if plan is not None:
        lifted = HybridLayers(plan, positions="contiguous", chunk_size=11)(lifted).graph
    result = AverageRetainingHeads()(lifted)
    assert result.sites == len(layers)
    before, after = run(lifted), run(result.graph)
    scores = [before[f"retaining_{i}"] for i in layers]
    joined = torch.cat(scores)
    assert joined.max() > 88  # whose exponential is infinite in float32
    assert joined.min() < -88
    assert after["expected"].tolist() == pytest.approx(loops(scores), rel=1e-4)
    assert torch.equal(before["logits"], after["logits"])
    names = [port.name for port in result.graph.outputs]
    caches = [f"{what}_{i}_out" for i in range(LAYERS) for what in ("key", "value")]
    assert names == ["logits", "expected", *caches]
    assert result.graph.outputs[1] == Port("expected", Role.ENTRY_SCORE)


def test_without_heads_there_is_nothing_to_average() -> None:
    found = FindAttention(64)(capture(tiny_model("llama"))).graph
    with pytest.raises(ConfigError, match="the plan leaves no layer full that they could score"):
        AverageRetainingHeads()(found)
