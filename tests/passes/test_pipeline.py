"""The pipeline: passes in order, counted, dumped, and the one that failed named."""

from pathlib import Path

import pytest
import torch
from torch import fx, nn

from lcc.config import CacheConfig, PolicyConfig
from lcc.errors import PassError
from lcc.passes import default_passes, lag_of, pipeline
from lcc.passes.base import Pass
from lcc.passes.graph import ModelGraph
from lcc.passes.lift_kv_cache import LiftKVCache
from lcc.passes.policies import make_policy
from lcc.testing.tiny import random_heads, tiny_model


class DropRelu(Pass):
    def rewrite(self, graph: ModelGraph) -> int:
        sites = graph.calls(torch.relu)
        for node in sites:
            node.replace_all_uses_with(node.args[0])
        return len(sites)


class BreakPromise(Pass):
    required = False

    def rewrite(self, graph: ModelGraph) -> int:
        return 0

    def ensures(self, graph: ModelGraph) -> None:
        raise PassError("promise broken")


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.relu(x)) + 1


@pytest.fixture
def graph() -> ModelGraph:
    return ModelGraph(fx.symbolic_trace(Model()))


def test_sites_are_counted_and_the_input_is_left_alone(graph: ModelGraph, tmp_path: Path) -> None:
    result, done = pipeline.run(graph, [DropRelu()], dump=tmp_path)
    assert [(each.name, each.sites) for each in done] == [("drop_relu", 2)]
    assert result.module(torch.tensor([-1.0])).tolist() == [0.0]
    assert graph.module(torch.tensor([-1.0])).tolist() == [1.0]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00_capture.txt", "01_drop_relu.txt"]
    assert "relu" in (tmp_path / "00_capture.txt").read_text()
    assert "relu" not in (tmp_path / "01_drop_relu.txt").read_text()


def test_a_required_pass_that_finds_nothing_is_an_error_with_its_place(graph: ModelGraph) -> None:
    with pytest.raises(PassError, match="drop_relu: nothing to rewrite in 3 nodes") as caught:
        pipeline.run(graph, [DropRelu(), DropRelu()])
    assert caught.value.__notes__ == ["in pass 2 of 2, drop_relu; passed: drop_relu"]


def test_lcc_check_turns_the_promises_off(
    graph: ModelGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PassError, match="promise broken"):
        BreakPromise()(graph)
    monkeypatch.setenv("LCC_CHECK", "0")
    assert BreakPromise()(graph).sites == 0


def test_every_pass_has_the_name_of_its_file() -> None:
    for each in every_pass():
        assert type(each).__module__ == f"lcc.passes.{each.name}"


def every_pass() -> list[Pass]:
    """What runs where all that is optional is asked for."""
    heads = random_heads(tiny_model("llama"))
    policy = make_policy(PolicyConfig(name="consensus"), with_heads=True)
    captured = ModelGraph(fx.symbolic_trace(Model()))
    return default_passes(CacheConfig(), policy, plan="longgen", heads=heads, captured=captured)


def test_the_order() -> None:
    """The check compares with the model before a plan changes it; heads read what is cached."""
    assert [each.name for each in every_pass()] == [
        "find_attention",
        "spell_out_complex",
        "insert_retaining_heads",
        "share_latents",
        "lift_kv_cache",
        "lift_state",
        "check_chunks",
        "hybrid_layers",
        "average_retaining_heads",
    ]
    plain = default_passes(CacheConfig(), make_policy(PolicyConfig(name="knorm")), plan=" dense ")
    assert [each.name for each in plain] == [
        "find_attention",
        "spell_out_complex",
        "share_latents",
        "lift_kv_cache",
        "lift_state",
    ]


def test_queries_are_handed_out_where_a_policy_scores_by_them() -> None:
    for name, queries in (("consensus", True), ("h2o", True), ("knorm", False)):
        steps = default_passes(CacheConfig(), make_policy(PolicyConfig(name=name)))
        (lift,) = [each for each in steps if isinstance(each, LiftKVCache)]
        assert lift.queries == queries


def test_only_newest_tokens_are_read_twice() -> None:
    lags = {name: lag_of(make_policy(PolicyConfig(name=name))) for name in ("snapkv", "h2o")}
    assert lags == {"snapkv": 64, "h2o": 0}


class Stumbles(Pass):
    """Meets what nobody thought of."""

    def rewrite(self, graph: ModelGraph) -> int:
        raise AttributeError("'list' object has no attribute 'shape'") from KeyError("first")


def test_what_nobody_thought_of_is_one_line(graph: ModelGraph) -> None:
    with pytest.raises(PassError, match=r"stumbles stumbled \(KeyError: 'first'\)") as caught:
        pipeline.run(graph, [Stumbles()])
    assert caught.value.__notes__ == ["in pass 1 of 1, stumbles; passed: none"]
    assert isinstance(caught.value.__cause__, AttributeError)
