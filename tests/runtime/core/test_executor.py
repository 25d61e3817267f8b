import msgspec
import numpy as np
import pytest

from lcc.errors import ArtifactError, CacheError

TEXT = [int(t) for t in np.random.default_rng(5).integers(0, 23, 60)]
FULL = "the cache is full"


def feed(executor, ids, catalyst=(2, 5), most=99):
    """Read a text as a session does; returns how many cycles ran."""
    cycles, ids = 0, list(ids)
    while ids:
        if (room := executor.limits.usable - executor.used) == 0:
            executor.evict(catalyst)
            cycles += 1
            continue
        count = min(room, most, len(ids))
        executor.read(ids[:count])
        ids = ids[count:]
    return cycles


def agree(executor, oracle) -> None:
    """What is held, and what is computed from it."""
    assert executor.kept_tokens(0).tolist() == [oracle.positions()]
    assert (executor.used, executor.tokens) == (len(oracle.held), len(oracle.text))
    keys = executor.buffers.rows("key_0", 0, executor.used)[0, 0, :, 0]
    assert keys.tolist() == [token for _, token, _ in oracle.held]
    np.testing.assert_allclose(executor.logits(), oracle.logits(), rtol=1e-5)


@pytest.mark.parametrize("most", [1, 3, 4, 99])
@pytest.mark.parametrize("rank", ["nll", "catalyst"])
def test_reading_and_cycles_are_those_of_the_oracle(make, make_oracle, rank, most):
    executor, oracle = make(rank=rank), make_oracle(rank)
    for part in (TEXT[:7], TEXT[7:31], TEXT[31:]):
        feed(executor, part, most=most)
        oracle.read(part)
        agree(executor, oracle)
    assert oracle.cycles > 3


@pytest.mark.parametrize("most", [1, 4])
def test_newest_tokens_are_read_once_more(make, make_oracle, most):
    executor, oracle = make(rank="newest"), make_oracle("newest")
    assert feed(executor, TEXT[:13], most=most) == 1
    oracle.read(TEXT[:13])
    agree(executor, oracle)
    assert executor.numbers["asked"] == 3


def test_steps_of_a_fixed_length_read_the_same(make, make_oracle):
    executor, oracle = make(length=4), make_oracle()
    for part in (TEXT[:7], TEXT[7:31], TEXT[31:34]):
        feed(executor, part)
        oracle.read(part)
        agree(executor, oracle)


def test_one_token_takes_the_program_for_one(make):
    executor = make()
    executor.read(TEXT[:9])  # 4, 4, 1
    assert [name for name in executor.engine.calls if name != "see"] == [
        *("step", "step", "compact", "one"),
    ]


def test_a_catalyst_leaves_no_trace(make):
    executor = make(rank="catalyst")
    executor.read(TEXT[:9])
    before = executor.counters
    executor.evict([1, 2, 3])
    after = executor.counters
    changed = {name for name in before if before[name] != after[name]}
    # 9 entries in the window's 8 slots were 5, and 3 more fit: nothing was compacted
    assert changed - {"n", "start", "asked", "state", "layer"} == {
        "used",
        "kept",
        "known",
        "next",
        "tick",
    }
    assert (after["tokens"], after["used"], after["asked"]) == (9, 5, 3)
    executor.read(TEXT[:4])
    with pytest.raises(CacheError, match="catalyst: 4 tokens, 3 slots"):
        executor.evict([1, 2, 3, 4])


def test_a_catalyst_makes_room_in_a_window(make):
    executor = make(rank="catalyst")
    feed(executor, TEXT[:8])  # the window is full
    executor.evict([1, 2, 3])
    assert (executor.numbers["used_1"], executor.numbers["kept_1"]) == (4, 4)
    assert executor.kept_tokens(1).tolist() == [[0, 5, 6, 7]]


def test_a_schedule_that_leaves_more_than_there_is(make):
    executor = make(rank="catalyst")
    feed(executor, TEXT[:8])
    executor.numbers["kept_1"] = 9
    with pytest.raises(ArtifactError, match="kept_1 is 9, more than the 8 entries of used_1"):
        executor.kept_tokens(1)


