"""Kernels that work on rows: rotation, softmax, the logarithm of a sum, the highest numbers."""

from math import prod
from typing import Any

from lcc.targets.tvm_cpu.tir import (
    LOWEST,
    Tiles,
    exp,
    fill,
    kernel,
    lanes_of,
    parameter,
    script,
    span,
    store,
)

FEW = 16  # rows, for which waking the other threads would take longer


def _shared(count: Any, body: Any) -> None:
    """Rows one after the other where there are few, among threads otherwise."""
    T = script()
    with T.If(count < FEW):
        with T.Then(), T.serial(0, count) as row:
            body(row)
        with T.Else(), T.parallel(0, count) as row:
            body(row)


def rotate(tiles: Tiles, heads: int, size: int, half: int, interleaved: bool) -> Any:
    """Kernel (x, cos, sin, out) of `lcc::rotate`: x, out [1, Q, H, D]; cos, sin [1, Q, R/2]."""
    T = script()
    with kernel("rotate") as made:
        length = T.int64()
        x = parameter("x", (1, length, heads, size))
        cos, sin = (parameter(name, (1, length, half)) for name in ("cos", "sin"))
        out = parameter("out", (1, length, heads, size))

        def of_token(j: Any) -> None:
            if interleaved:
                with T.serial(0, heads) as head, T.serial(0, half) as i:
                    a, b = x[0, j, head, 2 * i], x[0, j, head, 2 * i + 1]
                    c, s = cos[0, j, i], sin[0, j, i]
                    store(out, [0, j, head, 2 * i], a * c - b * s)
                    store(out, [0, j, head, 2 * i + 1], b * c + a * s)
            else:
                lanes = lanes_of(half, tiles.lanes)
                with T.serial(0, heads) as head:
                    for first in range(0, half, lanes):
                        near, far = span(first, lanes), span(half + first, lanes)
                        a, b = x[0, j, head, near], x[0, j, head, far]
                        c, s = cos[0, j, near], sin[0, j, near]
                        store(out, [0, j, head, near], a * c - b * s)
                        store(out, [0, j, head, far], b * c + a * s)
            if size > 2 * half:
                with T.serial(0, heads) as head, T.serial(0, size - 2 * half) as i:
                    store(out, [0, j, head, 2 * half + i], x[0, j, head, 2 * half + i])

        _shared(length, of_token)
    return made[0]


