"""A saved state brings back all parts of a session: pending ids, conversation, catalyst."""

import hashlib
import json
from pathlib import Path

import pytest

from lcc.errors import ArtifactError, CacheError, LccError

TEXT = "the cat sat on the mat and the dog ran far away over the hills"


def go_on(session) -> tuple:
    session.feed(", and on and on they went")
    ids = list(session.generate_ids(max_new_tokens=10, eos=[]))
    return ids, session.kept_tokens(0).tolist(), session.kept_tokens(1).tolist(), session.tokens


@pytest.mark.parametrize("catalyst", ["sum up", None])
def test_going_on_from_a_state_is_going_on(make_session, tmp_path, catalyst):
    session = make_session(catalyst=catalyst)
    session.feed(TEXT[:20], prefix=False)
    session.feed(TEXT[20:])
    list(session.generate_ids(max_new_tokens=2, eos=[]))
    assert session._reader.pending, "given out, and not read yet"
    session.save(tmp_path / "a.lccstate")
    other = session.model.session()
    other.feed("something else")
    old = other.generate_ids(eos=[])
    next(old)
    other.load(tmp_path / "a.lccstate")
    with pytest.raises(CacheError, match="another call has moved the session"):
        next(old)
    assert other.tokens == session.tokens == len(TEXT) + 2
    expected = go_on(session)
    assert len(session.cycles) > 2
    assert go_on(other) == expected


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


def test_a_state_that_cannot_be_loaded_changes_nothing(make_session, tmp_path):
    session = make_session(capacity=256)
    list(session.chat([{"role": "user", "content": "Hello"}], max_new_tokens=3))
    session.catalyst = "why?"
    kept = session.tokens, session._reader.pending, session._talk.conversation
    (tmp_path / "a").write_text("no state")
    with pytest.raises(ArtifactError, match="a: "):
        session.load(tmp_path / "a")
    assert (session.tokens, session._reader.pending, session._talk.conversation) == kept
    assert session.catalyst == "why?"


def rewritten(path: Path, **changes: object) -> None:
    """A state file whose notes say something else, with the hash that goes with it."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    page = json.loads(header["__metadata__"]["lcc"])
    page["notes"] |= changes
    header["__metadata__"] = {"sha256": "0" * 64, "lcc": json.dumps(page)}
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    digest = hashlib.sha256(raw + body).hexdigest()
    raw = raw.replace(b"0" * 64, digest.encode(), 1)
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + body)


TOLD = {"size": 3, "digest": "", "turn": 2, "end": 5}
NOTES = {
    "an id below all": ({"pending": [-1]}, r"pending: \[-1\]\.\. are no ids of the model"),
    "an id beyond all": ({"pending": [10**9]}, "are no ids of the model"),
    "more than are ever": ({"pending": [1] * (1 << 17)}, "pending: 131072 ids, wanted 65536 at"),
    "a turn to come": ({"conversation": TOLD | {"turn": 99}}, "turn is 99, wanted 0 to 62"),
    "an end before all": ({"conversation": TOLD | {"end": -5}}, "end is -5, wanted 0 to 62"),
    "a size below all": ({"conversation": TOLD | {"size": -1}}, "size is -1, wanted 0 or more"),
    "a catalyst beyond all": ({"catalyst": [10**9]}, "catalyst: .*1000000000|id 1000000000|token"),
    "a catalyst that is too long": ({"catalyst": "why " * 99}, "the catalyst prompt has"),
    "a field that is none": ({"mood": 3}, "unknown field `mood`"),
}


@pytest.mark.parametrize("name", NOTES)
def test_notes_that_cannot_be_change_nothing(make_session, tmp_path, name):
    session, other = make_session(capacity=256), make_session(capacity=256)
    session.feed(TEXT, prefix=False)
    session.save(path := tmp_path / "a")
    rewritten(path)
    other.load(path)
    other.feed(TEXT)
    before = other.tokens, other._executor.counters, other.catalyst
    changes, words = NOTES[name]
    rewritten(path, **changes)
    with pytest.raises(LccError, match=words) as caught:
        other.load(path)
    assert str(path) in str(caught.value)
    assert (other.tokens, other._executor.counters, other.catalyst) == before
    assert go_on(other)[3] > before[0]
