"""What is to be measured: who is asked, what, how long, in which setting."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from lcc.measure.evaluate.catalog import PERPLEXITY

Setting = Literal["query-agnostic", "recall", "query-aware"]
SETTINGS: tuple[Setting, ...] = ("query-agnostic", "recall", "query-aware")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Who is asked: an artifact, or a model in eager PyTorch with a full or a compressed cache.

    source      the artifact's folder, or what `lcc.sources.models.load_model` takes
    policy      what decides what is kept: a policy, a press of kvpress, or "full cache"
    budget      entries kept per KV head; None = all of them
    capacity    slots per KV head, where it is not as compiled
    """

    kind: Literal["artifact", "full", "press"]
    source: str
    policy: str
    budget: int | None = None
    capacity: int | None = None

    @property
    def name(self) -> str:
        """For tables and pictures."""
        end = self.source.rstrip("/").rpartition("/")[2]
        kept = "" if self.budget is None else f" {self.budget}"
        kept += "" if self.capacity is None else f":{self.capacity}"
        return f"{end} {'kvpress ' if self.kind == 'press' else ''}{self.policy}{kept}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of the results, from as many samples as were asked for.

    length      tokens of the text; None = the texts of a file, as long as they are
    """

    subject: Subject
    task: str
    length: int | None
    setting: Setting


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One sample of a cell; `kept_map`: note which tokens were kept, for the report."""

    cell: Cell
    index: int
    kept_map: bool = False

    @property
    def key(self) -> str:
        """The same for the same sample, in this process and the next."""
        return json.dumps([*dataclasses.astuple(self.cell), self.index])

    @property
    def text_key(self) -> str:
        """The same for units that one reading serves.

        Of an artifact with an archive, the answers with and without recall; of a model in eager
        PyTorch, all caches.
        """
        cell = self.cell
        if cell.subject.kind == "artifact":
            same = "query-agnostic" if cell.setting == "recall" else cell.setting
            return Unit(cell=dataclasses.replace(cell, setting=same), index=self.index).key
        return json.dumps([cell.subject.source, cell.task, cell.length, cell.setting, self.index])

    def fields(self) -> dict[str, Any]:
        """For a line of samples.jsonl."""
        cell = dataclasses.asdict(self.cell)
        return {**cell.pop("subject"), **cell, "index": self.index}


def unit_of(line: dict[str, Any]) -> Unit:
    """The sample that a line of samples.jsonl is about."""
    names = [field.name for field in dataclasses.fields(Subject)]
    subject = Subject(**{name: line[name] for name in names})
    cell = Cell(subject=subject, task=line["task"], length=line["length"], setting=line["setting"])
    return Unit(cell=cell, index=line["index"])


def cells_of(
    subjects: Iterable[Subject],
    tasks: Iterable[str],
    lengths: Iterable[int],
    settings: Iterable[Setting],
    files: Iterable[str] = (),
) -> list[Cell]:
    """Every cell, subject by subject, so that each is loaded once.

    Perplexity asks no question, and only artifacts have archives.
    """
    sized: list[tuple[str, int | None]] = [(task, length) for task in tasks for length in lengths]
    sized += [(file, None) for file in files]
    return [
        Cell(subject=subject, task=task, length=length, setting=setting)
        for subject in subjects
        for task, length in sized
        for setting in settings
        if setting == "query-agnostic" or task != PERPLEXITY
        if setting != "recall" or subject.kind == "artifact"
    ]


def units_of(cells: list[Cell], samples: dict[str, int]) -> list[Unit]:
    """Every sample; of each artifact and task, the middle one of the shortest text has a map.

    One more where there is a recall. Cell after cell, but for those that one reading serves: they
    follow each other.

    samples     task -> how many
    """
    units, mapped = [], set()
    for cell in sorted(cells, key=lambda cell: cell.length or 0):
        what = cell.subject, cell.task, cell.setting == "recall"
        if cell.subject.kind == "artifact" and cell.task != PERPLEXITY and what not in mapped:
            mapped.add(what)
            units.append(Unit(cell=cell, index=samples[cell.task] // 2, kept_map=True))
    special = {unit.key: unit for unit in units}
    of_text: dict[str, list[Unit]] = {}
    for cell in cells:
        for index in range(samples[cell.task]):
            unit = Unit(cell=cell, index=index)
            of_text.setdefault(unit.text_key, []).append(special.get(unit.key, unit))
    return [unit for together in of_text.values() for unit in together]
