"""Texts whose evicted tokens come back: on every target that has cycles, against loops."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import lcc.runtime
from lcc.artifact.manifest import read_manifest
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import ArchiveError, ArtifactError, CacheError, ConfigError
from lcc.runtime.archive import rows
from lcc.runtime.model import Model
from lcc.runtime.session import Session
from lcc.runtime.text.writing import GREEDY
from lcc.sources.heads import save_heads
from lcc.targets import missing
from lcc.targets.reference import open_engine
from lcc.testing.oracles import rotate
from lcc.testing.recall import Archived, choose, votes
from lcc.testing.tiny import random_heads, save_tiny, tiny_model

CACHE = CacheConfig(
    capacity=96, budget=48, chunk_size=16, catalyst_size=8, sink_size=4, recent_size=6
)
LAYERS, SIZE = 3, 16
FREQUENCIES = [10000.0 ** (-2 * i / SIZE) for i in range(SIZE // 2)]
TEXT = [
    46 if i % 9 == 8 else token  # a full stop ends a sentence
    for i, token in enumerate(np.random.default_rng(0).integers(60, 120, 300).tolist())
]
QUESTION = TEXT[100:106]
TARGETS = ("reference", "onnxruntime:cpu", "tvm:cpu")


def compiled(
    folder: Path,
    target: str,
    policy: str = "consensus",
    heads: bool = False,
    architecture: str = "llama",
    layers: int = LAYERS,
) -> Model:
    save_tiny(folder / "model", architecture, num_hidden_layers=layers)
    path = None
    if heads:
        path = folder / "heads.safetensors"
        model = tiny_model("llama", num_hidden_layers=LAYERS)
        save_heads(path, random_heads(model))
    config = CompileConfig(target=target, cache=CACHE, policy=PolicyConfig(name=policy), heads=path)
    compile_model(folder / "model", folder / "model.lcc", config)
    engine = None
    if target == "reference":
        engine = open_engine(folder / "model.lcc", read_manifest(folder / "model.lcc"))
    return lcc.runtime.load(folder / "model.lcc", engine=engine, allow_native=True)


@pytest.fixture(scope="module", params=TARGETS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    if request.param in TARGETS[1:] and (lacks := missing(request.param)):
        pytest.skip(lacks)
    return compiled(tmp_path_factory.mktemp("recall"), request.param)


@pytest.fixture
def session(model: Model, tmp_path: Path) -> Iterator[Session]:
    made = model.session(archive=tmp_path / "a.lccarchive", archive_dtype="float32")
    yield made
    made.close()


def words(session: Session, prompt: list[int], **options: bool) -> list[int]:
    how = {"eos": [], "max_new_tokens": 6, **GREEDY}
    return list(session.generate_ids(prompt, **how, **options))  # type: ignore[arg-type]


def rows_of(session: Session) -> list[Archived]:
    """What the archive holds, of the layers that vote."""
    positions, sentences = column(session, "position"), column(session, "sentence")
    keys = [column(session, f"key_{i}").tolist() for i in voting(session)]
    return [
        Archived(int(positions[r]), int(sentences[r]), [k[r] for k in keys])
        for r in range(len(positions))
    ]


def column(session: Session, name: str) -> np.ndarray:
    """A column of the archive as a whole, as a recall reads it."""
    executor = session._executor
    archive, spec = executor.archive, next(c for c in session.manifest.archive if c.name == name)
    assert archive is not None
    out = np.zeros([executor.numbers["archived"], *spec.shape], spec.dtype)
    archive.read(name, 0, out)
    return out


def voting(session: Session) -> list[int]:
    names = [spec.name for spec in session.manifest.buffers]
    return [i for i in range(LAYERS) if f"total_{i}" in names]


def test_all_of_an_uncut_text_comes_back_as_it_was(model: Model, tmp_path: Path) -> None:
    """Entries that were archived before anything was lost: the logits are those of a full cache."""
    count = 80
    for dtype, tolerance in (("float32", 1e-4), ("float16", 1e-2), ("int8", 5e-2)):
        session = model.session(archive=tmp_path / dtype, archive_dtype=dtype)
        whole = model.session()
        for each in (session, whole):
            each.feed(TEXT[:count])
        session.distill()
        assert (session.used, session.stats().archive_rows) == (CACHE.budget, count - CACHE.budget)
        give_room_for(session, count)
        recall = session._executor.recall(QUESTION)
        assert recall is not None
        assert (recall.rows, recall.returned, recall.used) == (count, count - CACHE.budget, count)
        assert (session.kept_tokens(0) == np.arange(count)).all()
        for each in (session, whole):
            each.feed(TEXT[count : count + 4])
        wanted = whole.next_logits()
        assert np.abs(session.next_logits() - wanted).max() < tolerance * np.abs(wanted).max()
        session.close()


def test_latents_come_back_as_they_were(tmp_path: Path) -> None:
    """Key and value of an entry are one, in the cache and in the archive."""
    model = compiled(tmp_path, "onnxruntime:cpu", architecture="minicpm3")
    columns = [each.name for each in model.manifest.archive]
    assert [name for name in columns if name[-1].isdigit()] == ["key_0", "key_1", "key_2"]
    test_all_of_an_uncut_text_comes_back_as_it_was(model, tmp_path)


def test_layers_that_carry_a_state_keep_it_while_others_recall(tmp_path: Path) -> None:
    """A question that is run behind the cache moves no state."""
    model = compiled(tmp_path, "onnxruntime:cpu", architecture="lfm2", layers=4)
    test_all_of_an_uncut_text_comes_back_as_it_was(model, tmp_path)
    session = model.session(archive=tmp_path / "a.lccarchive")
    session.feed(TEXT)
    buffers = session._executor.buffers
    names = [name for name, spec in buffers.specs.items() if spec.role == "state"]
    before = [buffers.arrays[name].copy() for name in names]
    recall = session._executor.recall(QUESTION)
    assert names
    assert recall is not None
    assert recall.returned > 0
    for name, array in zip(names, before, strict=True):
        assert np.array_equal(buffers.arrays[name], array), name
    session.close()


def give_room_for(session: Session, count: int) -> None:
    """Let a recall bring back more than a cycle may keep."""
    executor = session._executor
    executor.numbers["budget"] = count
    names = [name for name, spec in executor.buffers.specs.items() if "budget" in spec.shape]
    executor.buffers.grow(names, executor.numbers)
    executor.buffers._grown.clear()


def test_what_comes_back_is_what_the_loops_choose(session: Session) -> None:
    session.feed(TEXT)
    held = session.kept_tokens(0)[0].tolist()
    executor = session._executor
    recall = executor.recall(QUESTION)
    assert recall is not None
    assert recall.rows == len(TEXT) == executor.numbers["archived"]
    start, asked = len(held), []
    for layer in voting(session):
        turned = executor.buffers.rows(f"queries_{layer}", 0, len(QUESTION)).tolist()
        asked.append(
            [
                [rotate(head, -(start + place), FREQUENCIES) for head in token]
                for place, token in enumerate(turned)
            ]
        )
    archived = rows_of(session)
    paid = votes(archived, asked, FREQUENCIES, 1 / math.sqrt(SIZE))
    wanted = choose(
        archived,
        paid,
        budget=CACHE.budget,
        stay=held[: CACHE.sink_size],
        newest=len(TEXT) - CACHE.recent_size,
    )
    wanted = sorted([*held[: CACHE.sink_size], *wanted])
    assert [session.kept_tokens(i).tolist() for i in range(LAYERS)] == [[wanted] * 2] * LAYERS
    assert recall.returned == len(set(wanted) - set(held)) > 0


def test_each_token_is_archived_once_whatever_is_asked(session: Session) -> None:
    session.feed(TEXT[:200])
    for first in (20, 60, 150):
        words(session, TEXT[first : first + 5])
    session.feed(TEXT[200:])
    words(session, QUESTION)
    positions = [row.position for row in rows_of(session)]
    assert len(positions) == len(set(positions))
    assert session.stats().recalls == 4
    assert set(range(session.tokens - 11)) <= set(positions) | set(session.kept_tokens(0)[0])


def test_reading_with_an_archive_keeps_what_reading_without_keeps(
    session: Session, model: Model
) -> None:
    plain = model.session()
    for each in (session, plain):
        each.feed(TEXT)
    assert (session.kept_tokens(2) == plain.kept_tokens(2)).all()
    assert words(session, QUESTION, recall=False) == words(plain, QUESTION)
    assert session.stats().recalls == 0


def test_states_know_how_much_of_the_archive_is_theirs(
    session: Session, model: Model, tmp_path: Path
) -> None:
    session.feed(TEXT[:200])
    session.save(tmp_path / "first")
    first = words(session, QUESTION)
    session.feed(TEXT[200:])
    session.save(tmp_path / "second")
    second = words(session, QUESTION)
    session.close()
    other = model.session(archive=tmp_path / "a.lccarchive", archive_dtype="float32")
    with pytest.raises(ArchiveError, match="another session has it open"):
        model.session(archive=tmp_path / "a.lccarchive", archive_dtype="float32")
    with pytest.raises(ArchiveError, match="tokens of another text; load"):
        other.feed(TEXT)
    for state, wanted in (("second", second), ("second", second), ("first", first)):
        other.load(tmp_path / state)
        assert words(other, QUESTION) == wanted
    with pytest.raises(
        ArchiveError, match=r"row \d+ is not there, of the \d+ that"
    ):  # its rows went when `first` went on
        other.load(tmp_path / "second")
    other.reset()
    other.feed(TEXT[:150])
    assert 0 < (other.stats().archive_rows or 0) < 150
    other.close()


def test_rows_in_8_bits_belong_to_a_state_as_others_do(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "a.lccarchive"
    session = model.session(archive=path, archive_dtype="int8")
    exact = model.session(archive=tmp_path / "b.lccarchive", archive_dtype="float32")
    for each in (session, exact):
        each.feed(TEXT)
    session.save(tmp_path / "state")
    wanted = words(session, QUESTION)
    words(exact, QUESTION)
    assert path.stat().st_size < exact.stats().archive_bytes / 2  # type: ignore[operator]
    for layer in voting(session):
        some = column(session, f"key_{layer}")
        error = np.abs(some - column(exact, f"key_{layer}"))
        assert 0 < error.max() <= np.abs(some).max() / 127
        taken, rows = np.zeros_like(some[:5]), np.array([200, 3, 127, 128, 129])
        session._executor.archive.take(f"key_{layer}", rows, taken)  # type: ignore[union-attr]
        assert (taken == some[rows]).all()
    session.close()
    with pytest.raises(ArchiveError, match=r"keeps key_0 in int8, wanted float16; open it with"):
        model.session(archive=path, archive_dtype="float16")
    again = model.session(archive=path, archive_dtype="int8")
    again.load(tmp_path / "state")
    assert words(again, QUESTION) == wanted
    again.close()


def test_a_state_without_an_archive_goes_on_with_an_empty_one(
    session: Session, model: Model, tmp_path: Path
) -> None:
    plain = model.session()
    plain.feed(TEXT[:200])
    plain.save(tmp_path / "plain")
    session.load(tmp_path / "plain")
    session.feed(TEXT[200:])
    assert len(words(session, QUESTION)) == 6
    positions = {row.position for row in rows_of(session)}
    assert set(range(200, 300)) <= positions
    session.save(tmp_path / "archived")
    plain.load(tmp_path / "archived")  # and on without any
    plain.feed(TEXT)
    assert plain.stats().archive_rows is None


def test_a_state_without_rows_does_not_take_those_of_another_text(
    session: Session, model: Model, tmp_path: Path
) -> None:
    session.feed(TEXT[:20])
    session.save(tmp_path / "short")
    session.feed(TEXT[20:])
    session.load(tmp_path / "short")  # its own rows
    session.feed(TEXT)
    session.close()
    other = model.session(archive=tmp_path / "a.lccarchive", archive_dtype="float32")
    with pytest.raises(ArchiveError, match="tokens of another text; load"):
        other.load(tmp_path / "short")
    other.close()
    with pytest.raises(ArchiveError, match=r"keeps key_0 in float32, wanted float16; open it"):
        model.session(archive=tmp_path / "a.lccarchive")


def test_a_schedule_that_asks_for_an_archive_where_there_is_none_is_an_error(model: Model) -> None:
    session = model.session()
    session.feed(TEXT[:90])
    session._executor.numbers["archiving"] = 1  # as no session has it
    with pytest.raises(ArtifactError, match="asks for an archive, and the session has none"):
        session.distill()


def test_a_flush_that_the_disk_refuses_leaves_the_counters(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    session.feed(TEXT)
    before = session._executor.counters
    archive = session._executor.archive
    assert archive is not None
    monkeypatch.setattr(archive.archive._file, "finish", full)
    assert session._executor.recall(QUESTION) is None
    after = session._executor.counters
    assert {name: after[name] for name in ("archived", "archived_to")} == {
        name: before[name] for name in ("archived", "archived_to")
    }
    session.save(tmp_path / "state")
    session.load(tmp_path / "state")


def test_a_full_disk_ends_archiving_and_nothing_else(
    session: Session,
    model: Model,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    session.feed(TEXT[:150])
    archive = session._executor.archive
    assert archive is not None
    monkeypatch.setattr(archive.archive._file, "write", full)
    session.feed(TEXT[150:])
    plain = model.session()
    plain.feed(TEXT)
    assert words(session, QUESTION) == words(plain, QUESTION)  # without a recall
    assert caplog.text.count("no space left on device") == 1
    stats = session.stats()
    assert stats.recalls == 0
    assert "no space left" in (stats.archive_stopped or "")
    assert "archiving has stopped" in str(stats)


def test_a_limit_lets_the_oldest_go(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "small"
    monkeypatch.setattr(rows, "ROWS", 16)
    with pytest.raises(ConfigError, match=r"archive limit is 50,000 bytes, wanted .* or more"):
        model.session(archive=path, archive_limit=50_000)
    path.unlink()
    session = model.session(archive=path, archive_limit=200_000)
    session.feed(TEXT * 5)
    assert session.stats().archive_bytes <= 200_000  # type: ignore[operator]
    assert len(words(session, QUESTION)) == 6
    positions = [row.position for row in rows_of_half(session)]
    assert len(positions) < len(TEXT) * 2  # of five
    assert sum(p < len(TEXT) * 3 for p in positions) <= CACHE.budget  # those that the cache held
    assert (session.kept_tokens(0)[0][: CACHE.sink_size] == np.arange(CACHE.sink_size)).all()


def rows_of_half(session: Session) -> list[Archived]:
    """As `rows_of`, without keys."""
    archive, count = session._executor.archive, session._executor.numbers["archived"]
    assert archive is not None
    position = np.zeros(count, np.int64)
    archive.read("position", 0, position)
    return [Archived(int(p), 0, []) for p in position]


def test_what_has_no_archive_says_why(tmp_path: Path) -> None:
    model = compiled(tmp_path, "reference", "snapkv")
    with pytest.raises(ConfigError, match="no archive: policy snapkv for reference; wanted"):
        model.session(archive=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_archive_begins_with_a_text(model: Model, tmp_path: Path) -> None:
    session = model.session()
    session.feed(TEXT[:5])
    with pytest.raises(CacheError, match="begins with a text"):
        session.attach(tmp_path / "a")


def test_with_retaining_heads_no_catalyst_is_run_and_questions_recall(tmp_path: Path) -> None:
    model = compiled(tmp_path, "reference", heads=True)
    session = model.session(archive=tmp_path / "a")
    session.feed(TEXT)
    assert not session.reads_catalyst
    assert len(words(session, QUESTION)) == 6
    assert (session.stats().recalled or 0) > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked to be killed")
def test_readers_that_are_killed_leave_archives_that_hold_what_was_whole(tmp_path: Path) -> None:
    """A hundred kills: python tests/end_to_end/killed_reader.py model.lcc FOLDER 100."""
    compiled(tmp_path, "onnxruntime:cpu")
    script = Path(__file__).with_name("killed_reader.py")
    command = [sys.executable, script, tmp_path / "model.lcc", tmp_path, "12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] == 12
    assert 0 < max(told["rows"]) <= told["of"]
    assert len(set(told["rows"])) > 3