def test_windows_keep_what_is_seen(make):
    executor = make()
    executor.read(TEXT[:8])
    assert executor.kept_tokens(1).tolist() == [[*range(8)]]
    executor.read(TEXT[8:10])  # 8 + 2 > 8 slots
    assert executor.kept_tokens(1).tolist() == [[0, 5, 6, 7, 8, 9]]
    feed(executor, TEXT[10:])
    used = executor.numbers["used_1"]
    kept = executor.kept_tokens(1)[0].tolist()
    assert kept[0] == 0
    assert kept[1:] == list(range(60 - used + 1, 60))
    assert executor.buffers.rows("key_1", 0, used)[0, 0, :, 0].tolist() == [
        2 * TEXT[i] for i in kept
    ]


def test_aligned_groups_compact_as_the_text_grows_however_it_is_cut(make):
    cut, whole = make(align="chunk_size"), make(align="chunk_size")
    feed(whole, TEXT[:27])
    for size in (1, 2, 3, 1, 4, 5, 11):
        feed(cut, TEXT[cut.tokens : cut.tokens + size])
    assert cut.tokens == whole.tokens == 27
    assert cut.kept_tokens(1).tolist() == whole.kept_tokens(1).tolist() == [[0, *range(21, 27)]]


def test_aligned_groups_compact_where_there_is_room_too(make):
    executor = make(align="head_rows")  # every two tokens
    executor.read(TEXT[:1])
    assert executor.engine.calls == ["one"]  # there is nothing to compact before the first token
    executor.read(TEXT[1:7])
    assert [executor.numbers[name] for name in ("used_1", "kept_1")] == [5, 4]
    assert executor.engine.calls.count("step") == 2  # tokens 2 and 3, 4 and 5
    assert executor.engine.calls.count("one") == 3  # 0, 1 and 6


def test_more_tokens_than_room_are_refused(make):
    executor = make()
    executor.read(TEXT[:12])
    with pytest.raises(CacheError, match="1 tokens to read, 0 slots are free; run a cycle first"):
        executor.read([1])
    small = make()
    small.read(TEXT[:5])
    with pytest.raises(CacheError, match="nothing to evict: 5 entries, budget 5"):
        small.evict()
    full = make(rank="nll", evicts=False)
    full.read(TEXT[:12])
    assert not full.limits.evicts
    with pytest.raises(CacheError, match="nothing to evict"):
        full.evict()
    with pytest.raises(CacheError, match="nothing was read yet"):
        make().logits()


@pytest.mark.parametrize("rank", ["nll", "catalyst"])
def test_nll_is_that_of_each_token_given_those_before(make, make_oracle, rank):
    executor, oracle = make(rank=rank), make_oracle(rank)
    room = executor.limits.usable
    found = [executor.nll(TEXT[:room])]
    executor.evict((2, 5))
    found.append(executor.nll(TEXT[room : room + 1]))
    executor.engine.calls.clear()
    found.append(executor.nll(TEXT[room + 1 : room + 4]))
    assert executor.engine.calls.count("head") == 2, "two rows at once, not one by one"
    wanted = oracle.read(TEXT[: room + 4])
    np.testing.assert_allclose(np.concatenate(found), wanted, rtol=1e-4)
    assert found[0][0] == np.float32(1e30)
    agree(executor, oracle)
    assert executor.nll([]).shape == (0,)


def test_logits_are_computed_once_a_step(make):
    executor = make()
    executor.read(TEXT[:3])
    first = executor.logits()
    assert executor.logits() is not None
    assert executor.engine.calls.count("head") == 1
    executor.read(TEXT[3:4])
    executor.logits()
    assert executor.engine.calls.count("head") == 2
    assert np.shares_memory(first, executor.logits())


@pytest.mark.parametrize("rank", ["nll", "catalyst"])
@pytest.mark.parametrize(("read", "back"), [(8, 1), (8, 7), (5, 5), (24, 1)])
def test_a_rewind_goes_back(make, make_oracle, rank, read, back):
    executor, oracle = make(rank=rank), make_oracle(rank)
    feed(executor, TEXT[:read])
    since = executor.since_cycle
    executor.rewind(back)
    left = TEXT[: read - back]
    assert (executor.tokens, executor.beginning) == (len(left), left[:32])
    assert executor.since_cycle == since[: len(since) - back]
    oracle.read(left)
    if left:
        agree(executor, oracle)
    feed(executor, TEXT[read - back : 40])
    oracle.read(TEXT[read - back : 40])
    agree(executor, oracle)
    assert oracle.cycles > 3


