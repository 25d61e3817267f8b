"""The loops of a product by packed weights: tiles of columns among threads, rows in each."""

from collections.abc import Callable, Sequence
from typing import Any

from lcc.targets.tvm_cpu.tir import script, span, store


class ColumnTiles:
    """What `out` [.., M, N] is cut into: tiles of `width` columns, the last of which may be cut.

    Threads share the tiles; a tile of weights is read once from memory, however many rows there
    are. Rows are taken several at a time, the rest of them singly: no row beyond the last is
    read or written.
    """

    def __init__(self, out: Any, bias: Any, *, n: int, width: int, lanes: int) -> None:
        """`bias`: [N], or None."""
        self.out, self.bias, self.n, self.width, self.lanes = out, bias, n, width, lanes
        self._edge: Any = None  # of the last tile, where it is cut

    def each(self, body: Callable[[Any], None]) -> None:
        """Call body(tile)."""
        T, whole = script(), self.n // self.width
        if whole:
            with T.parallel(0, whole) as tile:
                body(tile)
        if self.n % self.width:
            self._edge = T.alloc_buffer((self.width,), "float32")
            body(whole)
            self._edge = None

    def rows(self, m: Any, most: int, body: Callable[[int, Any], None]) -> None:
        """Call body(count, first row), `most` rows at a time and then one."""
        T = script()
        with T.serial(0, m // most) as group:
            body(most, group * most)
        with T.serial(0, m % most) as row:
            body(1, m // most * most + row)

    def put(self, row: Sequence, tile: Any, value: Callable[[int], Any]) -> None:
        """Write a row of a tile; `value`: first of its columns -> vector."""
        T, n, width, bias = script(), self.n, self.width, self.bias
        for column in range(0, width, self.lanes):
            if self._edge is not None:
                store(self._edge, [span(column, self.lanes)], value(column))
                continue
            place = span(tile * width + column, self.lanes)
            added = value(column) if bias is None else value(column) + bias[place]
            store(self.out, [*row, place], added)
        if self._edge is not None:
            with T.serial(0, n % width) as c:
                place, one = n // width * width + c, self._edge[c]
                store(self.out, [*row, place], one if bias is None else one + bias[place])
