"""Samples done in this process, or by several that each load what they ask."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import signal
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lcc.errors import LccError, MissingPackageError
from lcc.measure.evaluate.asking import Asker, Opener
from lcc.measure.evaluate.catalog import PERPLEXITY, TASKS
from lcc.measure.evaluate.grid import Cell, Subject, Unit
from lcc.measure.evaluate.perplexity import pieces
from lcc.measure.evaluate.sample import Sample, evenly

Line = dict[str, Any]
Told = Callable[[Unit, Line | None, str | None], None]
"""Unit, its line, or None and what went wrong."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How samples are made and asked; the same in every process.

    samples     of every cell, depths spread evenly over them
    sentences   of the haystack; empty where no task needs one
    files       name of a task -> the benchmark file that it stands for
    """

    samples: int
    seed: int
    chat: bool
    sentences: list[str] = field(default_factory=list)
    files: tuple[tuple[str, str], ...] = ()


class Worker:
    """Does one sample after the other; what is asked stays loaded until another subject comes."""

    def __init__(self, recipe: Recipe, open_asker: Opener) -> None:
        self.recipe, self._open = recipe, open_asker
        self._asker: tuple[Subject, Asker] | None = None
        self._of_files: dict[str, list[Sample]] = {}

    def __call__(self, unit: Unit) -> Line:
        """A line of the results; where it cannot be done by its nature, `error` says why."""
        asker, cell = self._asker_of(unit.cell.subject), unit.cell
        try:
            if asker.window is not None and (cell.length or 0) > asker.window:
                raise LccError(f"made for {asker.window:,} tokens, asked for {cell.length:,}")
            return unit.fields() | self._do(unit, asker)
        except MissingPackageError:
            raise  # no sample's nature: it is brought, and the same command goes on
        except LccError as error:
            return unit.fields() | {"error": str(error)}

    def _do(self, unit: Unit, asker: Asker) -> Line:
        cell, seed = unit.cell, self.recipe.seed + unit.index
        if cell.task == PERPLEXITY:
            (ids,) = pieces(asker.encode, self.recipe.sentences, cell.length or 0, 1, seed)
            return asker.perplexity(ids)
        sample = self._sample(cell, unit.index, seed, asker)
        line = asker.ask(sample, cell.setting, chat=self.recipe.chat, kept_map=unit.kept_map)
        return line | {"dataset": sample.dataset, "group": sample.group}

    def _sample(self, cell: Cell, index: int, seed: int, asker: Asker) -> Sample:
        def count(text: str) -> int:
            return len(asker.encode(text))

        if cell.task in dict(self.recipe.files):
            sample = self._of_file(cell.task)[index]
            return dataclasses.replace(sample, tokens=count(sample.context))
        depth = list(evenly(self.recipe.samples))[index]
        task, length = TASKS[cell.task], cell.length or 0
        sentences = self.recipe.sentences if task.haystack else []
        return task.make(count, length, depth, seed, sentences)

    def _of_file(self, name: str) -> list[Sample]:
        """As many samples of a benchmark file as are asked; it is read once."""
        from lcc.measure.evaluate.benchmarks import read

        if name not in self._of_files:
            found = read(Path(dict(self.recipe.files)[name]))
            self._of_files[name] = list(itertools.islice(found, self.recipe.samples))
        return self._of_files[name]

    def _asker_of(self, subject: Subject) -> Asker:
        if self._asker is None or self._asker[0] != subject:
            self._asker = None  # the old one goes before the new one comes
            self._asker = subject, self._open(subject)
        return self._asker[1]


def run(
    units: list[Unit],
    recipe: Recipe,
    open_asker: Opener,
    told: Told,
    *,
    jobs: int = 1,
    method: str = "spawn",
) -> None:
    """Do all units; `told` hears of each as it is done, in whatever order.

    Neighbours that one reading serves are done by one process.

    open_asker  must be picklable where there are several jobs
    method      how `multiprocessing` starts a process

    An exception that is no LccError fails only the sample where it came up; so does a process that
    dies: another one goes on.

    Raises:
        LccError: what was to be asked cannot be loaded, or a package is missing.
    """
    if jobs == 1:
        worker = Worker(recipe, open_asker)
        for unit in units:
            told(unit, *_attempt(worker, unit))
        return
    context: Any = multiprocessing.get_context(method)
    texts = [list(group) for _, group in itertools.groupby(units, key=lambda unit: unit.text_key)]
    waiting, busy = deque(texts), dict[Connection, tuple[Any, list[Unit]]]()
    ending = []  # they are waited for: at exit they would be killed while they free their memory
    try:
        for _ in range(min(jobs, len(texts))):
            _start(context, recipe, open_asker, waiting.popleft(), busy)
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                process, (unit, *rest) = busy[connection]
                try:
                    line, failure = connection.recv()
                except EOFError:
                    process.join()
                    del busy[connection]
                    told(unit, None, f"its process ended with exit code {process.exitcode}")
                    if rest or waiting:
                        _start(context, recipe, open_asker, rest or waiting.popleft(), busy)
                    continue
                if isinstance(failure, LccError):
                    raise failure
                told(unit, line, failure)
                if rest or waiting:
                    busy[connection] = process, rest or waiting.popleft()
                    connection.send(busy[connection][1][0])
                else:
                    connection.send(None)
                    ending.append(process)
                    del busy[connection]
        for process in ending:
            process.join()
    finally:
        for process, _ in busy.values():
            process.terminate()


def _attempt(worker: Worker, unit: Unit) -> tuple[Line | None, str | None]:
    """A unit's line, or what went wrong; LccError of loading: nothing else could be done either."""
    try:
        return worker(unit), None
    except LccError:
        raise
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"


def _start(
    context: Any,
    recipe: Recipe,
    open_asker: Opener,
    units: list[Unit],
    busy: dict[Connection, tuple[Any, list[Unit]]],
) -> None:
    """Start one more process, with the first of its units."""
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, recipe, open_asker), daemon=True)
    process.start()
    there.close()  # so that its end is seen here when the process dies
    busy[here] = process, units
    here.send(units[0])


def _serve(connection: Connection, recipe: Recipe, open_asker: Opener) -> None:
    """The other process: units come in, lines go out; None ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends this one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that temporary files go, too
    worker = Worker(recipe, open_asker)
    while (unit := connection.recv()) is not None:
        try:
            connection.send(_attempt(worker, unit))
        except LccError as error:
            connection.send((None, error))
