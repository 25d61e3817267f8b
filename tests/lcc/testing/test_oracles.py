"""The oracles define the rest, so their own tests are spelled out by hand."""

import math

import pytest

from lcc.config import PolicyConfig
from lcc.ir.plan import BlockSparse
from lcc.testing.oracles import OracleCache, attention, rotate
from lcc.testing.selection import keep_slots, smooth_nll, span


def keep(name="h2o", score="attention", values=(), options=None, **limits):
    keys = [[1.0, 0.0]] * len(values)
    policy = PolicyConfig(name=name, options=options or {})
    return keep_slots(policy, {score: list(values)}, keys, **limits)


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


def test_the_first_token_lifts_no_neighbour():
    assert smooth_nll([1e30, 2.0, 4.0, 6.0], 3) == [1e30, 3.0, 4.0, 5.0]


def test_keep_the_best_in_order():
    assert keep(values=[5, 1, 4, 2, 3], budget=3) == [0, 2, 4]


def test_keep_the_newer_of_equals():
    assert keep(values=[1, 1, 1, 1], budget=2) == [2, 3]


def test_keep_what_is_protected():
    assert keep(values=[0, 0, 9, 8, 0], budget=3, prefix=1, recent=1) == [0, 2, 4]


def test_keep_whole_spans():
    values = [0, 0, 0, 0, 9, 0, 0, 0]
    assert keep("snapkv", values=values, budget=3, options={"attention_span": 3}) == [3, 4, 5]


def test_infinipot_takes_likelihood_first():
    scores = {"nll": [9.0, 8, 0, 0, 0, 0], "attention": [9.0, 0, 0, 8, 7, 0]}
    keys = [[1.0]] * 6

    def kept(alpha, **limits):
        options = {"alpha": alpha, "attention_span": 1, "nll_span": 1}
        policy = PolicyConfig(name="infinipot", options=options)
        return keep_slots(policy, scores, keys, budget=4, **limits)

    assert kept(0.5) == [0, 1, 3, 4]
    assert kept(0.0) == [0, 3, 4, 5]
    assert kept(1.0) == [0, 1, 4, 5]
    assert kept(0.5, recent=2) == [0, 3, 4, 5]  # of the 2 that are free, 1 by likelihood


def test_consensus_keeps_whole_sentences_that_say_something():
    scores = {
        "sentence": [0.0, 0, 2, 2, 4, 4, 4],
        "nll": [1e30, 1.0, 3.0, 1.0, 0.4, 0.4, 0.4],  # 1 / sqrt 2, 4 / sqrt 2, and too little
        "agreed": [1.0, 1.0, 0.1, 0.1, 9.0, 9.0, 9.0],
    }

    def kept(weight, budget, scores=scores):
        policy = PolicyConfig(name="consensus", options={"nll_weight": weight})
        return keep_slots(policy, scores, [[1.0]] * 7, budget=budget)

    assert kept(0.75, 2) == [2, 3]  # 4^0.75 0.1^0.25 = 1.59 against 1: both / 2^0.375
    assert kept(0.25, 2) == [0, 1]  # 4^0.25 0.1^0.75 = 0.25 against 1
    assert kept(0.75, 5) == [0, 1, 2, 3, 6]  # of what repeats the rest, the newest
    assert kept(0.0, 3) == [4, 5, 6]
    by_heads = {"sentence": scores["sentence"], "expected": scores["agreed"]}
    assert kept(0.0, 3, by_heads) == [4, 5, 6]


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
    cache.remember([[1.0, 1.0]], decay=0.5)
    assert [entry.scores["attention"] for entry in cache.heads[0]] == [1.75, 1.25]
    cache.drop(1)
    assert cache.tokens().tolist() == [[0]]
    cache.append([[0.0]], [[3.0]])
    assert cache.tokens().tolist() == [[0, 1]]


def test_blocks_that_no_later_query_sees_are_freed():
    kind = BlockSparse(block=1, stride=9, local=2, sink=1)
    for lag, kept in ((1, [0, 4, 5]), (3, [0, 2, 3, 4, 5])):
        cache = OracleCache(kv_heads=1, scale=1.0, kind=kind)
        for _ in range(6):
            cache.append([[0.0]], [[1.0]])
        cache.free(lag)
        assert cache.tokens().tolist() == [kept]
