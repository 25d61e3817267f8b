"""The memory table by the dtypes that programs have, and by what the policy reads."""

import pytest

from lcc.artifact.memory import (
    RUNTIME_BYTES,
    TOKEN_BYTES,
    activation_bytes,
    memory_table,
    symbol_sizes,
)
from lcc.capture.export import capture
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.passes.programs.half_precision import half
from lcc.specialize import specialize
from lcc.targets import find_target
from lcc.testing.tiny import tiny_model


def test_half_precision_is_half_of_it() -> None:
    cache = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
    config = CompileConfig(cache=cache, policy=PolicyConfig(name="knorm"))
    special = specialize(capture(tiny_model("llama")), config, "m", "llama", None)
    wide = {row.name: row.bytes for row in special.memory}
    programs = [half(program) for program in special.programs]
    table = memory_table(programs, special.model.layers, cache, special.policy)
    narrow = {row.name: row.bytes for row in table}
    entries = 2 * 2 * 96  # layers, heads, slots; of 16 numbers each in keys and in values
    assert wide["cache"] == entries * (2 * 16 * 4 + 8)
    assert narrow["cache"] == entries * (2 * 16 * 2 + 8)
    assert wide["spare layer"] == 2 * narrow["spare layer"] == 2 * 2 * 40 * 16 * 4
    assert 0.5 <= narrow["weights"] / wide["weights"] < 0.52  # but for numbers that are not weights
    assert narrow["runtime"] == RUNTIME_BYTES


@pytest.mark.parametrize(
    ("policy", "rows", "every_row"),
    [
        ("consensus", 3 * 8, 3 * 8 + 16),  # catalyst prompts of eight tokens
        ("snapkv", 3 * 64, 3 * 64 + 16),  # the newest 64
        ("h2o", 16, 16 + 16),  # a chunk
        ("knorm", 0, 0),
    ],
)
def test_queries_that_are_held_until_they_are_scored(policy, rows, every_row) -> None:
    cache = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
    config = CompileConfig(cache=cache, policy=PolicyConfig(name=policy))
    special = specialize(capture(tiny_model("llama")), config, "m", "llama", None)
    layers = special.model.layers
    of_row = 4 * sum(layer.query_heads * layer.head_size for layer in layers)
    table = {row.name: row.bytes for row in special.memory}
    assert table["queries"] == rows * of_row
    assert table["tokenizer"] == TOKEN_BYTES * special.model.vocab_size
    facts, static = ("m", "llama", None), find_target("onnxruntime:nnapi")
    special = specialize(capture(tiny_model("llama")), config, *facts, targets=[static])
    assert {row.name: row.bytes for row in special.memory}["queries"] == every_row * of_row


@pytest.mark.parametrize(("policy", "tokens"), [("consensus", 96 - 8), ("snapkv", 0), ("knorm", 0)])
def test_hidden_states_wait_for_a_cycle_where_novelty_is_read(policy, tokens) -> None:
    cache = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
    config = CompileConfig(cache=cache, policy=PolicyConfig(name=policy))
    special = specialize(capture(tiny_model("llama")), config, "m", "llama", None)
    table = {row.name: row.bytes for row in special.memory}
    assert table["hidden states"] == 4 * tokens * special.model.hidden_size


@pytest.mark.parametrize(("pool", "queries"), [("mean", 64), ("max", 128)])
def test_score_is_given_a_few_queries_where_sums_add_up(pool, queries) -> None:
    cache = CacheConfig(capacity=512, budget=256, chunk_size=128, catalyst_size=8, recent_size=4)
    config = CompileConfig(cache=cache, policy=PolicyConfig(name="h2o", group_pool=pool))
    special = specialize(capture(tiny_model("llama")), config, "m", "llama", None)
    score = next(each for each in special.programs if "score" in each.names[0])
    sizes = symbol_sizes(score, cache, special.policy)
    assert sorted(sizes.values()) == [queries, 512]
    heads = special.model.layers[0].query_heads
    assert activation_bytes(score.exported, sizes) >= 2 * 4 * heads * queries * 512  # logits, twice
