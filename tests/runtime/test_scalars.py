import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcc.runtime.noise import noise
from lcc.runtime.recent_queries import RecentQueries


def surprise_of(logits: np.ndarray, token: int) -> float:
    return float(np.log(np.exp(logits.astype(np.float64)).sum()) - logits[token])


def test_the_first_token_is_more_novel_than_any(make_session):
    session = make_session()
    session.feed("abcdef")
    session._executor.find_novelty()
    values = session._executor.cache.scalar("novelty", 0)[0, :6]
    assert values[0] == np.float32(1e30)
    assert 0 < values[1:].min() <= values[1:].max() < 100


@pytest.mark.parametrize("scalars", [("attention",), ("attention", "novelty")])
def test_surprise_is_of_each_token_given_those_before(make_session, scalars):
    session = make_session(scalars=scalars)
    session.feed("abcdef")
    ids = session.encode("ghijklmnopqrstuvwxyz" * 2)
    state, wanted = make_session(scalars=scalars), []
    state.feed("abcdef")
    for token in ids:
        wanted.append(surprise_of(state.next_logits(), token))
        state.feed([token])
    assert session.surprise(ids) == pytest.approx(wanted, rel=1e-4)
    assert len(session.cycles) == len(state.cycles) > 1
    np.testing.assert_allclose(session.next_logits(), state.next_logits(), atol=1e-4)
    session.feed("a")
    assert session._executor.surprise is None


def test_novelty_is_found_where_a_cycle_or_a_file_needs_it(make_session, tmp_path):
    session, ids = make_session(), list(b"the quick brown fox jumps")
    session.feed(ids[:20])
    session.rewind(3)
    session.feed(ids[17:22])
    next(session.generate_ids(eos=[]))
    assert session.engine.calls.count("head") == 1  # for the token's logits
    session.save(tmp_path / "a")
    assert session.engine.calls.count("head") == 2
    session.save(tmp_path / "b")
    session.distill()
    assert session.engine.calls.count("head") == 3  # of the token that was generated
    session.feed(ids)
    assert session.engine.calls.count("head") == 5  # with two cycles on the way
    other = make_session()
    other.surprise(ids[:10])
    other.save(tmp_path / "c")
    assert other.engine.calls.count("head") == 2  # of two chunks; it was known then


def test_novelty_is_minus_log_probability(make_session):
    session, other = make_session(), make_session()
    ids = list(b"hello, world. ")
    session.feed([*ids[:9], 1, 2])
    session._executor.find_novelty()  # of two tokens too many
    session.rewind(2)
    session.feed(ids[9:])
    session._executor.find_novelty()
    wanted = []
    for token in ids[:-1]:
        other.feed([token])
        wanted.append(other.next_logits())
    wanted = [surprise_of(row, token) for row, token in zip(wanted, ids[1:], strict=True)]
    novelty = session._executor.cache.scalar("novelty", 1)[:, : len(ids)]
    assert (novelty[0] == novelty[1]).all()
    assert novelty[0, 1:] == pytest.approx(wanted, rel=1e-4)


def test_noise_is_of_the_token_and_uniform():
    whole = noise(3, 2, 2, 0, 5000)
    assert whole.dtype == np.float32
    parts = [noise(3, 2, 2, 0, 17), noise(3, 2, 2, 17, 4983)]
    assert (np.concatenate(parts, axis=2) == whole).all()
    assert (noise(4, 2, 2, 0, 5000) != whole).mean() > 0.99
    assert 0 <= whole.min() < whole.max() < 1
    histogram = np.histogram(whole, 10, (0, 1))[0] / whole.size
    assert histogram == pytest.approx([0.1] * 10, abs=0.01)
    rows = whole.reshape(4, -1)
    assert np.abs(np.corrcoef(rows) - np.eye(4)).max() < 0.05
    assert abs(np.corrcoef(rows[0, :-1], rows[0, 1:])[0, 1]) < 0.05


@given(st.lists(st.tuples(st.sampled_from(["append", "drop"]), st.integers(1, 150)), max_size=30))
def test_recent_queries_are_the_newest(steps):
    recent, newest, number = RecentQueries({4: (2, 3)}), [], 0
    for what, count in steps:
        if what == "append":
            rows = np.arange(number, number + count, dtype=np.float32)
            recent.append({4: np.broadcast_to(rows[None, :, None], (2, count, 3))})
            newest, number = (newest + rows.tolist())[-64:], number + count
        else:
            recent.drop(count)
            newest = newest[: max(len(newest) - count, 0)]
        assert recent.count == len(newest)
        assert recent.get(4).shape == (2, len(newest), 3)
        assert recent.get(4)[1, :, 2].tolist() == newest
    recent.clear()
    assert recent.get(4).shape == (2, 0, 3)
