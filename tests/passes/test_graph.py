"""ModelGraph: ports beside placeholders and results, whatever is added, dropped and set."""

import pytest
import torch

from lcc.errors import PassError
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.passes.lift_kv_cache import LiftKVCache


@pytest.fixture
def graph(captured: ModelGraph) -> ModelGraph:
    found = FindAttention(64)(captured).graph
    return LiftKVCache(capacity=48, queries=True)(found).graph.copy()


def placeholders(graph: ModelGraph) -> list[str]:
    return [node.name for node in graph.graph.find_nodes(op="placeholder")]


def test_inputs_are_found_by_role_and_layer(graph: ModelGraph) -> None:
    assert graph.input(Role.VALUE, 1) is graph.placeholder("value_1")
    assert graph.input(Role.ROWS) is graph.placeholder("query_rows")
    with pytest.raises(PassError, match="no input for key of layer 2"):
        graph.input(Role.KEY, 2)
    with pytest.raises(PassError, match="no input for token_position"):
        graph.input(Role.TOKEN_POSITION)
    with pytest.raises(PassError, match="no input named key_2"):
        graph.placeholder("key_2")


def test_an_input_is_added_behind_another_and_dropped(graph: ModelGraph) -> None:
    before = graph.inputs
    port = Port("used_1", Role.COUNTER)
    node = graph.add_input(port, torch.zeros(1), after=graph.placeholder("used"))
    assert graph.inputs == (*before[:3], port, *before[3:])
    assert placeholders(graph) == [each.name for each in graph.inputs]
    graph.drop_input(node)
    assert graph.inputs == before
    assert placeholders(graph) == [each.name for each in before]


def test_what_is_given_is_set_with_its_ports(graph: ModelGraph) -> None:
    results = graph.results()
    graph.give([results[0], results[-1]])
    assert graph.outputs == (Port("logits", Role.LOGITS), Port("value_1_out", Role.VALUE, 1))
    assert graph.results() == [results[0], results[-1]]
    graph.clean()
    assert len(graph.graph.output_node().args[0]) == 2


def test_a_copy_is_another_graph_over_the_same_weights(graph: ModelGraph) -> None:
    copy = graph.copy()
    assert (copy.inputs, copy.outputs, copy.rotations) == (
        graph.inputs,
        graph.outputs,
        graph.rotations,
    )
    copy.give(copy.results()[:1])
    assert len(copy.outputs) == 1
    assert len(graph.outputs) == len(graph.results()) == 7
    ours, theirs = (dict(each.module.named_parameters()) for each in (graph, copy))
    assert ours
    assert all(theirs[name] is weight for name, weight in ours.items())


def test_the_vocabulary_is_as_wide_as_the_logits(captured: ModelGraph) -> None:
    assert captured.vocab_size == 260
