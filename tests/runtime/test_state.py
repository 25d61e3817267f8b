import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from lcc.errors import ArtifactError, CacheError, ConfigError

TEXT = "the cat sat on the mat and the dog ran far away over the hills"
RULES = {
    "catalyst": {},
    "recent": {"scalars": ("attention",), "queries": "recent"},
    "all": {"scalars": ("attention",), "queries": "all", "memory": 1.0},
    "noise": {"scalars": ("noise",), "queries": None, "positions": "absolute"},
}


def go_on(session) -> tuple:
    session.feed(", and on and on they went")
    ids = list(session.generate_ids(max_new_tokens=10, eos=[]))
    return ids, session.kept_tokens(0).tolist(), session.kept_tokens(1).tolist(), session.tokens


@pytest.mark.parametrize("rule", RULES)
def test_going_on_from_a_state_is_going_on(make_session, tmp_path, rule):
    session = make_session(**RULES[rule])
    session.feed(TEXT[:20], prefix=False)
    session.feed(TEXT[20:])
    list(session.generate_ids(max_new_tokens=2, eos=[]))
    session.save(tmp_path / "a.lccstate")
    other = make_session(**RULES[rule])
    other.feed("something else")
    other.load(tmp_path / "a.lccstate")
    assert other.tokens == session.tokens == len(TEXT) + 2
    expected = go_on(session)
    assert len(session.cycles) > 2
    assert go_on(other) == expected
    assert [path.name for path in tmp_path.glob("*.partial")] == []


@pytest.mark.parametrize("catalyst", ["why?", list(b"why?"), "beginning"], ids=str)
def test_the_catalyst_goes_on(make_session, tmp_path, catalyst):
    session, other = make_session(), make_session()
    session.catalyst = catalyst
    session.feed(TEXT[:20])
    session.save(tmp_path / "a")
    other.load(tmp_path / "a")
    assert other.catalyst == catalyst
    assert go_on(other) == go_on(session)
    for each in (session, other):
        each.load(tmp_path / "a")
    other.catalyst = "sum up"  # said after loading, it counts
    assert go_on(other)[1:3] != go_on(session)[1:3]


def test_state_holds_used_rows_only(make_session, tmp_path):
    session = make_session()
    session.feed("abcdef")
    session.save(tmp_path / "six")
    session.save(tmp_path / "half", dtype="float16")
    session.feed("g")
    session.save(tmp_path / "seven")
    with safe_open(tmp_path / "six", framework="numpy") as file:
        assert file.get_tensor("key_0").shape == (2, 6, 4)
        assert (file.get_tensor("token_index_1") == range(6)).all()
        key = file.get_tensor("key_1")
    with safe_open(tmp_path / "half", framework="numpy") as file:
        assert (file.get_tensor("key_1") == key.astype(np.float16)).all()
        assert file.get_tensor("novelty_0").dtype == np.float32
    a, b = (
        (tmp_path / name).stat().st_size
        - int.from_bytes((tmp_path / name).read_bytes()[:8], "little")
        for name in ("six", "seven")
    )
    assert b - a == 2 * 2 * (2 * 4 * 4 + 8 + 2 * 4) + 8  # one more entry, and its id


def test_float16_goes_on_nearly(make_session, tmp_path):
    session = make_session()
    session.feed(TEXT)
    session.save(tmp_path / "half", dtype="float16")
    other = make_session()
    other.load(tmp_path / "half")
    session.feed("x")
    other.feed("x")
    a, b = session._executor.logits(), other._executor.logits()
    assert np.abs(a - b).max() < 0.05
    assert (a != b).any()


def test_a_cache_in_float16_is_saved_as_it_is(make_session, tmp_path):
    session, other = make_session(dtype="float16"), make_session(dtype="float16")
    session.feed(TEXT)
    session.save(tmp_path / "a")
    session.save(tmp_path / "wide", dtype="float32")
    with safe_open(tmp_path / "a", framework="numpy") as file:
        assert file.get_tensor("value_1").dtype == np.float16
        assert file.get_tensor("hidden").dtype == np.float32
    expected = go_on(session)
    for name in ("a", "wide"):
        other.load(tmp_path / name)
        assert go_on(other) == expected
    exact = make_session()
    exact.load(tmp_path / "a")  # of a target that keeps more of each number
    assert exact._executor.cache.keys[0].dtype == np.float32
    exact._executor.cache.values[1][0, 1, 3] = -7e4
    exact.save(tmp_path / "large")
    tokens = other.tokens
    with pytest.raises(
        ConfigError, match=r"value_1 holds 7e\+04, .* in float16, up to 65504; load"
    ):
        other.load(tmp_path / "large")
    assert other.tokens == tokens


def test_numbers_beyond_float16(make_session, tmp_path):
    session = make_session()
    session.feed("abc")
    session._executor.cache.keys[1][:] = 1e6
    with pytest.raises(ConfigError, match="key_1 holds numbers too large for float16; save with"):
        session.save(tmp_path / "half", dtype="float16")
    with pytest.raises(ConfigError, match='dtype is "int8"'):
        session.save(tmp_path / "half", dtype="int8")
    assert not list(tmp_path.glob("*half*"))


