"""The memory table by the dtypes that programs have, by what the policy reads, and by groups."""

import functools
from collections.abc import Callable

import numpy as np
import pytest

from lcc.artifact.manifest import MemoryEntry
from lcc.artifact.memory import (
    RUNTIME_BYTES,
    TOKEN_BYTES,
    activation_bytes,
    largest_budget,
    memory_table,
    smallest_cache,
    symbol_sizes,
    total_bytes,
    with_budget,
)
from lcc.capture.export import capture
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import ConfigError
from lcc.ir.program import HEAD
from lcc.passes.graph import ModelGraph
from lcc.passes.policies import make_policy
from lcc.passes.programs.half_precision import half
from lcc.passes.programs.schedule import run_plan
from lcc.passes.specialize import Specialized, Subject, specialize, specialize_within_memory
from lcc.targets import find_target
from lcc.testing.tiny import tiny_model

CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
ROWS = 96 + 1 + 16  # of a log
HIDDEN, VOCABULARY = 64, 260


@pytest.fixture(scope="module")
def captured() -> ModelGraph:
    return capture(tiny_model("llama"))


def subject_of(captured: ModelGraph) -> Subject:
    return Subject(captured, "m", "llama", sentence_ends=np.zeros(VOCABULARY, bool))


Special = Callable[..., Specialized]


@pytest.fixture(scope="module")
def special_of(captured: ModelGraph) -> Special:
    """`special_of(policy, plan)`, made once."""

    @functools.cache
    def make(policy: str, plan: str = "dense") -> Specialized:
        config = CompileConfig(cache=CACHE, plan=plan)
        return specialize(subject_of(captured), config, make_policy(PolicyConfig(name=policy)))

    return make


def rows(table: list[MemoryEntry]) -> dict[str, int]:
    return {row.name: row.bytes for row in table}


def test_half_precision_is_half_of_it(special_of: Special) -> None:
    special = special_of("knorm")
    wide = rows(special.memory)
    programs = [half(program) for program in special.programs]
    plan = run_plan(programs, special.programs, special.layers, CACHE, special.policy)
    narrow = rows(memory_table(programs, plan.buffers, plan.groups, plan.constants))
    entries = 2 * 2 * 96  # layers, heads, slots; of 16 numbers each in keys and in values
    assert wide["cache"] == entries * (2 * 16 * 4 + 8)  # and a token position
    assert narrow["cache"] == entries * (2 * 16 * 2 + 8)
    assert wide["spare layer"] == entries // 2 * (2 * 16 * 4 + 8)
    assert narrow["spare layer"] == entries // 2 * (2 * 16 * 2 + 8)
    assert 0.5 <= narrow["weights"] / wide["weights"] < 0.52  # but for numbers that are not weights
    assert narrow["runtime"] == RUNTIME_BYTES


ASKED = {
    "consensus": 8,  # the catalyst's tokens
    "snapkv": 64,  # the newest
    "h2o": 16,  # a chunk
    "knorm": 0,
}
OF_ROW = 4 * 2 * 4 * 16  # bytes of layers, query heads, numbers of a head


@pytest.mark.parametrize("policy", ASKED)
def test_queries_that_wait_until_they_are_scored(policy: str, special_of: Special) -> None:
    table = rows(special_of(policy).memory)
    assert table.get("queries", 0) == ASKED[policy] * OF_ROW
    assert table["tokenizer"] == TOKEN_BYTES * VOCABULARY


@pytest.mark.parametrize("policy", ["snapkv", "knorm"])
def test_where_every_row_is_handed_out_there_is_room_for_a_chunk_more(
    policy: str, special_of: Special, captured: ModelGraph
) -> None:
    static = find_target("onnxruntime:nnapi")
    assert static.hands_out_every_row
    special = specialize(
        subject_of(captured),
        CompileConfig(cache=CACHE),
        special_of(policy).policy,
        targets={static.name: static.passes()},
        every_row=True,
    )
    more = 16 if ASKED[policy] else 0
    assert rows(special.memory).get("queries", 0) == (ASKED[policy] + more) * OF_ROW


@pytest.mark.parametrize(
    ("policy", "states", "scores"),
    [
        # likelihoods and sentences of each token, what all agree on, a spare layer of the two
        ("consensus", ROWS, 2 * ROWS + 96 + 2 * 2 * 96),
        ("infinipot", ROWS, ROWS + 2 * 96),
        # likelihoods of one step
        ("snapkv", 1 + 16, 1 + 16),
        ("h2o", 1 + 16, 1 + 16 + 2 * 96),  # a spare layer of attention
        ("knorm", 1 + 16, 1 + 16),
    ],
)
def test_states_wait_for_a_cycle_where_likelihoods_are_read(
    policy: str, states: int, scores: int, special_of: Special
) -> None:
    table = rows(special_of(policy).memory)
    assert table["logs"] == 8 * ROWS + 4 * (states * HIDDEN + VOCABULARY + scores)


