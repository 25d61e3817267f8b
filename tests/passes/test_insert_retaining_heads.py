"""insert_retaining_heads: no logit changes, scores are the loop's, in chunks of any size."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from lcc.artifact.heads_page import HeadsPage
from lcc.capture.export import capture
from lcc.errors import ConfigError
from lcc.ir.roles import Role
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph, evaluate
from lcc.passes.insert_retaining_heads import ACTIVATIONS, InsertRetainingHeads, before_rotation
from lcc.passes.lift_kv_cache import LiftKVCache
from lcc.passes.programs.split import split_programs
from lcc.sources.heads import RetainingHeads, check_model, load_heads, save_heads
from lcc.testing.oracles import retaining_score
from lcc.testing.tiny import ARCHITECTURES, random_heads, tiny_model

CAPACITY = 40
IDS = torch.randint(0, 250, (1, 33), generator=torch.Generator().manual_seed(2))
POSITIONS = torch.arange(33)[None]


@functools.cache
def found(architecture: str) -> tuple[ModelGraph, RetainingHeads]:
    model = tiny_model(architecture)
    heads = random_heads(model)
    page = msgspec.structs.replace(heads.page, activation="silu")  # the oracle's
    graph = FindAttention(CAPACITY)(capture(model)).graph
    return graph, dataclasses.replace(heads, page=page)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_logit_changes_and_scores_are_the_loops(architecture: str) -> None:
    graph, heads = found(architecture)
    result = InsertRetainingHeads(heads, capacity=CAPACITY)(graph)
    windowed = {"mistral": 2, "gemma3_text": 2}.get(architecture, 0)
    sites = graph.calls(torch.ops.lcc.attention.default)
    assert result.sites == len(sites) - windowed
    assert len(result.graph.outputs) == 1 + result.sites
    with torch.no_grad():
        before = graph.module(IDS, POSITIONS)
        after = result.graph.module(IDS, POSITIONS)
    assert torch.equal(before[0], after[0])
    inputs = dict(zip(graph.graph.find_nodes(op="placeholder"), (IDS, POSITIONS), strict=True))
    for port, scores in zip(result.graph.outputs[1:], after[1:], strict=True):
        assert (port.name, port.role) == (f"retaining_{port.layer}", Role.ENTRY_SCORE)
        site = sites[port.layer]
        q, k, v = (
            evaluate(graph, node, inputs)[0]
            for node in (*map(before_rotation, site.args[:2]), site.args[2])
        )
        first, second = (w.tolist() for w in heads.layers[port.layer])
        for token in (0, 7, 32):
            features = torch.cat([x[token].flatten() for x in (q, k, v)]).tolist()
            wanted = retaining_score(features, first, second)
            np.testing.assert_allclose(scores[token].numpy(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("silu", torch.nn.SiLU()),
        ("gelu", torch.nn.GELU()),
        ("gelu_tanh", torch.nn.GELU(approximate="tanh")),
        ("relu", torch.nn.ReLU()),
    ],
)
def test_every_activation(activation, function: torch.nn.Module) -> None:
    call, options = ACTIVATIONS[activation]
    x = torch.linspace(-3, 3, 31)
    assert torch.equal(call(x, **options), function(x))
    graph, heads = found("llama")
    page = msgspec.structs.replace(heads.page, activation=activation)
    with_heads = dataclasses.replace(heads, page=page)
    result = InsertRetainingHeads(with_heads, capacity=CAPACITY)(graph).graph
    assert len(result.calls(call)) >= 2


def test_scores_are_the_same_in_any_chunks(call: Callable[..., dict]) -> None:
    graph, heads = found("qwen3")
    graph = InsertRetainingHeads(heads, capacity=CAPACITY)(graph).graph
    with torch.no_grad():
        wanted = graph.module(IDS, POSITIONS)[1]
    graph = LiftKVCache(capacity=CAPACITY, queries=False)(graph).graph
    step, _ = split_programs(graph, chunk_size=33, capacity=CAPACITY)
    caches = {spec.name: spec for spec in step.with_role(Role.KEY, Role.VALUE)}
    for chunks in ((33,), (1, 32), (7, 1, 16, 9)):
        kept = {name: torch.zeros(1, 2, CAPACITY, spec.shape[3]) for name, spec in caches.items()}
        used, got = 0, []
        for count in chunks:
            part = slice(used, used + count)
            start = torch.tensor([used], dtype=torch.int32)
            out = call(step, tokens=IDS[:, part], positions=POSITIONS[:, part], used=start, **kept)
            got.append(out["retaining_0"])
            kept = {name: out[f"{name}_out"] for name in kept}
            used += count
        torch.testing.assert_close(torch.cat(got), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda layers: {0: layers[0]}, "heads: none for layer 1"),
        (lambda layers: layers | {2: layers[0]}, "some for layer 2, the model has 2 layers"),
        (
            lambda layers: layers | {1: (torch.zeros(8, 100), layers[1][1])},
            "layer 1 takes 100 numbers and scores 2 KV heads; the model's has 128 and 2",
        ),
    ],
)
def test_heads_that_do_not_fit_are_refused(change, words: str) -> None:
    graph, heads = found("llama")
    wrong = dataclasses.replace(heads, layers=change(heads.layers))
    with pytest.raises(ConfigError, match=words):
        InsertRetainingHeads(wrong, capacity=CAPACITY)(graph)


def test_heads_go_through_a_file(tmp_path: Path) -> None:
    model = tiny_model("llama")
    heads = random_heads(model)
    save_heads(tmp_path / "h.safetensors", heads, half=False)
    read = load_heads(tmp_path / "h.safetensors")
    assert msgspec.structs.replace(read.page, weights="") == heads.page
    other = random_heads(model, seed=1)
    save_heads(tmp_path / "other", other)
    assert load_heads(tmp_path / "other").page != read.page
    for i, matrices in heads.layers.items():
        assert all(map(torch.equal, matrices, read.layers[i]))
    check_model(read, model, "llama", "h")
    with pytest.raises(ConfigError, match=r"h: these heads were trained for another model"):
        check_model(read, tiny_model("llama", seed=1), "llama", "h")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h.safetensors", "other"]
    data = bytearray((tmp_path / "other").read_bytes())
    data[-1] ^= 1
    (tmp_path / "other").write_bytes(data)
    with pytest.raises(ConfigError, match="other: damaged"):
        load_heads(tmp_path / "other")


def test_files_that_are_no_heads_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; wanted retaining heads"):
        load_heads(tmp_path / "none")
    (tmp_path / "text").write_text("Hello there, this is no safetensors file")
    with pytest.raises(ConfigError, match="not a file of retaining heads"):
        load_heads(tmp_path / "text")
    endless = RetainingHeads(
        random_heads(tiny_model("llama")).page, {0: (torch.full((8, 4), 1e9), torch.zeros(2, 8))}
    )
    with pytest.raises(ConfigError, match=r"layer_0\.in holds numbers that are not finite"):
        save_heads(tmp_path / "endless", endless)  # half precision ends at 65504
    page = HeadsPage(architecture="m", model="x", width=8, activation="silu", trained_on="")
    bad = RetainingHeads(page, {0: (torch.zeros(8, 4), torch.zeros(2, 9))})
    save_heads(tmp_path / "bad", bad)
    with pytest.raises(ConfigError, match="layer 0 has matrices"):
        load_heads(tmp_path / "bad")