def test_save_after_a_rewind(make_session, tmp_path):
    session, other = make_session(), make_session()
    session.feed("abcdef")
    session.rewind(2)
    session.save(tmp_path / "a")
    other.load(tmp_path / "a")
    assert go_on(other) == go_on(session)


def test_save_right_after_a_cycle(make_session, tmp_path):
    session, other = make_session(), make_session()
    session.feed("a" * 20)
    session.distill()
    session.save(tmp_path / "a")
    other.load(tmp_path / "a")
    assert other._executor.since_cycle == []  # so the last hidden state has to be in the file
    assert next(other.generate_ids(eos=[])) == next(session.generate_ids(eos=[]))
    other.feed("b")
    other.rewind(2)
    assert other._executor.logits() == pytest.approx(session._executor.logits(), abs=1e-5)


def test_a_chat_goes_on(make_session, tmp_path):
    session, other = make_session(capacity=256), make_session(capacity=256)
    talk = [{"role": "user", "content": "Hello"}]
    answer = "".join(session.chat(talk, max_new_tokens=3))
    session.save(tmp_path / "a")
    other.load(tmp_path / "a")
    before = other.tokens
    talk += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Bye"}]
    list(other.chat(talk, max_new_tokens=1))
    new = "E\nSuser\nByeE\nSassistant\n"  # S and E: the special tokens
    assert other.tokens - before == len(new) + 1


def broken_page(source, target, **changes) -> None:
    with safe_open(source, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        page = json.loads(file.metadata()["lcc"]) | changes
    for name in [name for name in tensors if name in changes]:
        tensors[name] = changes[name]
        del page[name]
    save_file(tensors, target, {"lcc": json.dumps(page)})


def test_what_is_no_state_of_this_artifact(make_session, tmp_path):
    session = make_session()
    session.feed(TEXT)
    expected = list(session.generate_ids(max_new_tokens=3, eos=[]))
    session.rewind(3)
    path = tmp_path / "a.lccstate"
    session.save(path)
    data = path.read_bytes()
    (tmp_path / "cut").write_bytes(data[:-1])
    (tmp_path / "cut early").write_bytes(data[:100])
    (tmp_path / "empty").write_bytes(b"")
    save_file({"x": np.zeros(3)}, tmp_path / "other file")
    broken_page(path, tmp_path / "newer", version=6)
    broken_page(path, tmp_path / "older", version=4)
    broken_page(path, tmp_path / "shape", key_1=np.zeros((2, 3, 4), np.float32))
    broken_page(path, tmp_path / "page", used="many")
    flipped = bytearray(data)
    flipped[-5] ^= 1
    (tmp_path / "flipped").write_bytes(flipped)
    make_session(name="other.lcc", sink_size=1).save(tmp_path / "other artifact")
    for name, message in {
        "missing": "No such file|not a whole state file",
        "cut": "cut: not a whole state file",
        "cut early": "cut early: not a whole state file",
        "empty": "empty: not a whole state file",
        "other file": "no state of a session",
        "newer": "version 6, this lcc reads version 5",
        "older": "version 4, this lcc reads version 5",
        "shape": r"key_1 is \[2, 3, 4\], wanted \[2, \d+, 4\]",
        "page": "damaged: Expected `int`, got `str`",
        "flipped": "sha256 differs",
        "other artifact": "made with another artifact",
    }.items():
        with pytest.raises(ArtifactError, match=message):
            session.load(tmp_path / name)
    # None of them touched what the session held.
    assert list(session.generate_ids(max_new_tokens=3, eos=[])) == expected


def test_where_nothing_can_be_written(make_session, tmp_path):
    session = make_session()
    session.feed(TEXT)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "none/a", tmp_path / "folder", tmp_path / "file/a"):
        with pytest.raises(ArtifactError, match=f"{place.name}: cannot be written: "):
            session.save(place)
    assert not any(path.name.endswith(".partial") for path in tmp_path.iterdir())


def test_a_protected_prefix_that_a_smaller_budget_cannot_keep(make_session, tmp_path):
    session = make_session()
    session.feed("a" * 7, protect=True)
    session.save(tmp_path / "a")
    small = make_session(load={"budget": 8})
    with pytest.raises(CacheError, match="protect less text or raise the budget"):
        small.load(tmp_path / "a")
    assert small.tokens == 0


def test_more_entries_than_slots(make_session, tmp_path):
    session = make_session()
    session.feed("a" * 23)
    session.save(tmp_path / "a")
    small = make_session(load={"capacity": 30})
    with pytest.raises(CacheError, match="23 entries, this session has room for 22"):
        small.load(tmp_path / "a")
    session.distill()
    session.save(tmp_path / "a")
    small.load(tmp_path / "a")
    assert small.used == 12