def test_a_rewind_to_the_last_cycle_finds_the_state_it_left(make):
    for rank in ("nll", "catalyst"):
        executor = make(rank=rank)
        feed(executor, TEXT[: executor.limits.usable])
        executor.evict((2, 5))
        wanted = executor.logits().copy()
        executor.read(TEXT[:2])
        assert executor.rewindable == 2
        executor.rewind(2)
        calls = len(executor.engine.calls)
        assert executor.again == []
        assert executor.logits().tolist() == wanted.tolist()
        assert executor.engine.calls[calls:] == ["head"]
        assert executor.since_cycle == []


def test_rewinds_in_a_row(make, make_oracle):
    executor, oracle = make(rank="catalyst"), make_oracle("catalyst")
    executor.read(TEXT[:7])
    executor.numbers["known"] = 7
    for count in (1, 1, 0, 2):
        executor.rewind(count)
    assert (executor.tokens, executor.used, len(executor.again)) == (3, 3, 1)
    assert executor.numbers["known"] == executor.numbers["used"] == 2
    assert executor.rewindable == 3
    oracle.read(TEXT[:3])
    assert executor.kept_tokens(0).tolist() == [[0, 1, 2]]
    executor.read(TEXT[3:5])  # reads the last one again with them
    oracle.read(TEXT[3:5])
    agree(executor, oracle)
    executor.rewind(5)
    assert (executor.tokens, executor.since_cycle, executor.beginning) == (0, [], [])
    with pytest.raises(CacheError, match="nothing was read"):
        executor.logits()


@pytest.mark.parametrize(("rank", "most"), [("nll", 2), ("catalyst", 1)])
def test_what_cannot_be_taken_back(make, rank, most):
    executor = make(rank=rank)
    executor.read(TEXT[:7])
    executor.evict()
    executor.read(TEXT[7:8])
    executor.read(TEXT[8:10])  # the window is compacted before them
    assert [executor.numbers[name] for name in ("used", "kept", "used_1", "kept_1")] == [8, 5, 6, 4]
    # Without a log of states the last token that stays is read again: the window must see as much.
    assert executor.rewindable == most
    with pytest.raises(CacheError, match=rf"rewind\({most + 1}\): wanted 0 to {most} tokens"):
        executor.rewind(most + 1)
    executor.rewind(most)
    assert executor.rewindable == 0


def test_protected_entries_stay(make, make_oracle):
    executor, oracle = make(), make_oracle()
    executor.read(TEXT[:3])
    executor.protected = oracle.protected = 3
    feed(executor, TEXT[3:30])
    oracle.read(TEXT[:30])
    agree(executor, oracle)
    assert executor.kept_tokens(0)[0, :3].tolist() == [0, 1, 2]
    other = make()
    other.read(TEXT[:6])
    other.protected = 6
    other.rewind(2)
    assert other.protected == 4


def test_what_a_cycle_is_told(make):
    executor = make()
    executor.read(TEXT[:12])
    cycle = executor.evict((), left=7)
    assert (cycle.tokens, cycle.used_before, cycle.used_after) == (12, 12, 5)
    assert executor.numbers["left"] == 7
    executor.read(TEXT[:7])
    executor.evict()
    assert executor.numbers["left"] == -1


def test_a_reset_session_is_a_new_one(make):
    executor, new = make(), make()
    feed(executor, TEXT)
    assert executor.beginning == TEXT[:32]
    executor.protected = 2
    executor.reset()
    assert executor.counters == new.counters
    arrays = executor.buffers.arrays
    assert {name for name in arrays if arrays[name].any()} <= {
        *("key_0", "value_0", "key_1", "value_1", "queries"),
        *("spare_key_0", "spare_value_0", "spare_key_1", "spare_value_1"),
    }
    feed(executor, TEXT[:20])
    feed(new, TEXT[:20])
    assert executor.counters == new.counters
    assert executor.logits().tolist() == new.logits().tolist()
    assert executor.beginning == new.beginning == TEXT[:20]


