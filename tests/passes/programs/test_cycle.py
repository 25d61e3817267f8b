"""cycle_programs: which programs there are, and which layers share one."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lcc.capture.export import capture
from lcc.config import CacheConfig, PolicyConfig
from lcc.errors import PassError
from lcc.ir.plan import Full
from lcc.ir.program import Program
from lcc.passes import default_passes, pipeline
from lcc.passes.find_attention import FindAttention
from lcc.passes.lift_kv_cache import LiftKVCache
from lcc.passes.policies import POLICIES, make_policy
from lcc.passes.programs.cycle import CycleLayer, cycle_programs, sparse_kind_of
from lcc.passes.rotation import Rotation
from lcc.testing.tiny import random_heads, tiny_model

CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
ENDS = torch.zeros(260, dtype=torch.bool)


def cycle_of(
    model: nn.Module, policy: str, plan: str = "dense"
) -> tuple[list[CycleLayer], dict[str, Program]]:
    chosen = make_policy(PolicyConfig(name=policy))
    heads = random_heads(model) if policy == "locret" else None
    steps = default_passes(CACHE, chosen, plan=plan, heads=heads)
    graph, _ = pipeline.run(capture(model), steps)
    kinds = graph.plan or (Full(),) * len(graph.calls(torch.ops.lcc.cached_attention.default))
    layers, programs = cycle_programs(graph, CACHE, chosen, kinds, sentence_ends=ENDS)
    return layers, {name: program for program in programs for name in program.names}


def test_a_window_that_never_hides_anything_is_a_full_layer() -> None:
    for window, full in ((96, True), (95, False)):
        layers, _ = cycle_of(tiny_model("mistral", sliding_window=window), "consensus")
        assert all((layer.score is not None) == full for layer in layers)
        assert {layer.window for layer in layers} == {0 if full else window}


@pytest.mark.parametrize(
    ("policy", "programs"),
    [
        (
            "consensus",
            [
                *("annotate", "score_0", "evict_0", "leave", "archive_0"),
                *("attend_0", "vote_0", "choose", "put_back_0"),
            ],
        ),
        ("infinipot", ["annotate", "score_0", "evict_0"]),
        ("h2o", ["score_0", "evict_0"]),
        ("snapkv", ["score_0", "evict_0"]),
        ("locret", ["evict_0"]),
        ("knorm", ["evict_0"]),
        ("none", []),
    ],
)
def test_layers_that_agree_share_their_programs(policy: str, programs: list[str]) -> None:
    assert policy in POLICIES
    layers, made = cycle_of(tiny_model("llama"), policy)
    assert sorted(made) == sorted(programs)
    assert layers[0] == replace(layers[1], attend=None, vote=None)  # the last one votes
    one = layers[0]
    assert (one.query_heads, one.kv_heads, one.head_size, one.slots) == (4, 2, 16, None)
    assert (one.score, one.evict) == tuple(
        each if each in made else None for each in ("score_0", "evict_0")
    )


def test_layers_that_differ_have_their_own() -> None:
    """A layer without rotation; and windows of the model's own, with another rotation."""
    layers, made = cycle_of(tiny_model("smollm3"), "h2o")
    assert [layer.evict for layer in layers] == ["evict_0", "evict_1"]
    assert [layer.score for layer in layers] == ["score_0", "score_0"]
    layers, made = cycle_of(tiny_model("gemma3_text"), "h2o")
    assert [layer.window for layer in layers] == [8, 0, 8]
    assert [layer.evict for layer in layers] == ["evict_0", "evict_1", "evict_0"]
    assert [layer.score for layer in layers] == [None, "score_0", None]
    assert "attention" in made["evict_1"].input_names
    assert "attention" not in made["evict_0"].input_names


def test_what_a_layer_drops_no_policy_decides() -> None:
    """Whatever policy full layers have, sparse ones have programs that read no scores."""
    plan = "0: sink_window(sink=2, window=9); 1: full; 2: block_sparse(block=8, local=2, reach=4)"
    layers, made = cycle_of(tiny_model("llama", num_hidden_layers=3), "consensus", plan)
    assert [layer.evict for layer in layers] == [None, "evict_0", None]
    assert [layer.compact for layer in layers] == ["compact_0", None, "compact_1"]
    assert [layer.score for layer in layers] == [None, "score_0", None]
    assert [layer.slots for layer in layers] == [2 + 9 + 16, None, 8 * (1 + 1 + 2) + 16 + 8]
    assert made["compact_0"].input_names == ["key", "value", "stays"]
    assert made["see_1"].inputs[0].shape == (2, 27)
    assert made["see_2"].inputs[0].shape == (2, 56)
    assert sparse_kind_of(layers) == [layers[0].kind, layers[2].kind]


def test_layers_of_one_kind_share_what_they_see() -> None:
    layers, made = cycle_of(tiny_model("llama"), "knorm", "0-1: sink_window(sink=2, window=9)")
    assert sorted(made) == ["compact_0", "see_1"]
    assert {layer.compact for layer in layers} == {"compact_0"}


def test_a_rotation_that_does_not_go_by_differences_is_refused() -> None:
    captured = capture(tiny_model("llama"))
    graph = LiftKVCache(capacity=96, queries=False)(FindAttention(96)(captured).graph).graph
    angle = (torch.arange(96)[:, None] / 9) ** 2 * torch.ones(8)  # by the square of the position
    graph.rotations = (Rotation(angle.cos(), angle.sin()),)
    policy, plan = make_policy(PolicyConfig(name="knorm")), (Full(), Full())
    with pytest.raises(PassError, match=r"entries cannot move up; .* or --positions absolute"):
        cycle_programs(graph, CACHE, policy, plan)
    absolute = CacheConfig(
        **{n: getattr(CACHE, n) for n in CACHE.__struct_fields__} | {"positions": "absolute"}
    )
    layers, _ = cycle_programs(graph, absolute, policy, plan)
    assert layers[0].evict == "evict_0"
