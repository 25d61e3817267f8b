"""Recalls of the native runtime: what comes back is what comes back in Python."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lcc.runtime
from lcc.errors import ArchiveError
from lcc.runtime.model import Model
from lcc.runtime.session import Session
from lcc.runtime.text.writing import GREEDY
from lcc.testing.native_library import onnx_runtime_library
from lcc.testing.native_session import LibraryError, NativeModel, NativeSession, library_in

TEXT = [
    46 if i % 9 == 8 else token  # a full stop ends a sentence
    for i, token in enumerate(np.random.default_rng(0).integers(60, 120, 300).tolist())
]
QUESTIONS = (TEXT[100:106], TEXT[20:31], TEXT[200:203])
DTYPES = ("float16", "float32", "int8")


@pytest.fixture(scope="module")
def artifact(golden_artifact: Any) -> Path:
    """Capacity 96, budget 40: most of the text is evicted."""
    return golden_artifact("consensus")


@pytest.fixture(scope="module")
def model(artifact: Path) -> Model:
    return lcc.runtime.load(artifact)


@pytest.fixture(scope="module")
def native(artifact: Path, native_build: Path) -> Iterator[NativeModel]:
    made = library_in(native_build).open(artifact, onnx_runtime_library())
    yield made
    made.close()


def words(session: Session, prompt: list[int], **options: bool) -> list[int]:
    how = {"eos": [], "max_new_tokens": 6, **GREEDY}
    return list(session.generate_ids(prompt, **how, **options))  # type: ignore[arg-type]


def same(one: NativeSession, other: Session, *paths: Path) -> None:
    """Both hold the same entries, and their archives the same rows."""
    assert (one.kept(0) == other.kept_tokens(0)).all()
    ours, theirs = one.stats(), other.stats()
    for name in ("tokens", "archive_rows", "archive_bytes"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.recalled == (-1 if theirs.recalled is None else theirs.recalled)
    assert ours.archive_stopped is None
    if paths:
        assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_questions_bring_back_what_they_bring_back_in_python(
    native: NativeModel, model: Model, tmp_path: Path, dtype: str
) -> None:
    paths = tmp_path / "one", tmp_path / "other"
    one, other = (
        native.session(paths[0], dtype),
        model.session(archive=paths[1], archive_dtype=dtype),
    )
    for each in (one, other):
        each.feed(TEXT[:250])
    same(one, other, *paths)
    for i, question in enumerate(QUESTIONS):
        recall = i != 1
        answer = list(one.ids(question, 6, recall=recall))
        assert answer == words(other, question, recall=recall)
        assert one.stats().recalled > 0
        same(one, other, *paths)
    for each in (one, other):
        each.feed(TEXT[250:])
    assert list(one.ids(QUESTIONS[0], 6)) == words(other, QUESTIONS[0])
    same(one, other, *paths)
    for each in (one, other):
        each.reset()
    same(one, other, *paths)
    for each in (one, other):
        each.feed(TEXT[:30])
        each.close()


def test_rows_that_were_taken_back_are_overwritten(
    native: NativeModel, model: Model, tmp_path: Path
) -> None:
    """A recall flushes tokens to the archive, and a rewind takes them back."""
    paths = tmp_path / "one", tmp_path / "other"
    one, other = native.session(paths[0]), model.session(archive=paths[1])
    for each in (one, other):
        each.feed(TEXT[:200])
    for question in QUESTIONS:
        assert list(one.ids(question, 3)) == words(other, question)[:3]
        one.rewind(3)
        other.rewind(6)
        same(one, other, *paths)
    one.close()
    other.close()


def test_the_limit_lets_the_oldest_go(native: NativeModel, model: Model, tmp_path: Path) -> None:
    paths, limit = (tmp_path / "one", tmp_path / "other"), 400_000
    one = native.session(paths[0], "float32", limit)
    other = model.session(archive=paths[1], archive_dtype="float32", archive_limit=limit)
    for each in (one, other):
        each.feed(TEXT * 3)
    assert list(one.ids(QUESTIONS[0], 6)) == words(other, QUESTIONS[0])
    assert 0 < one.stats().archive_rows < 900 - 96
    same(one, other, *paths)
    one.close()
    other.close()


@pytest.mark.parametrize("native_saves", [True, False])
def test_states_with_an_archive_go_from_one_to_the_other(
    native: NativeModel, model: Model, tmp_path: Path, native_saves: bool
) -> None:
    """Whoever loads one needs the archive that it was saved with."""
    path, state = tmp_path / "rows", tmp_path / "s.lccstate"

    def opened(here: bool) -> NativeSession | Session:
        return native.session(path) if here else model.session(archive=path)

    def asked(session: NativeSession | Session) -> list[int]:
        if isinstance(session, NativeSession):
            return list(session.ids(QUESTIONS[0], 6))
        return words(session, QUESTIONS[0])

    session = opened(native_saves)
    session.feed(TEXT[:250])
    session.save(state)
    session.close()
    rows = path.read_bytes()
    session = opened(native_saves)
    session.load(state)
    wanted = asked(session)
    session.close()
    path.write_bytes(rows)
    session = opened(not native_saves)
    with pytest.raises((LibraryError, ArchiveError), match="tokens of another text; load the st"):
        session.feed(TEXT[:5])
    session.load(state)
    assert asked(session) == wanted
    session.close()
    path.write_bytes(b"")
    session = opened(not native_saves)
    with pytest.raises((LibraryError, ArchiveError), match="is not there, of the 0 that were"):
        session.load(state)
    session.feed(TEXT[150:250])
    with pytest.raises((LibraryError, ArchiveError), match=r"row [0-9]+ is not there"):
        session.load(state)
    session.close()


def test_a_state_without_an_archive_wants_an_empty_one(
    native: NativeModel, model: Model, tmp_path: Path
) -> None:
    state = tmp_path / "s.lccstate"
    plain = native.session()
    plain.feed(TEXT[:120])
    plain.save(state)
    plain.close()
    paths = tmp_path / "rows", tmp_path / "other"
    session, other = native.session(paths[0]), model.session(archive=paths[1])
    for each in (session, other):
        each.load(state)
    assert session.stats().archive_rows == 0
    assert list(session.ids(QUESTIONS[0], 6)) == words(other, QUESTIONS[0])
    for each in (session, other):
        each.feed(TEXT[120:])
    same(session, other, *paths)
    assert session.stats().archive_rows > 0
    session.close()
    other.close()
    session = native.session(tmp_path / "rows")
    with pytest.raises(LibraryError, match=r"LCC_ERROR_ARCHIVE: .*tokens of another text"):
        session.load(state)
    session.close()


def test_an_archive_in_use_is_refused(native: NativeModel, tmp_path: Path) -> None:
    session = native.session(tmp_path / "rows")
    with pytest.raises(LibraryError, match=r"LCC_ERROR_ARCHIVE: .*another session has it open"):
        native.session(tmp_path / "rows")
    session.close()
    native.session(tmp_path / "rows").close()
    with pytest.raises(LibraryError, match=r"LCC_ERROR_CONFIG: .*archive limit is 9000 bytes"):
        native.session(tmp_path / "other", limit=9000)
