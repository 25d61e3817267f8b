"""split_programs: the step in chunks of any size, the head, what is refused."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from lcc.capture.export import capture
from lcc.config import HEAD_ROWS
from lcc.errors import PassError
from lcc.ir.program import DECODE, HEAD, PREFILL_CHUNK
from lcc.ir.roles import Role
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.passes.lift_kv_cache import LiftKVCache
from lcc.passes.programs.split import split_programs
from lcc.testing.tiny import tiny_model

CAPACITY = 40


def lifted(model: nn.Module, *, queries: bool = False) -> ModelGraph:
    graph = FindAttention(CAPACITY)(capture(model)).graph
    return LiftKVCache(capacity=CAPACITY, queries=queries)(graph).graph


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2", "smollm3"])
def test_any_chunks_give_the_logits_of_the_model(
    architecture: str, call: Callable[..., dict]
) -> None:
    model = tiny_model(architecture)
    graph = lifted(model, queries=True)
    step, head = split_programs(graph, chunk_size=16, capacity=CAPACITY)
    caches = {
        port.name: torch.zeros(graph.placeholder(port.name).meta["val"].shape)
        for port in graph.inputs
        if port.role in (Role.KEY, Role.VALUE)
    }
    ids = torch.randint(0, 250, (1, 33), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(input_ids=ids).logits[0]
    used = 0
    for count in (7, 1, 16, 9):
        out = call(
            step,
            tokens=ids[:, used : used + count],
            positions=torch.arange(used, used + count)[None],
            used=torch.tensor([used], dtype=torch.int32),
            query_rows=torch.tensor([0]),
            **caches,
        )
        for row in range(count):
            hidden = out["hidden"][0, row : row + 1]
            logits = call(head, hidden=hidden, next_tokens=ids[0, :1])["logits"]
            torch.testing.assert_close(logits[0], expected[used + row], atol=2e-5, rtol=0)
        caches = {name: out[f"{name}_out"] for name in caches}
        used += count


def test_signatures() -> None:
    """Whatever the runtime reads of a program: names, roles, layers, sizes left to the call."""
    model = tiny_model("llama", num_hidden_layers=1)
    step, head = split_programs(lifted(model, queries=True), chunk_size=16, capacity=CAPACITY)
    assert step.names == (PREFILL_CHUNK, DECODE)
    shown = [(each.name, each.role, each.layer, each.dtype, each.shape) for each in step.inputs]
    assert shown == [
        ("tokens", Role.TOKENS, None, "int64", (1, "tokens")),
        ("positions", Role.POSITIONS, None, "int64", (1, "tokens")),
        ("used", Role.COUNTER, None, "int32", (1,)),
        ("query_rows", Role.ROWS, None, "int64", ("rows",)),
        ("key_0", Role.KEY, 0, "float32", (1, 2, "slots", 16)),
        ("value_0", Role.VALUE, 0, "float32", (1, 2, "slots", 16)),
    ]
    shown = [(each.name, each.role, each.layer, each.dtype, each.shape) for each in step.outputs]
    assert shown == [
        ("hidden", Role.HIDDEN, None, "float32", (1, "tokens", 64)),
        ("queries_0", Role.QUERIES, 0, "float32", ("rows", 4, 16)),
        ("key_0_out", Role.KEY, 0, "float32", (1, 2, "slots", 16)),
        ("value_0_out", Role.VALUE, 0, "float32", (1, 2, "slots", 16)),
    ]
    assert step.updates == {"key_0_out": "key_0", "value_0_out": "value_0"}
    assert head.names == (HEAD,)
    assert [each.shape for each in head.inputs] == [("rows", 64), ("rows",)]
    assert [(each.name, each.shape) for each in head.outputs] == [
        ("logits", (1, 260)),
        ("nll", ("rows",)),
    ]
    assert head.updates == {}


def test_a_graph_may_be_split_again() -> None:
    """Splitting leaves the graph that it is given alone."""
    graph = lifted(tiny_model("llama", num_hidden_layers=1))
    outputs = graph.outputs
    split_programs(graph, chunk_size=4, capacity=CAPACITY)
    assert graph.outputs == outputs
    split_programs(graph, chunk_size=4, capacity=CAPACITY)


def test_nll_is_the_negative_log_likelihood_of_the_next_token(call: Callable[..., dict]) -> None:
    model = tiny_model("llama", num_hidden_layers=1)
    _, head = split_programs(lifted(model), chunk_size=4, capacity=CAPACITY)
    for count in (5, 1, HEAD_ROWS):
        hidden = torch.randn(count, 64, generator=torch.Generator().manual_seed(3))
        following = [(3 * i + 1) % 250 for i in range(count)]
        got = call(head, hidden=hidden, next_tokens=torch.tensor(following))
        logits = (hidden @ model.lm_head.weight.T).double().tolist()
        expected = [
            math.log(math.fsum(math.exp(x) for x in row)) - row[token]
            for row, token in zip(logits, following, strict=True)
        ]
        assert got["nll"].tolist() == pytest.approx(expected, abs=1e-5)
        assert got["logits"].tolist() == [pytest.approx(logits[-1], abs=1e-5)]


class NoHead(nn.Module):
    """Its logits come from a product of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.model = tiny_model("llama", num_hidden_layers=1)

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        logits = self.model(input_ids=input_ids, position_ids=position_ids).logits
        return logits * logits.sigmoid()


def test_logits_that_come_from_elsewhere_are_refused() -> None:
    graph = lifted(NoHead().eval())
    with pytest.raises(PassError, match=r"the logits come from mul.*, wanted a linear layer"):
        split_programs(graph, chunk_size=4, capacity=CAPACITY)
