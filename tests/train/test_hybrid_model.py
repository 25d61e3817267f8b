"""What learns is the model that will be compiled: its loss, its gradients, its sparse layers."""

import functools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from lcc.capture.export import capture
from lcc.errors import ConfigError
from lcc.ir.plan import BlockSparse, Full, SinkWindow, Sparse, parse_plan
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.search.plan_meter import Meter
from lcc.testing.oracles import sees
from lcc.testing.tiny import ARCHITECTURES, tiny_model
from lcc.train import hybrid_model, sparse_attention
from lcc.train.documents import IGNORED
from lcc.train.hybrid_model import HybridModel
from lcc.train.layer_states import attend, visit_layers
from lcc.train.sparse_attention import attend_blocks, attend_window, sink_positions

IDS = torch.randint(0, 256, (1, 60), generator=torch.Generator().manual_seed(3))
LABELS = torch.cat((IDS[0, 1:], torch.tensor([IGNORED])))
KINDS = [
    SinkWindow(sink=2, window=8),
    SinkWindow(sink=0, window=3),
    SinkWindow(sink=4, window=12, block=4),
]
BLOCKS = [
    BlockSparse(block=4, stride=3, local=1, sink=1),
    BlockSparse(block=4, stride=2, local=2, sink=0, reach=4, offset=1, shift=1),
    BlockSparse(block=2, stride=5, local=3, sink=2, reach=9, shift=2),
    BlockSparse(block=16, stride=4, local=9),
]


@functools.cache
def captured(architecture: str) -> tuple[torch.nn.Module, ModelGraph]:
    model = tiny_model(architecture)
    return model, FindAttention(table_size=1)(capture(model)).graph


def hybrid(plan: str, architecture: str = "llama") -> HybridModel:
    model, graph = captured(architecture)
    model.zero_grad()
    layers = len(graph.calls(torch.ops.lcc.attention.default))
    return HybridModel(graph, parse_plan(plan, layers))


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    found = {name: each.grad for name, each in model.named_parameters()}
    model.zero_grad()
    return {name: each.clone() for name, each in found.items() if each is not None}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dense_learns_as_the_model_itself(architecture: str) -> None:
    model, _ = captured(architecture)
    loss = hybrid("dense", architecture)(IDS, LABELS, [60])
    loss.backward()
    got = gradients(model)
    wanted = functional.cross_entropy(
        model(IDS).logits[0], LABELS, ignore_index=IGNORED, reduction="sum"
    )
    wanted.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=0)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(got[name], grad, rtol=1e-3, atol=1e-5 * float(grad.abs().max()))


def oracle(q: Tensor, sink_q: Tensor, k: Tensor, v: Tensor, kind: Sparse) -> Tensor:
    """One query, one head, one key at a time."""
    rows = []
    for i in range(q.shape[1]):
        for h in range(q.shape[2]):
            g = h * k.shape[2] // q.shape[2]
            keys = [j for j in range(i + 1) if sees(kind, i, j, g)]
            first = kind.sink if isinstance(kind, SinkWindow) else 0
            logits = [
                ((sink_q if j < first else q)[0, i, h] * k[0, j, g]).sum() * 0.4 for j in keys
            ]
            weights = torch.stack(logits).softmax(0)
            rows.append(sum(w * v[0, j, g] for w, j in zip(weights, keys, strict=True)))
    return torch.stack(rows).view(q.shape)


