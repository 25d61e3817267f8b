"""Samples over processes: the same lines whatever their number, and what a dead one takes along."""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

import lcc.measure.evaluate.benchmarks
from lcc.errors import LccError
from lcc.measure.evaluate.grid import Subject, Unit, cells_of, units_of
from lcc.measure.evaluate.tasks.words import word_list
from lcc.measure.evaluate.workers import Recipe, run

RECIPE = Recipe(samples=4, seed=7, chat=False)


class Echo:
    """Answers with what it was asked; no model."""

    window: int | None = 1000

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def ask(self, sample: Any, setting: str, *, chat: bool, kept_map: bool) -> dict:
        return {"answer": sample.answers[0], "depth": sample.depth, "setting": setting}


def open_echo(subject: Subject) -> Echo:
    if subject.policy == "missing":
        raise LccError("no such artifact")
    return Echo()


class Dying(Echo):
    def ask(self, sample: Any, setting: str, *, chat: bool, kept_map: bool) -> dict:
        if sample.depth == 35:
            os._exit(9)
        if sample.depth == 65:
            raise RuntimeError("a bug")
        return super().ask(sample, setting, chat=chat, kept_map=kept_map)


def units(*policies: str, lengths: tuple[int, ...] = (400, 700)) -> list[Unit]:
    subjects = [Subject(kind="artifact", source="x.lcc", policy=each) for each in policies]
    cells = cells_of(subjects, ["passkey"], lengths, ["query-agnostic"])
    return units_of(cells, {"passkey": 4})


def done(todo: list[Unit], opener: Any, jobs: int) -> tuple[dict, dict]:
    lines, failures = {}, {}

    def told(unit: Unit, line: dict | None, failure: str | None) -> None:
        (failures if line is None else lines)[unit.key] = line or failure

    run(todo, RECIPE, opener, told, jobs=jobs, method="fork")
    return lines, failures


def test_processes_change_nothing() -> None:
    todo = units("a", "b")
    alone, together = done(todo, open_echo, 1), done(todo, open_echo, 3)
    assert len(alone[0]) == 16
    assert alone == together
    assert len({line["answer"] for line in alone[0].values()}) == 4, "a sample for each seed"


def test_too_long_for_what_it_was_made_for() -> None:
    lines, _ = done(units("a", lengths=(400, 4096)), open_echo, 1)
    errors = [line.get("error") for line in lines.values()]
    assert errors == [None] * 4 + ["made for 1,000 tokens, asked for 4,096"] * 4


def test_a_dead_process_takes_one_sample_along() -> None:
    todo = units("a")
    lines, failures = done(todo, lambda _: Dying(), 2)
    assert sorted(line["depth"] for line in lines.values()) == [5, 5, 95, 95]
    assert sorted(failures.values()) == [
        *["RuntimeError: a bug"] * 2,
        *["its process ended with exit code 9"] * 2,
    ]


class Numbered(Echo):
    """Says which process it is in."""

    def __init__(self, dies: bool) -> None:
        self.dies = dies

    def ask(self, sample: Any, setting: str, *, chat: bool, kept_map: bool) -> dict:
        time.sleep(0.01)
        if (sample.depth, self.dies) == (35, True):
            os._exit(9)
        return {"process": os.getpid()}


def test_a_text_that_serves_several_is_read_by_one_process() -> None:
    """Also what a process that died has left of its texts is done."""
    presses = [Subject(kind="press", source="m", policy=each) for each in "abc"]
    todo = units_of(cells_of(presses, ["passkey"], [400], ["query-agnostic"]), {"passkey": 4})
    lines, failures = done(todo, lambda _: Numbered(dies=False), 2)
    assert not failures
    where: dict[int, set[int]] = {}
    for line in lines.values():
        where.setdefault(line["index"], set()).add(line["process"])
    assert [len(processes) for processes in where.values()] == [1] * 4
    assert len(set.union(*where.values())) == 2
    lines, failures = done(todo, lambda _: Numbered(dies=True), 2)
    assert (len(lines), len(failures)) == (9, 3)


class Keeping(Echo):
    """Has a temporary folder, and takes its time over all but the first sample."""

    def __init__(self, folder: Path) -> None:
        self.kept = tempfile.TemporaryDirectory(dir=folder)

    def ask(self, sample: Any, setting: str, *, chat: bool, kept_map: bool) -> dict:
        time.sleep(0 if sample.depth == 5 else 60)
        return {}


