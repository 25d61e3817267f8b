"""Runs the lists of a schedule, as docs/format.md says; knows no model, no policy, no text."""

from collections.abc import Sequence

import numpy as np

from lcc.artifact.manifest import Manifest
from lcc.artifact.schedule import Block, Over, lists
from lcc.runtime.core.buffers import Buffers
from lcc.runtime.core.call import Call
from lcc.runtime.engines.base import Engine

IDS = "ids"  # the buffer that token ids are written to


class Interpreter:
    """The schedule of one session.

    numbers     constants and counters by name; blocks change the counters
    """

    def __init__(
        self, manifest: Manifest, numbers: dict[str, int], buffers: Buffers, engine: Engine
    ) -> None:
        """Make the calls of all lists, each with a runner of its own."""
        self.numbers, self._buffers = numbers, buffers
        self._calls: dict[int, list[list[Call]]] = {}  # of a run: in general, and for n = 1
        for run in [r for _, part in lists(manifest.schedule) for each in part for r in each.do]:
            layers, programs = run.each or [None], [run.run, *([run.one] if run.one else [])]
            calls = [[Call(run, name, i, engine, buffers) for i in layers] for name in programs]
            self._calls[id(run)] = [calls[0], calls[-1]]

    def run(self, blocks: Sequence[Block], ids: Sequence[int] = ()) -> None:
        """Run a list; `ids`: what its loops over text, or over the catalyst, go over."""
        for block in blocks:
            if not block.when or self.numbers[block.when[0]] < self.numbers[block.when[1]]:
                self._repeat(block, ids)

    def _repeat(self, block: Block, ids: Sequence[int]) -> None:
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
                numbers["n"] = min(numbers[over.most], left)
                self._once(block)
        numbers.update(lent)

    def _over_ids(self, block: Block, ids: Sequence[int], over: Over) -> None:
        numbers, buffers = self.numbers, self._buffers
        if over.count is not None:  # the newest ids, and the counters as before they were read
            used = numbers["used"]
            count = min(numbers[over.count], used - numbers["kept"])
            ids = buffers.rows(IDS, used - count, used).tolist()
            numbers.update({name: numbers[name] - count for name in block.add})
        numbers["start"], most = numbers["used"], numbers[over.most]
        for part in [ids[place : place + most] for place in range(0, len(ids), most)]:
            buffers.write_rows(IDS, numbers["used"], np.array(part))
            numbers["n"] = len(part)
            self._once(block)

    def _once(self, block: Block) -> None:
        """The runs of a block, and what then becomes of buffers and counters."""
        numbers = self.numbers
        for run in block.do:
            for call in self._calls[id(run)][numbers["n"] == 1]:
                if call.layer is not None:
                    numbers["layer"] = call.layer
                call(numbers)
        for name, source, target in block.after:
            row = self._buffers.rows(name, numbers[source], numbers[source] + 1)
            self._buffers.write_rows(name, numbers[target], row)
        for one, other in block.swap:
            self._buffers.swap(one, other)
        for name in [*block.add, *([block.count] if block.count else [])]:
            numbers[name] += numbers["n"]
        numbers.update({name: numbers[source] for name, source in block.set.items()})
