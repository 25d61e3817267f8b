import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcc.errors import CacheError
from lcc.runtime.core.plan import CYCLE, Limits, check_protected, next_step, plan


def test_example_of_the_module():
    limits = Limits(capacity=8, budget=4, chunk_size=4)
    assert list(plan(13, 0, limits)) == [4, 4, CYCLE, 4, CYCLE, 1]


def test_reserved_slots_are_left_free():
    limits = Limits(capacity=10, budget=4, chunk_size=4, reserved=3)
    assert list(plan(9, 0, limits)) == [4, 3, CYCLE, 2]


def test_one_token_at_a_time_is_the_same_rule():
    limits = Limits(capacity=6, budget=4, chunk_size=2)
    used, cycles = 0, []
    for place in range(11):
        if next_step(1, used, limits) == CYCLE:
            used = limits.budget
            cycles.append(place)
        assert next_step(1, used, limits) == 1
        used += 1
    assert cycles == [6, 8, 10]


sizes = st.tuples(
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(0, 10),
    st.integers(0, 10),
    st.integers(0, 500),
)


@given(sizes, st.data())
def test_any_plan(numbers, data):
    budget, chunk_size, reserved, slack, tokens = numbers
    capacity = budget + chunk_size + reserved + slack
    limits = Limits(capacity=capacity, budget=budget, chunk_size=chunk_size, reserved=reserved)
    used = data.draw(st.integers(0, limits.usable))
    read, before = 0, None
    for step in plan(tokens, used, limits):
        if step == CYCLE:
            assert used == limits.usable  # never without need
            assert before != CYCLE
            used = budget
        else:
            assert 1 <= step <= chunk_size
            assert step == chunk_size or read + step == tokens or used + step == limits.usable
            read, used = read + step, used + step
        assert used <= limits.usable
        before = step
    assert read == tokens
    assert before != CYCLE  # no cycle that nothing follows


def test_a_full_cache_that_never_evicts_says_so():
    limits = Limits(capacity=8, budget=4, chunk_size=4, evicts=False)
    assert next_step(3, 5, limits) == 3
    with pytest.raises(CacheError, match="8 entries in 8 slots, 3 more tokens"):
        next_step(3, 8, limits)


def test_protected_prefix():
    check_protected(8, 3, 12)
    with pytest.raises(CacheError, match=r"\(9 \+ 3 = 12\) must be smaller than budget \(12\)"):
        check_protected(9, 3, 12)
