"""The oracles define the rest, so their own tests are spelled out by hand."""

import math

import pytest

from lcc.config import PolicyConfig
from lcc.testing.oracles import OracleCache, attention, keep_slots, rotate, smooth_novelty, span


def keep(name="h2o", scalar="attention", values=(), **limits):
    options = {"attention_span": 1, "novelty_span": 1}
    options |= {n: limits.pop(n) for n in tuple(limits) if n in PolicyConfig.__struct_fields__}
    keys = [[1.0, 0.0]] * len(values)
    config = PolicyConfig(name=name, **options)
    return keep_slots(config, {scalar: list(values)}, keys, **limits)


def test_rotate():
    assert rotate([1.0, 0.0, 9.0], 1, [math.pi / 2]) == pytest.approx([0.0, 1.0, 9.0])
    assert rotate([1.0, 0.0, 0.0, 1.0], 2, [math.pi / 4, 0.0]) == pytest.approx([0, 0, 1, 1])


def test_attention_sees_the_window_only():
    ones = [[1.0]] * 4
    assert attention([1.0], ones, scale=1.0) == [0.25] * 4
    assert attention([1.0], ones, scale=1.0, window=2) == [0.0, 0.0, 0.5, 0.5]


def test_span_is_shorter_at_the_ends():
    assert span([1, 2, 3, 4], 0, 3) == [1, 2]
    assert span([1, 2, 3, 4], 2, 3) == [2, 3, 4]


def test_unknown_novelty_lifts_no_neighbour():
    assert smooth_novelty([1e30, 2.0, 4.0, 6.0], 3) == [1e30, 3.0, 4.0, 5.0]


def test_keep_the_best_in_order():
    assert keep(values=[5, 1, 4, 2, 3], budget=3) == [0, 2, 4]


def test_keep_the_newer_of_equals():
    assert keep(values=[1, 1, 1, 1], budget=2) == [2, 3]


def test_keep_what_is_protected():
    assert keep(values=[0, 0, 9, 8, 0], budget=3, prefix=1, recent=1) == [0, 2, 4]


def test_keep_whole_spans():
    values = [0, 0, 0, 0, 9, 0, 0, 0]
    assert keep("snapkv", values=values, budget=3, attention_span=3) == [3, 4, 5]


def test_infinipot_takes_novelty_first():
    scalars = {"novelty": [9.0, 8, 0, 0, 0, 0], "attention": [9.0, 0, 0, 8, 7, 0]}
    keys = [[1.0]] * 6
    options = {"name": "infinipot", "attention_span": 1, "novelty_span": 1}

    def kept(alpha, **limits):
        return keep_slots(PolicyConfig(alpha=alpha, **options), scalars, keys, budget=4, **limits)

    assert kept(0.5) == [0, 1, 3, 4]
    assert kept(0.0) == [0, 3, 4, 5]
    assert kept(1.0) == [0, 1, 4, 5]
    assert kept(0.5, recent=2) == [0, 3, 4, 5]  # of the 2 that are free, 1 by novelty


def test_cache_positions_after_an_eviction():
    def cache(positions):
        cache = OracleCache(kv_heads=1, scale=1.0, frequencies=[0.5], positions=positions)
        for score in (1, 0, 3, 2):
            cache.append([[1.0, 0.0]], [[0.0, 0.0]], attention=score)
        policy = PolicyConfig(name="h2o")
        assert cache.evict(policy, budget=2) == [[2, 3]]
        cache.append([[1.0, 0.0]], [[0.0, 0.0]], attention=0)
        assert cache.tokens().tolist() == [[2, 3, 4]]
        return [round(math.atan2(y, x) / 0.5) for x, y in cache.keys()[0]]

    assert cache("contiguous") == [0, 1, 2]
    assert cache("absolute") == [2, 3, 4]


def test_cache_score_pools_queries_and_group():
    cache = OracleCache(kv_heads=1, scale=1.0)
    cache.append([[0.0]], [[1.0]])
    cache.append([[0.0]], [[3.0]])
    assert cache.attend([[1.0], [1.0]]) == [[2.0], [2.0]]
    queries = [[[1.0], [1.0]], [[1.0], [1.0]]]
    assert cache.score(queries, start=0) == [[1.5, 0.5]]  # 1 + 1/2 and 0 + 1/2
    assert cache.score(queries, start=0, query_pool="max", group_pool="max") == [[1.0, 0.5]]
    cache.remember([[1.5, 0.5]])
    cache.remember([[1.0, 1.0]], memory=0.5)
    assert [entry.scalars["attention"] for entry in cache.heads[0]] == [1.75, 1.25]
    cache.drop(1)
    assert cache.tokens().tolist() == [[0]]
    cache.append([[0.0]], [[3.0]])
    assert cache.tokens().tolist() == [[0, 1]]