def equal_with_gradients(kind: Sparse) -> None:
    draw = torch.Generator().manual_seed(5)
    shapes = [(1, 29, 4, 8), (1, 29, 4, 8), (1, 29, 2, 8), (1, 29, 2, 8)]
    inputs = [torch.randn(s, generator=draw, dtype=torch.float64).requires_grad_() for s in shapes]
    direction = torch.randn(shapes[0], generator=draw, dtype=torch.float64)
    if isinstance(kind, SinkWindow):
        got = attend_window(*inputs, kind, 0.4)
    else:
        del inputs[1]
        got = attend_blocks(*inputs, kind, 0.4)
    wanted = oracle(inputs[0], *inputs[-3:], kind)
    torch.testing.assert_close(got, wanted)
    of_got = torch.autograd.grad((got * direction).sum(), inputs)
    of_wanted = torch.autograd.grad((wanted * direction).sum(), inputs, materialize_grads=True)
    for one, other in zip(of_got, of_wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert float(of_got[-1].abs().max()) > 0.1


@pytest.mark.parametrize("kind", [*KINDS, *BLOCKS], ids=str)
def test_sparse_attention_and_its_gradient_equal_loops(kind: Sparse) -> None:
    equal_with_gradients(kind)


@pytest.mark.parametrize("kind", BLOCKS, ids=str)
def test_blocks_of_queries_that_begin_inside_a_block(
    kind: BlockSparse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_attention, "BLOCK", 7)
    equal_with_gradients(kind)


@pytest.mark.parametrize("architecture", ["llama", "phi3", "smollm3", "gpt2"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_sink_angles_are_those_of_the_cache(
    kind: SinkWindow, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that learns rotates a query for the first tokens as the compiled one does."""
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(q: Tensor, sink_q: Tensor, *rest: object) -> Tensor:
        seen.append((q, sink_q))
        return attend_window(q, sink_q, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(hybrid_model, "attend_window", spy)
    _, graph = captured(architecture)
    with torch.no_grad():
        hybrid(f"0: {kind}; 1: full", architecture).hidden(IDS, [60])
        moved = sink_positions(torch.arange(60), kind)
        reference = HybridModel(graph, (Full(), Full()))
        found: list[Tensor] = []
        monkeypatch.setattr(hybrid_model, "attend", lambda q, *_: found.append(q) or q)
        part = reference.parts[0]
        part(*({"input_ids": IDS, "position_ids": moved[None], "lengths": (60,)}[name]
               for name in part.inputs))  # type: ignore[union-attr]  # fmt: skip
    (q, sink_q), (wanted,) = seen[0], found[:1]
    if architecture == "gpt2":  # its positions are in the tokens, not in the angles
        assert sink_q is q or torch.equal(sink_q, q)
        return
    torch.testing.assert_close(sink_q, wanted)
    assert not torch.equal(sink_q, q)


def test_a_window_larger_than_the_text_changes_nothing() -> None:
    dense = hybrid("dense")(IDS, LABELS, [60])
    wide = hybrid("0-1: sink_window(sink=4, window=64)")(IDS, LABELS, [60])
    torch.testing.assert_close(wide, dense, rtol=1e-6, atol=0)


@pytest.mark.parametrize("plan", ["dense", "0: full; 1: sink_window(sink=2, window=8)"])
def test_texts_side_by_side_do_not_see_each_other(plan: str) -> None:
    model, lengths = hybrid(plan), [5, 1, 54]
    with torch.no_grad():
        together = model.hidden(IDS, lengths)
        alone = [model.hidden(part, [part.shape[1]]) for part in IDS.split(lengths, dim=1)]
        mixed = model.hidden(IDS, [60])
    torch.testing.assert_close(together, torch.cat(alone, dim=1))
    assert float((mixed - together)[:, 5:].abs().max()) > 1e-2


def test_logits_exist_for_a_few_tokens_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = hybrid("dense")
    whole = model(IDS, LABELS, [60])
    whole.backward()
    wanted = gradients(model)
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.shape[-1:] == (260,) and result.dim() > 1:
                weight = result.shape in ((64, 260), (260, 260))
                largest = max(largest, 0 if weight else result.shape[-2])
            return result

    monkeypatch.setattr(hybrid_model, "LOSS_ROWS", 7)
    with Watch():
        loss = model(IDS, LABELS, [60])
        loss.backward()
    assert 0 < largest <= 7
    torch.testing.assert_close(loss, whole)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, wanted[name], rtol=1e-4, atol=1e-5)


def test_a_sparse_layer_saves_while_it_learns() -> None:
    """Nothing in a step, forward or backward, grows with the square of the text."""

    def numbers(length: int) -> int:
        most = 0

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                nonlocal most
                result = func(*args, **(kwargs or {}))
                if isinstance(result, Tensor):
                    most += result.numel()
                return result

        q, sink_q, k, v = (torch.randn(1, length, 2, 8, requires_grad=True) for _ in range(4))
        with Watch():
            out = attend_window(q, sink_q, k, v, SinkWindow(sink=4, window=256), 0.3)
            out.sum().backward()
        return most

    ratio = numbers(4096) / numbers(2048)
    assert 1.9 < ratio < 2.3, ratio


@pytest.mark.parametrize("kind", ["sparse", "capped"])
def test_a_layer_keeps_no_weights_for_the_gradient(kind: str) -> None:
    """Of blocks of 256 queries, each with hundreds of keys, only q, k and v are kept."""
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // 4
        return x

    q, sink_q, k, v = (torch.randn(1, 2048, 2, 8, requires_grad=True) for _ in range(4))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        if kind == "sparse":
            out = attend_window(q, sink_q, k, v, SinkWindow(sink=4, window=512), 0.3)
        else:
            out = attend(q, k, v, 0.3, 512, 5.0)
    assert sum(kept.values()) < 10 * q.numel()
    out.sum().backward()
    assert q.grad is not None


def test_the_whole_model_is_dense_for_a_while() -> None:
    model = hybrid("0: full; 1: sink_window(sink=2, window=8)")
    with torch.no_grad():
        sparse = float(model(IDS, LABELS, [60]))
        with model.dense():
            dense = float(model(IDS, LABELS, [60]))
        again = float(model(IDS, LABELS, [60]))
    assert dense == pytest.approx(float(hybrid("dense")(IDS, LABELS, [60]).detach()))
    assert again == sparse
    assert not math.isclose(sparse, dense, rel_tol=1e-4)


def test_layers_that_have_a_window_keep_it() -> None:
    with pytest.raises(ConfigError, match="layer 0 has a window of its own"):
        hybrid("0-1: sink_window(sink=2, window=8)", "mistral")


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("granite_swa", "layer 0 has attention sinks, with which"),
        ("bloom", r"layer 0 has a bias by distance \(ALiBi\)"),
        ("mixtral", "a mixture of experts, which lcc compiles but does not train"),
        ("lfm2", "recurrent layers, which lcc compiles but does not train"),
    ],
)
def test_what_is_compiled_but_not_trained_is_refused_by_name(architecture: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        hybrid("dense", architecture)
    if architecture in ("granite_swa", "bloom"):
        graph = captured(architecture)[1]
        with pytest.raises(ConfigError, match=words):
            visit_layers(graph, IDS, lambda states: None)
        with pytest.raises(ConfigError, match=words):
            Meter(graph, [IDS[0].tolist()], skip=1)
