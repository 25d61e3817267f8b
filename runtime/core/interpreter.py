"""Runs the lists of a schedule, as docs/format.md says; knows no model, no policy, no text."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from lcc.artifact.manifest import Manifest
from lcc.artifact.schedule import Block, Over, Run, lists
from lcc.errors import ArtifactError, LccError
from lcc.ir.roles import Role
from lcc.runtime.core.buffers import Buffers
from lcc.runtime.core.call import Call
from lcc.runtime.engines.base import Engine

IDS = "ids"  # the buffer that token ids are written to
CHOSEN, BACK = "rows", "back"  # the buffer of rows that are called back, and their number
ROW, ARCHIVED = "row", "archived"  # the first row of a block, and how many there are


class Rows(Protocol):
    """An archive: rows of columns, behind one another."""

    def begin(self, count: int, held: int) -> None:
        """So many rows follow behind the first `held`, column by column."""

    def put(self, column: str, rows: np.ndarray) -> None:
        """The rows of one column."""

    def commit(self) -> int:
        """All columns are there; returns how many rows there are now."""

    def read(self, column: str, first: int, out: np.ndarray) -> None:
        """Copy rows from `first` on, as many as there is room for."""

    def take(self, column: str, rows: np.ndarray, out: np.ndarray) -> None:
        """Copy these rows."""


class Interpreter:
    """The schedule of one session.

    numbers     constants and counters by name; blocks change the counters
    archive     where evicted entries go; None = nowhere
    """

    def __init__(
        self, manifest: Manifest, numbers: dict[str, int], buffers: Buffers, engine: Engine
    ) -> None:
        """Make the calls of all lists, each with a runner of its own."""
        self.numbers, self._buffers = numbers, buffers
        self.archive: Rows | None = None
        self._marks = dict(manifest.schedule.marks)
        states = [name for name, spec in buffers.specs.items() if spec.role == Role.STATE]
        self._states = [name for name in states if name not in self._marks.values()]
        self._calls: dict[int, list[list[Call]]] = {}  # of a run: in general, and for n = 1
        for run in [r for _, part in lists(manifest.schedule) for each in part for r in each.do]:
            layers, programs = run.each or [None], [run.run, *([run.one] if run.one else [])]
            calls = [[Call(run, name, i, engine, buffers) for i in layers] for name in programs]
            self._calls[id(run)] = [calls[0], calls[-1]]

    def run(self, blocks: Sequence[Block], ids: Sequence[int] = ()) -> None:
        """Run a list; `ids`: what its loops over text, or over the catalyst, go over.

        Raises:
            LccError: its own; ArtifactError where a schedule, which may be anybody's, asks for what
                numbers, arrays or programs do not allow.
        """
        try:
            for block in blocks:
                if not block.when or self.numbers[block.when[0]] < self.numbers[block.when[1]]:
                    self._repeat(block, ids)
        except LccError:
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"the schedule cannot be run: {type(error).__name__}: {error}; if this lcc has "
                "compiled it, please report it, otherwise compile it anew"
            ) from error

    def _repeat(self, block: Block, ids: Sequence[int]) -> None:
        """A block as often as it says; what it lends or reads again changes no state."""
        again = block.over is not None and block.over.ids == "newest"
        if not self._states or not (block.lend or again):
            self._times(block, ids)
            return
        with self.states_kept():
            if again:
                self.copy({mark: state for state, mark in self._marks.items()})
            self._times(block, ids)

    @contextlib.contextmanager
    def states_kept(self) -> Iterator[None]:
        """What is read inside changes no state of a recurrent layer, to the bit."""
        before = {name: self._buffers.host(name).copy() for name in self._states}
        try:
            yield
        finally:
            for name, array in before.items():
                self._buffers.host(name)[...] = array

    def mark(self) -> None:
        """Note what the states are now: from here on tokens may be read again."""
        self.copy(self._marks)
        self.numbers["marked"] = self.numbers["used"]

    def copy(self, names: Mapping[str, str]) -> None:
        """Copy buffers to others."""
        for one, other in names.items():
            self._buffers.host(other)[...] = self._buffers.host(one)

    def _times(self, block: Block, ids: Sequence[int]) -> None:
        numbers, over = self.numbers, block.over
        lent = {name: numbers[name] for name in block.add} if block.lend else {}
        if block.count is not None:
            numbers[block.count] = 0
        if over is None:
            self._once(block)
        elif over.rows is None:
            self._over_ids(block, ids, over)
        else:
            numbers["start"] = numbers["used"]
            while (left := numbers[over.rows[1]] - numbers[over.rows[0]]) > 0:
                numbers["n"] = min(self._most(over), left)
                self._once(block)
        numbers.update(lent)

    def _over_ids(self, block: Block, ids: Sequence[int], over: Over) -> None:
        numbers, buffers = self.numbers, self._buffers
        if over.count is not None:  # the newest ids, and the counters as before they were read
            used = numbers["used"]
            since = numbers["marked" if self._marks else "kept"]
            count = min(numbers[over.count], used - since)
            ids = buffers.rows(IDS, used - count, used).tolist()
            numbers.update({name: numbers[name] - count for name in block.add})
        numbers["start"], most = numbers["used"], self._most(over)
        for part in [ids[place : place + most] for place in range(0, len(ids), most)]:
            buffers.write_rows(IDS, numbers["used"], np.array(part))
            numbers["n"] = len(part)
            self._once(block)

    def _most(self, over: Over) -> int:
        """How many ids or rows a block takes at a time."""
        if (most := self.numbers[over.most]) < 1:
            raise ArtifactError(f"schedule: {over.most} is {most}, wanted 1 or more")
        return most

    def _once(self, block: Block) -> None:
        """The runs of a block, and what then becomes of buffers and counters."""
        numbers = self.numbers
        if block.grow:
            self._buffers.grow(block.grow, numbers)
        if block.append is not None:
            self._rows.begin(numbers[block.append], numbers[ARCHIVED])
        self._fetch(block)
        for run in block.do:
            for call in self._calls[id(run)][numbers["n"] == 1]:
                if call.layer is not None:
                    numbers["layer"] = call.layer
                self._fetch(run, call.layer)
                call(numbers)
                self._store(run, block, call.layer)
        if block.append is not None:
            self._store(block, block)
            numbers[ARCHIVED] = self._rows.commit()
        for name, source, target in block.after:
            row = self._buffers.rows(name, numbers[source], numbers[source] + 1)
            self._buffers.write_rows(name, numbers[target], row)
        for one, other in block.swap:
            self._buffers.swap(one, other)
        for name in [*block.add, *([block.count] if block.count else [])]:
            numbers[name] += numbers["n"]
        numbers.update({name: numbers[source] for name, source in block.set.items()})

    @property
    def _rows(self) -> Rows:
        if self.archive is None:  # a schedule or a state whose counters say that there is one
            raise ArtifactError("the schedule asks for an archive, and the session has none")
        return self.archive

    def _fetch(self, part: Block | Run, layer: int | None = None) -> None:
        """Bring rows of the archive into buffers."""
        numbers, buffers = self.numbers, self._buffers
        for name, (column, at) in part.load.items():
            first, count = numbers[at], numbers["n"]
            out = buffers.rows(name, first, first + count, 0)
            self._rows.read(_named(column, layer), numbers[ROW], out)
        for name, column in part.gather.items():
            count = numbers[BACK]
            rows = buffers.rows(CHOSEN, 0, count)
            self._rows.take(_named(column, layer), rows, buffers.rows(name, 0, count, 0))

    def _store(self, part: Block | Run, block: Block, layer: int | None = None) -> None:
        for column, name in part.store.items():
            assert block.append is not None  # checked when the manifest is read
            rows = self._buffers.rows(name, 0, self.numbers[block.append], 0)
            self._rows.put(_named(column, layer), rows)


def _named(column: str, layer: int | None) -> str:
    return column if layer is None else column.replace("*", str(layer))
