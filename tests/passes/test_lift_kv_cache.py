"""lift_kv_cache: the graph as text, its ports, the queries that it hands out, what is refused."""

from pathlib import Path

import pytest
import torch

from lcc.capture.export import capture
from lcc.errors import PassError
from lcc.ir.roles import Role
from lcc.ir.show import show
from lcc.ir.signature import Port
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph, evaluate, shape
from lcc.passes.lift_kv_cache import LiftKVCache
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


def test_ports_say_what_goes_in_and_out(found: ModelGraph) -> None:
    graph = LiftKVCache(capacity=CAPACITY, queries=True)(found).graph
    assert graph.inputs == (
        Port("tokens", Role.TOKENS),
        Port("positions", Role.POSITIONS),
        Port("used", Role.COUNTER),
        Port("query_rows", Role.ROWS),
        Port("key_0", Role.KEY, 0),
        Port("value_0", Role.VALUE, 0),
    )
    assert graph.outputs == (
        Port("logits", Role.LOGITS),
        Port("queries_0", Role.QUERIES, 0),
        Port("key_0_out", Role.KEY, 0),
        Port("value_0_out", Role.VALUE, 0),
    )
    names = [node.name for node in graph.graph.find_nodes(op="placeholder")]
    assert names == [port.name for port in graph.inputs]
    without = LiftKVCache(capacity=CAPACITY, queries=False)(found).graph
    roles = {port.role for port in (*without.inputs, *without.outputs)}
    assert not roles & {Role.ROWS, Role.QUERIES}


def test_queries_are_those_of_the_rows_asked_for(found: ModelGraph) -> None:
    lifted = LiftKVCache(capacity=CAPACITY, queries=True)(found).graph
    tokens, positions = torch.arange(9)[None] * 5, torch.arange(9)[None] + 3
    rotated = found.calls(torch.ops.lcc.attention.default)[0].args[0]
    inputs = found.graph.find_nodes(op="placeholder")
    given = dict(zip(inputs, (tokens, positions), strict=True))
    every = evaluate(found, rotated, given)[0]  # [9, Hq, D] of the captured model
    used = torch.zeros(1, dtype=torch.int32)
    cache = torch.zeros(shape(lifted.placeholder("key_0")))
    for rows in ([0], [8], [0, 3, 8], list(range(9))):
        got = lifted.module(tokens, positions, used, torch.tensor(rows), cache, cache)[1]
        torch.testing.assert_close(got, every[rows])
