"""run_plan: every policy's schedule is one that a runtime accepts, and says what it should."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from lcc.artifact.check_schedule import check_schedule, lists
from lcc.artifact.program_entry import program_entries
from lcc.artifact.schedule import Block, TextFacts
from lcc.compile import manifest_of
from lcc.config import CompileConfig, PolicyConfig
from lcc.passes.graph import ModelGraph
from lcc.passes.policies import POLICIES, make_policy
from lcc.passes.programs.schedule import RunPlan, run_plan
from lcc.passes.specialize import Specialized, Subject, specialize
from lcc.targets import find_target

Special = Callable[..., Specialized]
WINDOW = "0: full; 1: sink_window(sink=2, window=9)"
BLOCKS = "0: block_sparse(block=8, local=2, reach=4); 1: full"
NO_FULL = "0: block_sparse(block=8, local=2, reach=4); 1: sink_window(sink=2, window=9)"


def checked(special: Specialized) -> RunPlan:
    """Both plans of a model, held against its programs."""
    manifest = manifest_of(special, CompileConfig(cache=special.cache), None, TextFacts())
    check_schedule(manifest, manifest.programs)
    for _, blocks in lists(manifest.schedule):
        for block in blocks:
            for run in block.do:
                entry = manifest.programs[run.run]
                known = {tensor.name for tensor in (*entry.inputs, *entry.outputs)}
                assert {*run.bind, *run.ints, *run.read} <= known
    return special.plan


@pytest.mark.parametrize("policy", [*POLICIES, "consensus with heads"])
def test_every_policy(policy: str, specialized: Special) -> None:
    checked(specialized(policy.split()[0], with_heads=policy.endswith("heads")))


@pytest.mark.parametrize(
    ("policy", "plan", "positions"),
    [
        ("snapkv", WINDOW, "contiguous"),
        ("snapkv", WINDOW, "absolute"),
        ("h2o", BLOCKS, "contiguous"),
        ("consensus", NO_FULL, "contiguous"),
        ("locret", BLOCKS, "contiguous"),
    ],
)
def test_every_plan(policy: str, plan: str, positions: str, specialized: Special) -> None:
    checked(specialized(policy, plan=plan, positions=positions))


@pytest.mark.parametrize(
    ("policy", "target"), [("consensus", "onnxruntime:nnapi"), ("snapkv", "onnxruntime:cuda")]
)
def test_one_schedule_serves_the_programs_of_all_targets(
    policy: str, target: str, captured: ModelGraph, specialized: Special
) -> None:
    """Steps of fixed length that hand out every row; keys and values in float16."""
    other, made = find_target(target), make_policy(PolicyConfig(name=policy))
    cache = specialized(policy).cache
    special = specialize(
        Subject(captured, "tiny", "llama", sentence_ends=np.zeros(260, bool)),
        CompileConfig(cache=cache),
        made,
        targets={target: other.passes(), "onnxruntime:cpu": []},
        every_row=other.hands_out_every_row,
        archive=other.archives,
    )
    manifest = manifest_of(special, CompileConfig(cache=cache), None, TextFacts())
    check_schedule(manifest, program_entries(special.built[target], {}))
    assert special.plan.schedule == special.exact.schedule
    queries = [each.shape[0] for each in special.plan.buffers if each.name == "queries_0"]
    asked = {"consensus": 8, "snapkv": 64}[policy]
    assert queries == [asked + (16 if other.hands_out_every_row else 0)]


# --- what the lists say ---------------------------------------------------------------------------


def outline(blocks: Sequence[Block]) -> list[str]:
    """One line a block: what it is repeated over, what it runs, what becomes of counters."""
    lines = []
    for block in blocks:
        over, parts = block.over, []
        if over is not None:
            rows = over.rows and " < ".join(over.rows)
            parts.append(f"{over.ids or rows} by {over.most}:")
        if block.when is not None:
            parts.append(f"when {' < '.join(block.when)}:")
        parts += [" ".join(("grow", *block.grow))] if block.grow else []
        parts += [run.run + (f"{list(run.each)}" if run.each else "") for run in block.do]
        parts += [f"append {block.append}"] if block.append else []
        parts += [f"+{name}" for name in block.add]
        parts += ["lend"] if block.lend else []
        parts += [f"count {block.count}"] if block.count else []
        parts += [f"{a}={b}" for a, b in block.set.items()]
        lines.append(" ".join(parts))
    return lines


def test_consensus(specialized: Special) -> None:
    plan = specialized("consensus").plan
    schedule = plan.schedule
    assert schedule.log
    assert outline(schedule.read) == [
        "text by chunk_size: prefill_chunk +used +tokens +next state=used"
    ]
    leave = [
        "when zero < archiving: leave",
        "when zero < leaving: archive_0[0, 1] append leaving leaving=zero",
    ]
    assert outline(schedule.cycle) == [
        "known < used by head_rows: head +known",
        "annotate",
        "catalyst by chunk_size: prefill_chunk +used +tokens +next lend count asked",
        "score_0[0, 1]",
        *leave,
        "evict_0[0, 1] used=budget kept=budget known=budget state=budget next=budget tick=zero",
        "tick < one by one: +tick +next",
    ]
    assert outline(schedule.logits) == ["head"]
    assert schedule.nll == (*schedule.read, schedule.cycle[0])
    assert schedule.compact == {}
    annotate = ["known < used by head_rows: head +known", "annotate"]
    assert outline(schedule.flush) == [*annotate, *leave, "archived_to=tokens"]
    assert outline(schedule.recall) == [
        "catalyst by chunk_size: prefill_chunk +used +tokens +next lend count asked",
        "grow votes all_position all_sentence all_nll by_token row=zero",
        "row < archived by scan_rows: attend_0[1] +row",
        "row=zero",
        "row < archived by scan_rows: vote_0[1] +row",
        "choose",
        "put_back_0[0, 1]",
        "used=held kept=held known=held state=held next=held tick=zero",
        "tick < one by one: +tick +next",
    ]
    (evict,) = schedule.cycle[6].do
    assert evict.ints["new_slots"] == ("zero", "budget")
    assert evict.bind["agreed"] == "agreed"
    assert evict.bind["nll"] == ("nll", "zero", "capacity")
    assert evict.bind["nll_kept"] == "nll_kept_*"
    assert schedule.cycle[6].after == (("hidden", "used", "budget"), ("sentence", "used", "budget"))
    (step,) = schedule.read[0].do
    assert step.one == "decode"
    assert step.bind["hidden"] == ("hidden", "next", "n")
    assert "queries_0" not in step.bind
    assert step.ints["query_rows"] == ("zero", "one")  # some row: what it gives is not wanted
    (again,) = schedule.cycle[2].do
    assert again.bind["queries_0"] == ("queries_0", "asked", "n")
    assert "hidden" not in again.bind


def test_with_heads_no_catalyst_is_run(specialized: Special) -> None:
    plan = specialized("consensus", with_heads=True).plan
    assert plan.constants["reserved"] == 8  # for questions
    assert not plan.schedule.log
    assert plan.schedule.read[0].do[0].bind["expected"] == ("expected", "used", "n")
    assert outline(plan.schedule.cycle) == [
        "annotate",
        "when zero < archiving: leave",
        "when zero < leaving: archive_0[0, 1] append leaving leaving=zero",
        "evict_0[0, 1] used=budget kept=budget known=budget state=zero",
    ]
    (evict,) = plan.schedule.cycle[3].do
    assert evict.bind["expected"] == ("expected", "zero", "capacity")


def test_h2o_scores_every_step(specialized: Special) -> None:
    schedule = specialized("h2o").plan.schedule
    assert outline(schedule.read) == [
        "text by chunk_size: prefill_chunk score_0[0, 1] +used +tokens state=n"
    ]
    step, score = schedule.read[0].do
    assert step.bind["queries_1"] == ("queries_1", "zero", "n")
    assert step.ints["query_rows"] == ("zero", "n")
    assert score.ints == {"start": "start", "known": "start", "layer": "layer"}
    assert score.bind["queries"] == ("queries_*", "zero", "n")
    (evict,) = schedule.cycle[0].do
    assert ("attention_*", "spare_attention_2xcapacityx16") in evict.swap
    assert outline(schedule.nll) == [
        "when no_state < state:",
        "tick=zero row=used",
        *outline(schedule.read),
        "tick < state by head_rows: head +tick +row",
    ]
    assert schedule.nll[0].after == (("hidden", "state", "zero"),)


def test_snapkv_reads_the_newest_tokens_once_more(specialized: Special) -> None:
    plan = specialized("snapkv", plan=WINDOW, positions="contiguous").plan
    assert outline(plan.schedule.cycle) == [
        "newest by chunk_size: prefill_chunk +used +tokens +used_1 count asked",
        "score_0[0]",
        "evict_0[0] used=budget kept=budget known=budget state=zero",
    ]
    assert plan.schedule.cycle[0].over.count == "newest"
    assert plan.constants["newest"] == 64
    assert plan.constants["reserved"] == 0  # they lie where they lay
    (evict,) = plan.schedule.cycle[2].do
    assert all("attention" not in pair[0] for pair in evict.swap)  # made anew each cycle


@pytest.mark.parametrize("positions", ["contiguous", "absolute"])
def test_a_window_is_compacted_where_less_is_seen(positions: str, specialized: Special) -> None:
    plan = specialized("snapkv", plan=WINDOW, positions=positions).plan
    assert [(group.name, group.used, group.kept, group.layers) for group in plan.groups] == [
        ("full", "used", "kept", (0,)),
        ("sink_window_1", "used_1", "kept_1", (1,)),
    ]
    assert plan.groups[1].slots == 2 + 9 + 16 + 63
    assert plan.groups[1].align is None
    assert outline(plan.schedule.compact["sink_window_1"]) == [
        "see_1",
        "when seen_1 < used_1: compact_0[1] used_1=seen_1 kept_1=seen_1",
    ]
    see, move = plan.schedule.compact["sink_window_1"]
    assert see.do[0].read == {"seen": "seen_1"}
    assert move.swap == (("token_position_sink_window_1", "spare_token_position_sink_window_1"),)
    (step,) = plan.schedule.read[0].do
    first = {"contiguous": "used", "absolute": "tokens"}[positions]
    assert step.ints["positions"] == (first, "n")
    assert step.ints["used_1"] == "used_1"


def test_blocks_end_where_chunks_end(specialized: Special) -> None:
    plan = specialized("h2o", plan=BLOCKS, positions="contiguous").plan
    assert plan.groups[1].align == "chunk_size"
    (step, _) = plan.schedule.read[0].do
    held = "token_position_block_sparse_1"
    assert step.bind[held] == held
    assert {step.ints[name] for name in ("tokens_read", "used_1", "kept_1")} == {
        *("tokens", "used_1", "kept_1")
    }


def test_where_no_layer_is_full_a_cycle_moves_counters_only(specialized: Special) -> None:
    plan = specialized("consensus", plan=NO_FULL, positions="contiguous").plan
    assert outline(plan.schedule.cycle) == ["used=budget kept=budget known=budget state=zero"]
    assert plan.constants["reserved"] == 0
    assert sorted(plan.schedule.compact) == ["block_sparse_1", "sink_window_2"]


def test_none_has_no_cycle(specialized: Special) -> None:
    plan = specialized("none").plan
    assert plan.schedule.cycle == ()
    assert not any(each.name.startswith("spare") for each in plan.buffers)


def test_a_session_begins_empty(specialized: Special) -> None:
    counters = specialized("consensus").plan.counters
    assert counters == {
        **dict.fromkeys(("used", "kept", "tokens", "n", "start", "layer", "protected"), 0),
        **dict.fromkeys(("known", "asked", "tick", "row", "seed"), 0),
        **{"next": 1, "left": -1, "state": -1},
        **dict.fromkeys(("archiving", "archived", "archived_to", "leaving", "back"), 0),
        **dict.fromkeys(("first", "held"), 0),
    }


def test_the_seed_is_the_policys(specialized: Special) -> None:
    special = specialized("random")
    policy = make_policy(PolicyConfig(name="random", options={"seed": 11}))
    plan = run_plan(special.programs, special.programs, special.layers, special.cache, policy)
    assert plan.counters["seed"] == 11
