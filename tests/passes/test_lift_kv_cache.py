"""lift_kv_cache and split_programs: the graph as text, chunks of any size, what is refused."""

from pathlib import Path

import pytest
import torch

from lcc.capture.export import capture
from lcc.errors import PassError
from lcc.ir.show import show
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph, evaluate, shape
from lcc.passes.lift_kv_cache import LiftKVCache
from lcc.passes.programs.split import split_programs
from lcc.targets.reference import ReferenceEngine
from lcc.testing.tiny import tiny_model

CAPACITY = 40
GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def found() -> ModelGraph:
    return FindAttention(CAPACITY)(capture(tiny_model("llama", num_hidden_layers=1))).graph


def test_graphs_are_as_drawn(found: ModelGraph, update_golden: bool) -> None:
    lifted = LiftKVCache(capacity=CAPACITY, queries=True)(found).graph
    for name, graph in {"find_attention": found, "lift_kv_cache": lifted}.items():
        file = GOLDEN / f"{name}_llama.txt"
        if update_golden:
            file.write_text(show(graph.graph), encoding="utf-8")
        assert show(graph.graph) == file.read_text(encoding="utf-8")


def test_lifting_twice_is_refused(found: ModelGraph) -> None:
    lifted = LiftKVCache(capacity=CAPACITY, queries=False)(found)
    assert lifted.sites == 1
    with pytest.raises(PassError, match="run find_attention first"):
        LiftKVCache(capacity=CAPACITY, queries=False)(lifted.graph)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2", "smollm3"])
def test_any_chunks_give_the_logits_of_the_model(architecture: str) -> None:
    model = tiny_model(architecture)
    graph = FindAttention(CAPACITY)(capture(model)).graph
    graph = LiftKVCache(capacity=CAPACITY, queries=True)(graph).graph
    engine = ReferenceEngine(split_programs(graph, chunk_size=16, capacity=CAPACITY))
    step, head = engine.runner("prefill_chunk"), engine.runner("head")
    caches = {
        node.name: torch.zeros(node.meta["val"].shape).numpy()
        for node in graph.graph.find_nodes(op="placeholder")
        if node.name.startswith(("key", "value"))
    }
    step.bind(caches)
    ids = torch.randint(0, 250, (1, 33), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0].numpy()
    used = 0
    for count in (7, 1, 16, 9):
        feeds = {
            "tokens": ids[:, used : used + count].numpy(),
            "positions": torch.arange(used, used + count)[None].numpy(),
            "used": torch.tensor([used], dtype=torch.int32).numpy(),
            "query_rows": torch.tensor([0]).numpy(),
        }
        hidden = step(feeds, ["hidden"])["hidden"][0]
        for row in range(count):
            one = {"hidden": hidden[row : row + 1], "next_tokens": ids[0, :1].numpy()}
            logits = head(one, ["logits"])["logits"][0]
            assert abs(logits - expected[used + row]).max() < 2e-5
        used += count


def test_queries_are_those_of_the_rows_asked_for(found: ModelGraph) -> None:
    lifted = LiftKVCache(capacity=CAPACITY, queries=True)(found).graph
    step = ReferenceEngine(split_programs(lifted, chunk_size=16, capacity=CAPACITY)).runner(
        "prefill_chunk"
    )
    feeds = {
        "tokens": torch.arange(9)[None].numpy(),
        "positions": torch.arange(9)[None].numpy(),
        "used": torch.zeros(1, dtype=torch.int32).numpy(),
    }
    for kind in ("key_0", "value_0"):
        feeds[kind] = torch.zeros(shape(lifted.placeholder(kind))).numpy()
    rotated = found.calls(torch.ops.lcc.attention.default)[0].args[0]
    inputs = found.graph.find_nodes(op="placeholder")
    given = dict(zip(inputs, map(torch.from_numpy, feeds.values()), strict=False))
    every = evaluate(found, rotated, given)[0].transpose(0, 1)  # [Hq, 9, D] of the captured model
    for rows in ([0], [8], [0, 3, 8], list(range(9))):
        fed = feeds | {"query_rows": torch.tensor(rows).numpy()}
        got = step(fed, ["queries_0"])["queries_0"]
        torch.testing.assert_close(torch.from_numpy(got), every[:, rows])


def test_novelty_is_the_negative_log_likelihood(found: ModelGraph) -> None:
    lifted = LiftKVCache(capacity=CAPACITY, queries=False)(found).graph
    _, head = split_programs(lifted, chunk_size=4, capacity=CAPACITY)
    hidden = torch.randn(5, 64, generator=torch.Generator().manual_seed(3))
    following = torch.tensor([3, 1, 4, 1, 5])
    last, novelty = head.exported.module()(hidden, following)
    weight = tiny_model("llama", num_hidden_layers=1).lm_head.weight
    logits = hidden @ weight.T
    expected = [-torch.log_softmax(row, 0)[t] for row, t in zip(logits, following, strict=True)]
    torch.testing.assert_close(novelty, torch.stack(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(last, logits[-1:], atol=1e-5, rtol=0)