def test_processes_that_are_ended_leave_nothing(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(units("a"), RECIPE, lambda _: Keeping(tmp_path), interrupt, jobs=2, method="fork")
    end = time.monotonic() + 30
    while any(tmp_path.iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(tmp_path.iterdir())


def test_processes_end_by_themselves(tmp_path: Path) -> None:
    class Slow(Echo):
        def __del__(self) -> None:
            time.sleep(0.5)
            (tmp_path / str(os.getpid())).touch()

    done(units("a"), lambda _: Slow(), 2)
    assert len([*tmp_path.iterdir()]) == 2


def test_an_exception_takes_one_sample_along_in_one_process_too() -> None:
    class Broken(Echo):
        def ask(self, sample: Any, setting: str, *, chat: bool, kept_map: bool) -> dict:
            if sample.depth == 65:
                raise RuntimeError("a bug")
            return super().ask(sample, setting, chat=chat, kept_map=kept_map)

    todo = units("a", lengths=(400,))
    alone, together = done(todo, lambda _: Broken(), 1), done(todo, lambda _: Broken(), 2)
    assert alone == together
    assert list(alone[1].values()) == ["RuntimeError: a bug"]


def test_a_benchmark_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "qasper_e.jsonl"
    row = {"input": "Who?", "context": "Ann. " * 9, "answers": ["Ann"], "length": 9}
    row |= {"dataset": "qasper_e", "all_classes": None}
    path.write_text("\n".join([json.dumps(row)] * 3))
    files, opened = ["qasper_e"], []
    read = lcc.measure.evaluate.benchmarks.read
    monkeypatch.setattr(
        lcc.measure.evaluate.benchmarks, "read", lambda path: opened.append(path) or read(path)
    )
    subjects = [Subject(kind="artifact", source="x.lcc", policy=each) for each in ("a", "b")]
    todo = units_of(cells_of(subjects, [], [], ["query-agnostic"], files), {"qasper_e": 2})
    lines: list[Any] = []
    recipe = Recipe(samples=2, seed=0, chat=False, files=(("qasper_e", str(path)),))
    run(todo, recipe, lambda _: Counting(), lambda _, line, why: lines.append(line or why))
    assert opened == [path]
    (sample, *_) = read(path)
    assert [line["tokens"] for line in lines] == [len(sample.context)] * 4
    assert {(line["dataset"], line["group"]) for line in lines} == {("qasper", "0-4k")}


class Counting(Echo):
    def ask(self, sample: Any, setting: str, *, chat: bool, kept_map: bool) -> dict:
        return {"tokens": sample.tokens}


def test_what_cannot_be_loaded_ends_it() -> None:
    for jobs in (1, 2):
        with pytest.raises(LccError, match="no such artifact"):
            done(units("missing"), open_echo, jobs)


def test_a_missing_package_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would not be missing for ever: no line of the results says that it is."""
    monkeypatch.setitem(sys.modules, "wonderwords.random_word", None)
    word_list.cache_clear()
    subjects = [Subject(kind="artifact", source="x.lcc", policy="a")]
    todo = units_of(
        cells_of(subjects, ["niah_single_1"], [600], ["query-agnostic"]), {"niah_single_1": 4}
    )
    for jobs in (1, 2):
        with pytest.raises(LccError, match=r"wonderwords.* is not installed; do: pip install"):
            done(todo, open_echo, jobs)


def test_eager_models_read_a_text_together() -> None:
    """Artifacts are loaded one after the other; a text of a model is read once for all presses."""
    subjects = [
        Subject(kind="artifact", source="a", policy="a", budget=1),
        Subject(kind="full", source="m", policy="full cache"),
        Subject(kind="press", source="m", policy="knorm", budget=1),
        Subject(kind="press", source="m", policy="knorm", budget=2),
    ]
    cells = cells_of(subjects, ["passkey", "vt"], [100], ["query-agnostic"])
    asked = units_of(cells, {"passkey": 2, "vt": 1})
    assert [(u.cell.subject.kind, u.cell.subject.budget, u.cell.task, u.index) for u in asked] == [
        ("artifact", 1, "passkey", 0),
        ("artifact", 1, "passkey", 1),
        ("artifact", 1, "vt", 0),
        *(
            (kind, budget, task, index)
            for task, index in (("passkey", 0), ("passkey", 1), ("vt", 0))
            for kind, budget in (("full", None), ("press", 1), ("press", 2))
        ),
    ]


def test_one_map_of_what_was_kept_for_each_artifact_and_task() -> None:
    mapped = [unit for unit in units("a", "b", lengths=(700, 400)) if unit.kept_map]
    found = [(unit.cell.subject.policy, unit.cell.length, unit.index) for unit in mapped]
    assert found == [("a", 400, 2), ("b", 400, 2)]
