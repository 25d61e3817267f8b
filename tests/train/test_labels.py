"""What heads learn: labels against loops, attention in blocks against the definition."""

import functools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lcc.capture.export import capture
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.testing.oracles import dot
from lcc.testing.tiny import ARCHITECTURES, tiny_model
from lcc.train import labels as labels_module
from lcc.train import layer_states
from lcc.train.labels import labels, overlap
from lcc.train.layer_states import LayerStates, attend, visit_layers


@functools.cache
def found(architecture: str) -> ModelGraph:
    return FindAttention(table_size=1)(capture(tiny_model(architecture))).graph


def states_of(architecture: str, n: int = 30) -> list[LayerStates]:
    ids = torch.randint(0, 250, (1, n), generator=torch.Generator().manual_seed(1))
    seen: list[LayerStates] = []
    visit_layers(found(architecture), ids, seen.append)
    return seen


@pytest.mark.parametrize("teacher", ["answer", "repeat"])
def test_labels_are_the_loops(teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "BLOCK", 4)  # several blocks, the last one ragged
    states, scored = states_of("llama")[1], 19
    q, k = states.q.double().tolist(), states.k.double().tolist()
    got = labels(states, scored, teacher)
    group = len(q[0]) // len(k[0])
    for entry in range(scored):
        for head in range(len(k[0])):
            best = -math.inf
            for row in range(scored, len(q)):
                for query in q[row][head * group : (head + 1) * group]:
                    logits = [states.scale * dot(query, k[s][head]) for s in range(row + 1)]
                    total = math.log(sum(map(math.exp, logits)))
                    value = logits[entry] - (total if teacher == "repeat" else 0.0)
                    best = max(best, max(value, -20.0) if teacher == "repeat" else value)
            assert got[entry, head].item() == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_are_those_of_the_model(architecture: str) -> None:
    graph, n = found(architecture).copy(), 30
    ids = torch.randint(0, 250, (1, n), generator=torch.Generator().manual_seed(1))
    seen: list[LayerStates] = []
    visit_layers(graph, ids, seen.append)
    wanted = []
    original = graph.calls(torch.ops.lcc.attention.default)
    output = graph.graph.output_node()
    output.args = ((*output.args[0], *(x for site in original for x in site.args[:2])),)
    graph.clean()
    with torch.no_grad():
        wanted = graph.module(ids, torch.arange(n)[None])[1:]
    assert len(seen) == len(original)
    for states, q, k in zip(seen, wanted[::2], wanted[1::2], strict=True):
        torch.testing.assert_close(states.q, q[0], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(states.k, k[0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("window", "softcap"), [(0, 0.0), (5, 0.0), (0, 2.0), (7, 2.0)])
def test_attention_in_blocks_is_attention(
    window: int, softcap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_states, "BLOCK", 6)
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 20, heads, 8, generator=g) for heads in (4, 2, 2))
    wanted = torch.ops.lcc.attention(q, k, v, 0.4, window, softcap, -1)
    torch.testing.assert_close(attend(q, k, v, 0.4, window, softcap), wanted, atol=1e-5, rtol=1e-5)


class Largest(TorchDispatchMode):
    """The most numbers that any result had."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, torch.Tensor):
                self.numbers = max(self.numbers, each.numel())
        return result


@pytest.mark.parametrize("teacher", ["answer", "repeat"])
def test_nothing_is_as_large_as_the_square_of_the_length(teacher: str) -> None:
    n = 4096
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(n, 4, 8, generator=g), torch.randn(n, 2, 8, generator=g)
    with Largest() as largest:
        attend(q[None], k[None], k[None], 0.3, 0, 0.0)
        labels(LayerStates(0, q, k, q.flatten(1), 0.3, 0, 0.0), n // 2, teacher)
    assert largest.numbers <= 4 * labels_module.BLOCK * n


def test_overlap() -> None:
    wanted = torch.arange(20.0)[:, None].repeat(1, 3)
    scores = wanted.clone()
    scores[19, 1] = -1.0  # one of the two best is missed
    scores[:, 2] *= -1
    assert overlap(scores, wanted).tolist() == [1.0, 0.5, 0.0]
