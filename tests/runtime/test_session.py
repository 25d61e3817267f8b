import itertools
import os
import signal
from functools import partial

import numpy as np
import pytest

from lcc.errors import ArtifactError, CacheError, ConfigError
from lcc.runtime.text.feeding import TokenQueue
from lcc.testing.tiny import END

TEXT = "the cat sat on the mat and the dog ran far away over the hills again and again " * 2
RULES = {
    "catalyst": {},
    "no catalyst": {"catalyst": None},
    "absolute": {"positions": "absolute"},
    "long catalyst": {"catalyst": "sum it up", "catalyst_size": 9},
    "beginning": {"catalyst": "beginning"},
    "chunks of one": {"chunk_size": 1},
}


@pytest.mark.parametrize("rule", RULES)
def test_session_holds_what_the_oracle_holds(make_session, make_oracle, rule):
    session = make_session(**RULES[rule])
    ids = session.encode(TEXT)
    catalyst = session.catalyst if session.reads_catalyst else None
    if rule == "beginning":
        assert catalyst == "beginning"
        catalyst = list(b"\n\nthe ca")  # an empty line and the first tokens: 8 in all
    oracle = make_oracle(session.manifest, catalyst)
    for part in (ids[:17], ids[17:60], ids[60:]):  # feeds of any length
        assert session.feed(part) == len(part)
        oracle.read(part)
    assert oracle.cycles >= 3
    assert len(session.cycles) == session.stats().cycles == oracle.cycles
    for layer in range(2):
        assert session.kept_tokens(layer).tolist() == oracle.kept(layer)
    assert (session.kept_tokens(0)[0] != session.kept_tokens(0)[1]).any(), "heads differ"
    np.testing.assert_allclose(session.next_logits(), oracle.logits(), atol=2e-4)
    # Generation goes through the same cycles.
    new = list(session.generate_ids(max_new_tokens=20, eos=[]))
    for token in new:
        assert token == int(oracle.logits().argmax())
        oracle.read([token])
    session.feed("!")
    oracle.read([ord("!")])
    for layer in range(2):
        assert session.kept_tokens(layer).tolist() == oracle.kept(layer)
    np.testing.assert_allclose(session.next_logits(), oracle.logits(), atol=2e-4)


def test_negative_log_likelihoods_are_those_of_a_slow_reader(make_session, make_oracle):
    session = make_session()
    oracle = make_oracle(session.manifest, session.catalyst)
    ids = session.encode(TEXT[:60])
    session.feed(ids[:10])
    (token,) = session.generate_ids(max_new_tokens=1, eos=[])  # not read yet
    found = session.nll(ids[10:])
    oracle.read([*ids[:10], token, *ids[10:]])
    assert session.stats().cycles == oracle.cycles > 2
    np.testing.assert_allclose(found, oracle.nll[11:], atol=2e-4)
    session.reset()
    assert session.nll(ids[:3])[0] == np.float32(1e30), "nothing predicts the first token"


def test_cache_is_allocated_once_and_never_passed(make_session):
    session = make_session()

    def addresses():
        arrays = session._executor.buffers.arrays
        return {array.ctypes.data for name, array in arrays.items() if "key" in name}

    before, highest = addresses(), 0

    def watch(progress):
        nonlocal highest
        highest = max(highest, progress.used)

    session.feed(TEXT * 3, progress=watch)
    assert highest == 32 - 8  # capacity without what is reserved for the catalyst
    assert addresses() == before
    assert len(before) == 3, "two layers and a spare one"


def test_no_logits_where_nobody_reads_them(make_session):
    session = make_session()
    session.feed("a" * 20)
    assert session.engine.calls == ["step 5"] * 4
    next(session.generate_ids())
    assert session.engine.calls[4:] == ["head"]


def test_a_last_cycle_is_told_how_many_tokens_follow_it(make_session):
    """24 entries fit, a cycle keeps 12: of 40 tokens 16 follow the first cycle, 4 the second."""
    session = make_session()
    session.feed("a" * 40, last=True)
    assert session.engine.lefts == [-1, -1, 4, 4], "each cycle, of two layers"
    session.reset()
    session.engine.lefts.clear()
    session.feed("a" * 40)
    assert session.engine.lefts == [-1] * 4