def test_every_group_has_a_row(special_of: Special) -> None:
    table = rows(special_of("knorm", "0: full; 1: sink_window(sink=2, window=9)").memory)
    entry, slots = 2 * (2 * 16 * 4 + 8), 2 + 9 + 16  # of two heads
    assert table["cache, full"] == 96 * entry
    places = slots * 2 * 8
    assert (
        table["cache, sink_window_1"] == slots * entry + 2 * places
    )  # a spare one, and what stays
    assert table["spare layer"] == 96 * entry + slots * 2 * 2 * 16 * 4  # keys and values
    assert "cache" not in table


@pytest.mark.parametrize("policy", ["consensus", "snapkv", "h2o"])
def test_score_holds_the_logits_of_one_kv_head(policy: str, special_of: Special) -> None:
    special = special_of(policy)
    score = next(each for each in special.programs if "score" in each.names[0])
    sizes = symbol_sizes(score, special.plan.constants | {"asked_rows": ASKED[policy]})
    assert sorted(sizes.values()) == sorted([ASKED[policy], 96])
    layer = special.model.layers[0]
    assert (layer.query_heads, layer.kv_heads) == (4, 2)
    of_head = 2 * 4 * ASKED[policy] * 96  # two query heads each
    held = activation_bytes(score.exported, sizes)
    assert 2 * of_head <= held < 4 * of_head + 4 * (2 * ASKED[policy] * 96 + 4 * 96 * 16)
    assert rows(special.memory)["activations"] >= held


def test_the_head_is_given_a_few_rows(special_of: Special) -> None:
    special = special_of("knorm")
    head = next(each for each in special.programs if HEAD in each.names)
    sizes = symbol_sizes(head, special.plan.constants | {"asked_rows": 1})
    assert set(sizes.values()) == {32}


# --- the contract ---------------------------------------------------------------------------------


def table_of(cache: CacheConfig) -> list[MemoryEntry]:
    """A thousand bytes a slot, and ten thousand besides."""
    return [
        MemoryEntry(name="cache", bytes=1000 * cache.capacity),
        MemoryEntry(name="runtime", bytes=10_000),
    ]


def test_the_largest_budget_that_fits() -> None:
    cache = CacheConfig(capacity=4096, budget=2048)  # chunks of 256, a catalyst of 64
    assert total_bytes(table_of(cache)) == 4_106_000
    found = largest_budget(table_of, cache, memory_bytes=1_034_000)
    assert found is not None
    assert (found.budget, found.capacity) == (512, 1024)
    found = largest_budget(table_of, cache, memory_bytes=1_033_999)
    assert found is not None
    assert (found.budget, found.capacity) == (448, 896)
    found = largest_budget(table_of, cache, memory_bytes=1 << 40, longest=700)
    assert found is not None
    assert (found.budget, found.capacity) == (320, 640)
    assert largest_budget(table_of, cache, memory_bytes=20_000) is None
    assert smallest_cache(cache) == with_budget(cache, 128)  # 68 are protected
    assert with_budget(cache, 128).capacity == 128 + 256 + 64


def within(captured: ModelGraph, megabytes: int, *, fit_budget: bool = False) -> Specialized:
    config = CompileConfig(cache=CACHE, memory_bytes=megabytes << 20, fit_budget=fit_budget)
    policy = make_policy(PolicyConfig(name="knorm"))
    return specialize_within_memory(subject_of(captured), config, policy)


def test_what_does_not_fit_is_refused_with_what_would(captured: ModelGraph) -> None:
    with pytest.raises(
        ConfigError, match=r"memory 1,048,576 bytes: no budget fits; the smallest, 64"
    ):
        within(captured, 1)
    assert total_bytes(within(captured, 200).memory) < 200 << 20


def test_the_budget_is_chosen_to_fit(captured: ModelGraph) -> None:
    special = within(captured, 120, fit_budget=True)
    assert total_bytes(special.memory) <= 120 << 20
    assert special.cache.budget > 1000
    assert special.cache.budget % 64 == 0
    larger = with_budget(special.cache, special.cache.budget + 64)
    config = CompileConfig(cache=larger, memory_bytes=120 << 20)
    with pytest.raises(ConfigError, match=f"largest budget that fits is {special.cache.budget} "):
        specialize_within_memory(subject_of(captured), config, special.policy)