class _Row:
    """One row of n numbers, n known when it runs: vectors, and what is left one by one."""

    def __init__(self, tiles: Tiles, x: Any, index: list, n: Any) -> None:
        T = script()
        self.lanes, self.x, self.index, self.n = tiles.lanes, x, index, n
        self.fold = T.alloc_buffer((self.lanes,), "float32")
        self.one = T.alloc_buffer((1,), "float32")

    def _each(self, body: Any) -> None:
        T, lanes = script(), self.lanes
        with T.serial(0, self.n // lanes) as v:
            body(span(v * lanes, lanes), lanes, self.fold[span(0, lanes)], self.fold)
        with T.serial(self.n // lanes * lanes, self.n) as i:
            body(i, 1, self.one[0], self.one)

    def _begin(self, value: float) -> None:
        store(self.fold, [span(0, self.lanes)], fill(value, self.lanes))
        store(self.one, [0], script().float32(value))

    def _folded(self, combine: Any) -> Any:
        value = self.one[0]
        for lane in range(self.lanes):
            value = combine(value, self.fold[lane])
        return script().bind(value)

    def best(self) -> Any:
        """The highest number, at least LOWEST."""
        T = script()
        self._begin(LOWEST)

        def highest(place: Any, lanes: int, old: Any, kept: Any) -> None:
            store(kept, [span(0, lanes)], T.max(old, self.x[(*self.index, place)]))

        self._each(highest)
        return self._folded(T.max)

    def total(self, best: Any, out: Any = None) -> Any:
        """The sum of exp(number - best); each of them is stored in `out`, if there is one."""
        self._begin(0.0)

        def add(place: Any, lanes: int, old: Any, kept: Any) -> None:
            value = exp(self.x[(*self.index, place)] - fill(best, lanes), lanes)
            if out is not None:
                store(out, [*self.index, place], value)
            store(kept, [span(0, lanes)], kept[span(0, lanes)] + value)

        self._each(add)
        return self._folded(lambda a, b: a + b)

    def scale(self, out: Any, factor: Any) -> None:
        """Multiply what is in `out`."""

        def multiply(place: Any, lanes: int, *_: Any) -> None:
            store(out, [*self.index, place], out[(*self.index, place)] * fill(factor, lanes))

        self._each(multiply)


def _all_rows(
    shape: list[int | None], *outputs: tuple[str, int | None, str]
) -> tuple[list, list, Any, Any]:
    """Sizes, parameters, and number -> index of the row.

    outputs     name, last size (None = as that of x) and dtype of each
    """
    T = script()
    sizes = [T.int64() if size is None else size for size in shape]
    buffers = [parameter("x", sizes)]
    for name, last, dtype in outputs:
        buffers.append(parameter(name, [*sizes[:-1], last or sizes[-1]], dtype))
    count = prod(sizes[:-1], start=T.int64(1))

    def index(row: Any) -> list:
        places: list = []
        for size in reversed(sizes[:-1]):
            places.insert(0, row % size)
            row = row // size
        return places

    return sizes, buffers, count, index


def softmax(tiles: Tiles, shape: list[int | None]) -> Any:
    """Kernel (x, out) along the last axis; -inf gives exactly 0. None in `shape` = any size."""
    T = script()
    with kernel("softmax") as made:
        sizes, (x, out), count, index = _all_rows(shape, ("out", None, "float32"))

        def of_row(number: Any) -> None:
            row = _Row(tiles, x, [T.bind(i) for i in index(number)], sizes[-1])
            total = row.total(row.best(), out)
            row.scale(out, T.bind(T.float32(1) / total))

        _shared(count, of_row)
    return made[0]


def log_sum(tiles: Tiles, shape: list[int | None]) -> Any:
    """Kernel (x, total): log(sum(exp(x))) along the last axis, which becomes 1."""
    T = script()
    with kernel("log_sum") as made:
        sizes, (x, out), count, index = _all_rows(shape, ("total", 1, "float32"))

        def of_row(number: Any) -> None:
            row = _Row(tiles, x, [T.bind(i) for i in index(number)], sizes[-1])
            best = row.best()
            store(out, [*row.index, 0], T.log(row.total(best)) + best)

        with T.parallel(0, count) as number:
            of_row(number)
    return made[0]


def highest(shape: list[int | None], k: int) -> Any:
    """Kernel (x, values, places): the k highest along the last axis, in order, k at most its size.

    values      [.., k] float32
    places      [.., k] int64; of equal numbers, the first ones
    """
    T = script()
    with kernel("highest") as made:
        outputs = ("values", k, "float32"), ("places", k, "int64")
        sizes, (x, values, places), count, index = _all_rows(shape, *outputs)

        def of_row(number: Any) -> None:
            row = [T.bind(i) for i in index(number)]
            held = T.alloc_buffer((1,), "int64")  # of the highest so far, -1 = none yet
            with T.serial(0, k) as rank:
                store(held, [0], T.int64(-1))
                with T.serial(0, sizes[-1]) as i:
                    value = T.bind(x[(*row, i)])
                    best = T.bind(x[(*row, T.max(held[0], T.int64(0)))])
                    # Behind the one of the rank before: lower, or as high and later.
                    last = T.max(T.cast(rank, "int64") - T.int64(1), T.int64(0))
                    before, place = T.bind(values[(*row, last)]), T.bind(places[(*row, last)])
                    later = T.And(value == before, T.cast(i, "int64") > place)
                    behind = T.Or(rank == 0, T.Or(value < before, later))
                    with T.If(T.And(behind, T.Or(held[0] < 0, value > best))), T.Then():
                        store(held, [0], T.cast(i, "int64"))
                found = T.bind(T.max(held[0], T.int64(0)))
                store(places, [*row, rank], found)
                store(values, [*row, rank], x[(*row, found)])

        _shared(count, of_row)
    return made[0]