def test_protected_prefix_survives_every_cycle(make_session, make_oracle):
    session = make_session()
    with pytest.raises(CacheError, match=r"9 \+ 3 = 12\) must be smaller than budget \(12\)"):
        session.feed("rule: abc", protect=True)
    assert session.tokens == 0
    session.feed("rule: ab", protect=True)
    session.feed(TEXT)
    oracle = make_oracle(session.manifest, session.catalyst, prefix=8)
    oracle.read(session.encode("rule: ab" + TEXT))
    for layer in range(2):
        assert session.kept_tokens(layer)[:, :8].tolist() == [list(range(8))] * 2
        assert session.kept_tokens(layer).tolist() == oracle.kept(layer)


@pytest.mark.parametrize("stops", ["returns False", "raises", "asked before"])
def test_a_stopped_feed_can_go_on(make_session, stops):
    whole, session = make_session(), make_session()
    ids = session.encode(TEXT)
    whole.feed(ids)
    steps = itertools.count()

    def progress(now):
        if next(steps) == 9:
            if stops == "raises":
                raise KeyboardInterrupt
            return False
        return True

    if stops == "raises":
        with pytest.raises(KeyboardInterrupt):
            session.feed(ids, progress=progress)
    elif stops == "asked before":
        session.feed(ids, stop=lambda: next(steps) == 9)
    else:
        session.feed(ids, progress=progress)
    assert 0 < session.tokens < len(ids)
    session.feed(ids[session.tokens :])
    assert session.tokens == len(ids)
    assert session.kept_tokens(0).tolist() == whole.kept_tokens(0).tolist()
    assert (session.next_logits() == whole.next_logits()).all()


