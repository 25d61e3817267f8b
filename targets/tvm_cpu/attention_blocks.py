"""Which slots the queries of an attention kernel see, where that goes by blocks of the text."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lcc.ir.plan import BlockSparse
from lcc.targets.tvm_cpu.tir import fill, script, span, store

NEVER = 2**30  # no text is as long, and twice as much is a number


class Horizon:
    """Up to where in the text the entries of some slots are seen, in one KV head.

    A block that a query does not see, none sees later (`lcc.ir.plan.BlockSparse`): of each slot one
    number says all there is to say, and a row of queries is one comparison away from its mask.

    places      [H, S] int64    place in the text of the token in each slot
    until       [slots] int32   of the slots looked at: the first place whose query does not see it
    latest      [1] int32       the highest of these
    """

    def __init__(self, kind: BlockSparse, places: Any, head: Any, slots: int) -> None:
        T = script()
        self.kind, self.places, self.head = kind, places, head
        self.until = T.alloc_buffer((slots,), "int32")
        self.latest = T.alloc_buffer((1,), "int32")

    def place_of(self, slot: Any) -> Any:
        """int32 place of the token in a slot."""
        T = script()
        return T.bind(T.cast(self.places[self.head, slot], "int32"))

    @contextmanager
    def look(self, first: Any, count: Any, query: Any) -> Iterator[None]:
        """Look at slots first .. first + count - 1; what is built inside runs if one is seen.

        query       slot of the first of the queries; places of the others are higher
        """
        T = script()
        store(self.latest, [0], T.int32(0))
        with T.serial(0, count) as s:
            until = T.bind(T.cast(self._until(T.bind(self.places[self.head, first + s])), "int32"))
            store(self.until, [s], until)
            store(self.latest, [0], T.max(self.latest[0], until))
        with T.If(self.latest[0] > self.place_of(query)), T.Then():
            yield

    def _until(self, place: Any) -> Any:
        """int64, of an entry by its place, int64."""
        T, kind = script(), self.kind
        number = place // kind.block + kind.offset + T.cast(self.head, "int64") * kind.shift
        near, far, first = (
            T.int64(min(blocks * kind.block, NEVER))
            for blocks in (kind.local, max(kind.local, kind.reach), kind.sink)
        )
        ahead = T.Select(number % kind.stride == 0, far, near)
        until = T.min(place - place % kind.block + ahead, T.int64(NEVER))
        return T.Select(place < first, T.int64(NEVER), until)

    def sees(self, place: Any, column: int, lanes: int) -> Any:
        """Whether the query at a place sees slots column .. column + lanes - 1 of those looked at.

        Behind the last one it may say anything.
        """
        return fill(place, lanes) < self.until[span(column, lanes)]
