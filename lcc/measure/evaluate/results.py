"""The folder of results: samples as they finish, what was asked, and the numbers made of both.

samples.jsonl   a line a sample, appended when it is done: that is what a second run goes on from
kept.jsonl      what was kept of a few of them, for the report
run_meta.json   what was asked; and of every run how: versions, machine, processes, threads
results.json    a cell for every subject, task, length and setting, with its interval; of what is
                there so far, while samples are done
report.html     `lcc.measure.evaluate.report`
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

import lcc
from lcc.artifact.outputs import write_whole
from lcc.errors import ConfigError, LccError
from lcc.measure.evaluate.catalog import PERPLEXITY
from lcc.measure.evaluate.grid import Cell, Unit, unit_of
from lcc.measure.evaluate.interval import of_perplexity, of_scores
from lcc.measure.machine import this_machine, versions

Line = dict[str, Any]
DISTRIBUTIONS = ("onnxruntime", "numpy", "apache-tvm", "torch", "transformers", "kvpress")


class Results:
    """Results in a folder, new or begun by the same command.

    lines       `Unit.key` -> what is known of that sample
    kept        `Unit.key` -> page of `lcc.measure.evaluate.kept`
    failed      `Unit.key` -> why it could not be done now; not written down, so it is tried again
    """

    def __init__(self, folder: Path, asked: dict[str, Any], run: dict[str, Any]) -> None:
        """Open a folder; a new one is made when there is something to write into it.

        asked       all that decides what a sample is and how it is asked, for JSON
        run         how, this time; not compared, but every sample notes which run it is of

        Raises:
            ConfigError: the folder holds results of something else.
        """
        self.folder = folder
        asked = json.loads(json.dumps(asked))
        page = folder / "run_meta.json"
        self.meta: dict[str, Any] = {"asked": asked, "runs": []}
        if page.exists():
            self.meta = _read_json(page)
            _check_same(folder, self.meta, asked)
        elif folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder}: holds other files; wanted a new folder, or results")
        self._run = json.loads(json.dumps(run))
        self.lines = self._read("samples.jsonl")
        self.failed: dict[str, Line] = {}
        self.kept = {key: line["kept"] for key, line in self._read("kept.jsonl").items()}

    @property
    def begun(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.lines or self.failed)

    def _note_run(self) -> int:
        """The place of this run among all; it is written down before its first sample."""
        runs, how = self.meta["runs"], _how(self._run)
        if how not in map(_how, runs):
            runs.append(self._run)
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / "run_meta.json", self.meta)
        return [_how(each) for each in runs].index(how)

    def _read(self, name: str) -> dict[str, Line]:
        """All whole lines; a last one that was torn when the process was killed is cut off."""
        path, found = self.folder / name, dict[str, Line]()
        if not path.exists():
            return found
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
        for number, text in enumerate(data[:whole].splitlines(), start=1):
            try:
                line = json.loads(text)
                found[unit_of(line).key] = line
            except (ValueError, KeyError, TypeError) as error:
                raise LccError(
                    f"{path}: line {number} is no sample ({error!r}); delete the line"
                ) from None
        return found

    def add(self, unit: Unit, line: Line) -> None:
        """Write down a sample that is done."""
        number, kept = self._note_run(), line.pop("kept", None)
        if kept is not None:
            self._append("kept.jsonl", unit.fields() | {"kept": kept})
            self.kept[unit.key] = kept
        line = line | {"run": number}
        self._append("samples.jsonl", line)
        self.lines[unit.key] = line

    def fail(self, unit: Unit, why: str) -> None:
        """Note for the table and the report what went wrong with a sample."""
        self._note_run()
        self.failed[unit.key] = unit.fields() | {"error": why}

    def _append(self, name: str, line: Line) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def todo(self, units: Iterable[Unit]) -> list[Unit]:
        """Those that are not done yet."""
        return [unit for unit in units if unit.key not in self.lines]

    def cells(self, cells: Iterable[Cell]) -> list[dict[str, Any]]:
        """What `results.json` says of each; see `cell_page`."""
        of_cell: dict[Cell, list[Line]] = {}
        known = (self.failed | self.lines).values()
        for line in sorted(known, key=lambda line: line["index"]):
            of_cell.setdefault(unit_of(line).cell, []).append(line)
        return [cell_page(cell, of_cell.get(cell, [])) for cell in cells]

    def write(self, cells: list[Cell]) -> list[dict[str, Any]]:
        """Write results.json, if there is anything to show, and return its cells."""
        pages = self.cells(cells)
        if not self.begun:
            return pages
        _write(self.folder / "results.json", {"cells": pages})
        return pages


def cell_page(cell: Cell, lines: list[Line]) -> dict[str, Any]:
    """One cell of `results.json`.

    measure             "score" (0 to 1) or "perplexity" (of the last 512 tokens)
    n, score, low, high samples, their mean, its 95 % interval; interval: how it was found
    found               samples of score 1
    cycles              mean
    tokens_per_second   of reading, cycles included; None = runs differ in threads, say
    recalled, recall_seconds    of setting recall: entries that came back, and the time; means
    by_position         perplexity of stretches of the text: [end of the stretch, perplexity]
    failed, error       samples without score, where there are any; what the first of them says
    """
    page = {"name": cell.subject.name, **Unit(cell=cell, index=0).fields()}
    del page["index"]
    errors = [line["error"] for line in lines if "error" in line]
    lines = [line for line in lines if "error" not in line]
    page["measure"] = "perplexity" if cell.task == PERPLEXITY else "score"
    page["n"] = len(lines)
    if errors:
        page |= {"error": errors[0], "failed": len(errors)}
    if not lines:
        return page
    scores = [line["score"] for line in lines]
    perplexity = cell.task == PERPLEXITY
    interval = of_perplexity(scores) if perplexity else of_scores(scores)
    page |= {"score": interval.mean, "low": interval.low, "interval": interval.method}
    page["high"] = None if math.isinf(interval.high) else interval.high
    if perplexity:
        ends = [end for end, _ in lines[0]["by_position"]]
        columns = zip(*(line["by_position"] for line in lines), strict=False)
        means = (math.exp(fmean(nats for _, nats in column)) for column in columns)
        page["by_position"] = list(zip(ends, means, strict=True))
    else:
        page["found"] = sum(score == 1 for score in scores)
    cycles = [line["cycles"] for line in lines if line.get("cycles") is not None]
    page["cycles"] = fmean(cycles) if cycles else None
    for name in ("recalled", "recall_seconds"):
        if values := [line[name] for line in lines if name in line]:
            page[name] = fmean(values)
    seconds = sum(line["read_seconds"] for line in lines)
    alike = len({line.get("run") for line in lines}) == 1 and seconds
    page["tokens_per_second"] = sum(line["tokens"] for line in lines) / seconds if alike else None
    return page


def machine() -> dict[str, Any]:
    """Versions, the machine and the command of a run, for run_meta.json."""
    own = {"lcc": lcc.__version__, "python": platform.python_version()}
    return {
        "versions": own | versions(DISTRIBUTIONS),
        "machine": this_machine(),
        "command": sys.argv,
    }


def score_text(page: dict[str, Any]) -> str:
    """The score of a cell for people."""
    if "score" not in page:
        return "-"
    if page["measure"] == "perplexity":
        return f"{page['score']:.2f}"
    if page["interval"] == "wilson":
        return f"{page['found']} of {page['n']}"
    return f"{page['score']:.3f}"


def failed_text(page: dict[str, Any]) -> str:
    """How many samples of a cell failed and why the first one did, for people; "" = none."""
    return f"{page['failed']} failed: {page['error']}" if "error" in page else ""


def interval_text(page: dict[str, Any]) -> str:
    """The interval of a cell for people."""
    if "score" not in page or page["interval"] == "none":
        return ""
    return f"{page['low']:.2f} to {page['high']:.2f}"


def _how(run: dict[str, Any]) -> dict[str, Any]:
    """What a speed depends on; the words of the command are not it."""
    return {name: value for name, value in run.items() if name != "command"}


def _check_same(folder: Path, meta: dict[str, Any], asked: dict[str, Any]) -> None:
    if not isinstance(meta.get("runs"), list):
        raise ConfigError(f"{folder} holds results of an older lcc; give another -o")
    known = meta.get("asked", {})
    differ = [
        f"{name} was {json.dumps(known.get(name))}, now {json.dumps(asked.get(name))}"
        for name in sorted({*known, *asked})
        if known.get(name) != asked.get(name)
    ]
    if differ:
        raise ConfigError(
            f"{folder} holds results of another command: {'; '.join(differ)}; "
            "give another -o, or the same command to go on"
        )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        page: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LccError(f"{path}: {error}; delete the folder and begin anew") from None
    return page


def _write(path: Path, page: dict[str, Any]) -> None:
    write_whole(path, json.dumps(page, indent=2, ensure_ascii=False) + "\n")