@pytest.fixture
def hears_ctrl_c():
    """Background jobs of a shell ignore it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_waits_for_the_end_of_a_step(make_session):
    session, whole = make_session(), make_session()
    ids = session.encode(TEXT)
    # in the middle of the first layer's eviction
    session.engine.before_evict = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        session.feed(ids)
    session.engine.before_evict = lambda: None
    assert session.used == 12  # the cycle was finished
    session.feed(ids[session.tokens :])
    whole.feed(ids)
    assert session.kept_tokens(1).tolist() == whole.kept_tokens(1).tolist()
    assert (session.next_logits() == whole.next_logits()).all()


def test_a_cycle_that_fails_half_way_is_not_hidden(make_session):
    session = make_session()
    session.engine.fail_in = "evict"
    with pytest.raises(RuntimeError, match="out of order"):
        session.feed(TEXT)
    session.engine.fail_in = None
    for call in (lambda: session.feed("x"), lambda: next(session.generate_ids())):
        with pytest.raises(CacheError, match=r"reset\(\) the session"):
            call()
    session.reset()
    assert session.feed("x") == 1


def test_a_step_that_fails_changes_nothing(make_session):
    session, other = make_session(), make_session()
    session.feed("abc")
    session.engine.fail_in = "step"
    with pytest.raises(RuntimeError):
        session.feed("defgh")
    session.engine.fail_in = None
    assert session.tokens == 3
    session.feed("defgh")
    other.feed("abcdefgh")
    assert session.next_logits() == pytest.approx(other.next_logits())


def test_leaving_the_loop_keeps_what_was_given_out(make_session):
    session, other = make_session(), make_session()
    session.feed("once upon")
    given: list[int] = []
    for token in session.generate_ids(eos=[]):
        given.append(token)
        if len(given) == 5:
            break
    assert session.tokens == 9 + 5
    other.feed([*other.encode("once upon"), *given])
    assert next(session.generate_ids()) == next(other.generate_ids())


def test_rewind(make_session):
    session, other = make_session(), make_session()
    session.feed("abcdefgh")
    list(session.generate_ids(max_new_tokens=4, eos=[]))
    session.rewind(7)
    other.feed("abcde")
    assert session.tokens == 5
    assert session.next_logits() == pytest.approx(other.next_logits(), abs=1e-5)
    session.feed(TEXT)
    other.feed(TEXT)
    assert session.kept_tokens(0).tolist() == other.kept_tokens(0).tolist()
    session.rewind(len(session._executor.since_cycle))  # to the cycle, and no further
    assert session.used == 12
    session.next_logits()
    with pytest.raises(CacheError, match=r"rewind\(1\): 0 tokens were read since the last cycle"):
        session.rewind(1)


def test_rewind_to_the_beginning(make_session):
    session = make_session()
    session.feed("abc")
    session.rewind(3)
    assert (session.tokens, session.used) == (0, 0)
    with pytest.raises(CacheError, match="nothing was read yet"):
        session.generate_ids()


def test_rewound_tokens_leave_no_trace(make_session, make_oracle):
    session = make_session()
    ids = session.encode(TEXT)
    session.feed([*ids[:15], 1, 2, 3])
    session.rewind(3)
    session.feed(ids[15:])
    oracle = make_oracle(session.manifest, session.catalyst)
    oracle.read(ids)
    assert session.kept_tokens(1).tolist() == oracle.kept(1)


def test_a_rewind_reaches_every_part(make_session):
    """Tokens, those given out and not read yet, and the conversation."""
    session = make_session(capacity=256)
    list(session.chat([{"role": "user", "content": "Hello"}], max_new_tokens=3))
    held = session.tokens
    assert session._reader.pending
    session.rewind(2)
    assert session.tokens == held - 2
    assert not session._reader.pending
    assert session._talk.conversation is None


def test_catalyst_at_run_time(make_session, make_oracle):
    session = make_session()
    session.catalyst = "why?"
    ids = session.encode(TEXT)
    session.feed(ids)
    oracle = make_oracle(session.manifest, list(b"why?"))
    oracle.read(ids)
    assert session.kept_tokens(0).tolist() == oracle.kept(0)
    default = make_session()
    default.feed(ids)
    assert default.kept_tokens(0).tolist() != oracle.kept(0)
    once = make_session()
    once.feed(ids, catalyst=list(b"why?"))
    assert once.kept_tokens(0).tolist() == oracle.kept(0)
    assert once.catalyst == list(b"sum up")


def test_catalyst_that_cannot_be(make_session):
    session = make_session()
    with pytest.raises(CacheError, match="has 9 tokens, catalyst_size is 8"):
        session.catalyst = "123456789"
    with pytest.raises(ConfigError, match="catalyst is empty"):
        session.catalyst = ""
    assert session.catalyst == list(b"sum up")
    with pytest.raises(ConfigError, match="reads no catalyst prompt"):
        make_session(catalyst=None).catalyst = "why?"
    with pytest.raises(ArtifactError, match="the catalyst has 11 ids, reserved are 8 slots"):
        make_session(catalyst="hello there")


def test_on_cycle_sees_what_survived(make_session):
    session = make_session()
    seen = []
    session.on_cycle = lambda cycle: seen.append((cycle.tokens, session.kept_tokens(0)))
    session.feed(TEXT)
    assert [tokens for tokens, _ in seen] == [cycle.tokens for cycle in session.cycles]
    assert seen[0][0] == 24
    assert all(kept.shape == (2, 12) for _, kept in seen)
    assert all((kept[:, -3:] == [n - 3, n - 2, n - 1]).all() for n, kept in seen)


def test_distill(make_session):
    session = make_session()
    session.feed("a" * 20)
    session.distill()
    assert (session.used, len(session.cycles)) == (12, 1)
    session.distill()
    assert len(session.cycles) == 1


def test_policy_none_ends_where_the_cache_does(make_session):
    session = make_session(evicts=False)
    session.feed("a" * 32)
    with pytest.raises(CacheError, match="the cache is full: 32 entries in 32 slots"):
        session.feed("b")
    assert session.tokens == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "text is empty"),
        ([], "text is empty"),
        (b"bytes", "text is bytes, wanted str or a list of token ids"),
        (None, "text is NoneType, wanted str"),
        ([1.5], "text is list, wanted str"),
        ([[1]], "text is list, wanted str"),
        ([[1], [2, 3]], "text is list, wanted str or a list of token ids"),
        ([5, 260], "token 1 is 260, wanted 0 to 259"),
        ([-1], "token 0 is -1"),
    ],
)
def test_what_cannot_be_fed(make_session, text, message):
    session = make_session()
    with pytest.raises(ConfigError, match=message):
        session.feed(text)
    assert session.tokens == 0


def test_a_token_that_the_model_does_not_know_is_named(make_session):
    session = make_session()
    session.tokenizer.codec.backend.add_tokens(["zebra"])
    session.feed("a horse")
    with pytest.raises(ConfigError, match="text: 'zebra' is token 260, the model knows 0 to 259"):
        session.feed("a zebra")
    assert session.tokens == 7
    for token in (-1, 260):
        with pytest.raises(ConfigError, match=f"ids: {token} is no token, wanted 0 to 259"):
            session.decode([7, token])


def test_looking_ahead_does_not_move_the_progress() -> None:
    parts = iter([([1, 2, 3, 4], 0.4), ([5, 6], 0.5), ([7, 8, 9, 10], 1.0)])
    queue = TokenQueue(parts, [0])
    assert queue.peek(20) == list(range(11))
    fractions = []
    while queue.peek(3):
        queue.take(len(queue.peek(3)))
        fractions.append(queue.fraction)
    assert fractions == pytest.approx([0.2, 0.45, 0.75, 1.0])


def test_progress_and_stats(make_session):
    session = make_session()
    seen = []
    session.feed(TEXT, progress=seen.append)
    assert [p.fraction for p in seen] == sorted(p.fraction for p in seen)
    assert seen[-1].fraction == 1.0
    assert seen[0].fraction == pytest.approx(5 / len(TEXT))
    assert (seen[-1].tokens, seen[-1].cycles) == (len(TEXT), len(session.cycles))
    list(session.generate_ids(max_new_tokens=3, eos=[]))
    stats = session.stats()
    assert (stats.prefill_tokens, stats.decode_tokens) == (len(TEXT), 2)  # the first costs no step
    assert (stats.tokens, stats.capacity) == (len(TEXT) + 3, 32)
    assert stats.first_token_seconds > 0
    assert stats.decode_seconds > 0
    # ids, states, nll, logits; three layers of keys, values, positions; attention, queries of two
    cache = 8 * 37 + 4 * 6 * (8 + 1) + 4 * 260 + 3 * 32 * 2 * (2 * 4 * 4 + 8) + 2 * 32 * 2 * 4
    assert stats.cache_bytes == cache + 2 * 5 * 4 * 4 * 4
    rows = 2 * 2 * 2 * 4 * 4 * session.used + 2 * 2 * 8 * 12 + 8 * (session.used - 12)
    assert stats.held_bytes == rows + 4 * 6 * 8
    assert stats.peak_rss_bytes > 10_000_000
    assert stats.to_dict()["decode_tokens_per_second"] == 2 / stats.decode_seconds
    assert "entries for" in str(stats)
    half = make_session(name="half.lcc", dtype="float16")
    assert half.stats().cache_bytes == stats.cache_bytes - 3 * 32 * 2 * 2 * 4 * 2


def test_the_end_is_part_of_the_session(make_session, monkeypatch):
    session = make_session()
    session.feed("abc")
    first = next(session.generate_ids())
    session.reset()
    session.feed("abc")
    assert list(session.generate_ids(eos=first, max_new_tokens=9)) == [first]
    assert session.tokens == 4
    session.reset()
    assert "".join(session.generate("abc", eos=[first], max_new_tokens=9)) == ""
    for eos in (np.int64(first), np.array([first])):
        session.reset()
        assert list(session.generate_ids("abc", eos=eos, max_new_tokens=9)) == [first]
    for eos in ("text", "", ["text"], [1.5], iter([first]), np.array(first)):
        with pytest.raises(ConfigError, match=r"eos is .*, wanted token ids; a text goes to stop"):
            session.generate_ids("abc", eos=eos)
    with pytest.raises(ConfigError, match=r"max_new_tokens is 2.5, wanted a whole number, 1"):
        session.generate_ids("abc", max_new_tokens=2.5)
    assert "".join(session.generate("abc", stop=None, eos=[], max_new_tokens=3))
    assert END != first


def test_an_old_loop_cannot_go_on_behind_a_new_one(make_session):
    session = make_session()
    old = session.generate_ids("abc", eos=[])
    next(old)
    session.feed("d")
    with pytest.raises(CacheError, match="another call has moved the session"):
        next(old)


@pytest.mark.parametrize("hook", ["progress", "stop", "on_cycle"])
@pytest.mark.parametrize("call", ["generate", "feed", "reset", "rewind", "next_logits"])
def test_a_feed_cannot_go_on_behind_another_call(make_session, hook, call):
    session = make_session()
    ids = session.encode(TEXT)
    moved = []

    def move(*_):
        if moved or (hook != "on_cycle" and session.tokens < 10):
            return
        moves = {
            "generate": lambda: list(session.generate_ids(max_new_tokens=2, eos=[])),
            "feed": lambda: session.feed("xyz"),
            "reset": session.reset,
            "rewind": lambda: session.rewind(min(2, session.rewindable)),
            "next_logits": session.next_logits,
        }
        moves[call]()
        moved.append((session.tokens, session.stats().prefill_tokens))

    options = {hook: move} if hook != "on_cycle" else {}
    if hook == "on_cycle":
        session.feed("a" * 24)
        next(session.generate_ids(eos=[]))  # pending: the next feed begins with a cycle
        session.on_cycle = move
    if call == "next_logits" and hook != "on_cycle":
        session.feed(ids, **options)  # nothing was pending: it moves nothing
        assert session.tokens == len(ids)
        return
    with pytest.raises(CacheError, match="another call has moved the session; begin a new feed"):
        session.feed(ids, **options)
    assert [(session.tokens, session.stats().prefill_tokens)] == moved, "all of it is held"
    session.on_cycle = None
    session.feed(ids)
    assert session.tokens == moved[0][0] + len(ids)


@pytest.mark.parametrize("call", ["feed", "generate"])
def test_an_answer_cannot_go_on_behind_another_call(make_session, call):
    """Whether in a loop of ids, or while a message is read."""
    session = make_session()
    held = []

    def move(cycle):
        session.on_cycle = None
        if call == "feed":
            session.feed("x")
        else:
            list(session.generate_ids(max_new_tokens=2, eos=[]))
        held.append(session.tokens)

    session.feed("a" * 24)
    session.on_cycle = move
    with pytest.raises(CacheError, match="another call has moved the session"):
        list(session.generate_ids(max_new_tokens=20, eos=[]))
    assert [session.tokens] == held
    session.feed("a" * (24 - session.used))
    session.on_cycle = move
    with pytest.raises(CacheError, match="another call has moved the session"):
        list(session.generate("Hello", chat=True))
    assert [session.tokens] == held[1:], "what the other call read is not taken back"


def test_options_are_checked_at_once(make_session):
    session = make_session()
    for options, message in (
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1}, "temperature is -1"),
        ({"top_p": 0.9}, "the answer is greedy"),
    ):
        with pytest.raises(ConfigError, match=message):
            session.generate("abc", **options)
    talk = [{"role": "user", "content": "Hello"}]
    for stop in (5, [5], b"x", ["a", None], iter("ab")):
        for ask in (session.generate, partial(session.generate, chat=True), session.chat):
            with pytest.raises(ConfigError, match=r"stop is .*, wanted text or a list of texts"):
                ask(talk if ask == session.chat else "abc", stop=stop)
    with pytest.raises(ConfigError, match="prompt is empty"):
        session.generate("")
    with pytest.raises(CacheError, match="nothing was read yet"):
        session.generate()


def test_defaults_come_from_the_generation_config(make_session):
    drawn = make_session(generation={"do_sample": True, "temperature": 3.0, "max_new_tokens": 7})
    a = list(drawn.generate_ids("abc", seed=1, eos=[]))
    drawn.reset()
    assert a == list(drawn.generate_ids("abc", seed=1, eos=[]))
    assert len(a) == 7
    drawn.reset()
    greedy = list(drawn.generate_ids("abc", temperature=0, eos=[]))
    assert greedy == list(make_session().generate_ids("abc", max_new_tokens=7, eos=[]))
    assert a != greedy