def test_a_failed_step_is_as_if_it_was_never_begun(make, make_oracle):
    executor, oracle = make(), make_oracle()
    executor.read(TEXT[:5])
    before = executor.counters
    executor.engine.fail_in = "step"
    with pytest.raises(RuntimeError):
        executor.read(TEXT[5:8])
    executor.engine.fail_in = None
    assert executor.counters == before
    feed(executor, TEXT[5:30])
    oracle.read(TEXT[:30])
    agree(executor, oracle)


@pytest.mark.parametrize("program", ["evict", "compact"])
def test_a_failed_cycle_or_compaction_breaks_the_session(make, program):
    executor = make()
    executor.read(TEXT[:8])
    executor.engine.fail_in = program
    with pytest.raises(RuntimeError):
        feed(executor, TEXT[8:20])
    executor.engine.fail_in = None
    for call in (lambda: executor.read([1]), executor.logits, executor.evict):
        with pytest.raises(CacheError, match=r"cycle failed half-way and the cache is lost; reset"):
            call()
    with pytest.raises(CacheError, match="half-way"):
        executor.rewind(1)
    executor.reset()
    executor.read(TEXT[:3])


@pytest.mark.parametrize("used", ["used", "tokens", "capacity"])
def test_a_cycle_that_makes_no_room_is_the_last(make, used):
    """Else reading would run one after the other, without an end."""
    executor = make()
    schedule = executor._schedule
    *before, evict, after = schedule.cycle
    changed = msgspec.structs.replace(evict, set=evict.set | {"used": used})
    executor._schedule = msgspec.structs.replace(schedule, cycle=(*before, changed, after))
    with pytest.raises(
        ArtifactError, match=r"a cycle left \d+ entries, wanted budget \(5\) at most"
    ):
        feed(executor, TEXT[:20])
    with pytest.raises(CacheError, match="half-way"):
        executor.read([1])
    executor.reset()
    executor.read(TEXT[:3])


def test_bytes(make):
    executor = make(rank="catalyst")
    before = executor.held_bytes
    assert executor.cache_bytes == sum(a.nbytes for a in executor.buffers.arrays.values())
    executor.read(TEXT[:3])
    # of each token a key and a value of two layers in float32, and its id
    assert executor.held_bytes - before == 3 * (2 * 2 * 4 + 8)


def test_sizes_can_be_lowered(make, make_oracle):
    from lcc.config import CacheConfig

    compiled = make().manifest.cache
    small = CacheConfig(
        **(msgspec.structs.asdict(compiled) | {"capacity": 10, "budget": 4, "chunk_size": 3})
    )
    executor = make(sizes=small)
    assert executor.buffers.arrays["key_0"].shape == (1, 1, 10, 1)
    assert feed(executor, TEXT[:30]) == 4  # when 10, 16, 22 and 28 were read
    assert executor.used == 6
    for size in ({"capacity": 13}, {"budget": 6}, {"chunk_size": 5}):
        larger = msgspec.structs.replace(compiled, **({"capacity": 13} | size))
        with pytest.raises(CacheError, match="the artifact was compiled for"):
            make(sizes=larger)
    with pytest.raises(
        CacheError, match=r"chunk_size is 3, .* for 4, and \w+\.\w+ has it as a number"
    ):
        make(sizes=small, length=4)


@pytest.mark.parametrize("rank", ["nll", "catalyst"])
def test_logits_after_each_token(make, rank):
    executor, single = make(rank=rank), make(rank=rank)
    executor.read(TEXT[:3])
    executor.rewind(1)  # without a log, token 1 is read again with what follows
    single.read(TEXT[:2])
    found = [logits.copy() for logits in executor.each_logits(TEXT[2:9])]
    assert len(found) == 7
    for token, logits in zip(TEXT[2:9], found, strict=True):
        single.read([token])
        np.testing.assert_allclose(logits, single.logits(), rtol=1e-5)
    assert executor.numbers["state"] != executor.numbers["no_state"]
    np.testing.assert_allclose(executor.logits(), single.logits(), rtol=1e-5)
