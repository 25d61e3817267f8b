"""Matrix products: by packed weights, between two activations, and rows of a packed table."""

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np

from lcc.targets.tvm_cpu.column_tiles import ColumnTiles
from lcc.targets.tvm_cpu.tir import (
    Tiles,
    clear,
    kernel,
    multiply_add,
    parameter,
    row_of,
    rows_of,
    script,
    span,
    store,
)

DEPTH = 192  # products that are added up at a time: sums of sums round off less


def packed_shape(n: int, k: int, tiles: Tiles) -> tuple[int, int, int]:
    """Shape of [N, K] when it is packed."""
    return ceil(n / tiles.columns), k, tiles.columns


def pack(weight: np.ndarray, tiles: Tiles) -> np.ndarray:
    """[N, K] -> [ceil(N / columns), K, columns]: what the inner loop reads lies in one piece.

    The last tile is filled up with zeros.
    """
    n, k = weight.shape
    count, _, _ = packed_shape(n, k, tiles)
    padded = np.zeros((count * tiles.columns, k), weight.dtype)
    padded[:n] = weight
    return np.ascontiguousarray(padded.reshape(count, tiles.columns, k).transpose(0, 2, 1))


def add_products(
    rows: list,
    sums: list,
    k: int,
    left: Callable[[int, Any], Any],
    right: Callable[[Any, Any], Any],
    tiles: Tiles,
) -> None:
    """sums[i][:] = sum over d < k of left(i, d) * right(d, column), DEPTH products at a time.

    rows, sums  in registers, [tiles.columns] each; what is in `rows` is lost
    left        (i, d) -> number
    right       (d, first column) -> vector
    """
    T, width, lanes = script(), tiles.columns, tiles.lanes
    depth = max((d for d in range(DEPTH // 2, DEPTH + 1) if k % d == 0), default=DEPTH)
    clear(sums, width=width, lanes=lanes)
    with T.serial(0, ceil(k / depth)) as part:
        begin = part * depth
        clear(rows, width=width, lanes=lanes)
        multiply_add(
            rows,
            T.min(k - begin, depth) if k % depth else depth,
            lambda i, d: left(i, begin + d),
            lambda d, column: right(begin + d, column),
            width=width,
            lanes=lanes,
        )
        for row, total in zip(rows, sums, strict=True):
            for column in range(0, width, lanes):
                place = span(column, lanes)
                store(total, [place], total[place] + row[place])


def linear(n: int, k: int, rank: int, tiles: Tiles, *, bias: bool) -> Any:
    """Kernel (x, packed, [bias,] out): out = x @ weight.T + bias.

    x           [1, .., M, K] float32, of `rank` axes, M any
    packed      see `pack`
    bias        [N]
    out         [1, .., M, N]
    """
    T, one, zero = script(), (1,) * (rank - 2), (0,) * (rank - 2)
    lanes, width = tiles.lanes, tiles.columns
    with kernel(f"linear_{n}_{k}") as made:
        m = T.int64()
        x = parameter("x", (*one, m, k))
        w = parameter("w", packed_shape(n, k, tiles))
        b = parameter("b", (n,)) if bias else None
        out = parameter("out", (*one, m, n))
        loops = ColumnTiles(out, b, n=n, width=width, lanes=lanes)

        def column_tile(tile: Any) -> None:
            registers, totals = rows_of(tiles.rows, width), rows_of(tiles.rows, width)

            def product(count: int, first: Any) -> None:
                add_products(
                    registers[:count],
                    totals[:count],
                    k,
                    lambda i, d: x[(*zero, first + i, d)],
                    lambda d, column: w[tile, d, span(column, lanes)],
                    tiles,
                )
                for i, row in enumerate(totals[:count]):

                    def value(column: int, row: Any = row) -> Any:
                        return row[span(column, lanes)]

                    loops.put([*zero, first + i], tile, value)

            loops.rows(m, tiles.rows, product)

        loops.each(column_tile)
    return made[0]


def batched(tiles: Tiles, batch: int, m: Any, k: Any, n: Any) -> Any:
    """Kernel (a, b, out): out[i] = a[i] @ b[i], of sizes that may be known only when it runs.

    a           [batch, M, K] float32
    b           [batch, K, N]
    out         [batch, M, N]
    m, k, n     a number, or None = any
    """
    T = script()
    lanes, width, rows = tiles.lanes, tiles.columns, tiles.rows
    with kernel("batched") as made:
        m, k, n = (T.int64() if size is None else size for size in (m, k, n))
        a = parameter("a", (batch, m, k))
        b = parameter("b", (batch, k, n))
        out = parameter("out", (batch, m, n))
        across = (n + width - 1) // width
        with T.parallel(0, batch * across) as task:
            i, first = T.bind(task // across), T.bind(task % across * width)
            count = T.bind(T.min(n - first, width))
            packed = T.alloc_buffer((k, width), "float32")
            edge = T.alloc_buffer((width,), "float32")
            with T.serial(0, k) as d:
                with T.serial(0, count) as c:
                    store(packed, [d, c], b[i, d, first + c])
                with T.serial(count, width) as c:
                    store(packed, [d, c], T.float32(0))
            registers = rows_of(rows, width)

            def product(count_rows: int, row: Any) -> None:
                used = registers[:count_rows]
                clear(used, width=width, lanes=lanes)
                multiply_add(
                    used,
                    k,
                    lambda r, d: a[i, row + r, d],
                    lambda d, column: packed[d, span(column, lanes)],
                    width=width,
                    lanes=lanes,
                )
                for r, values in enumerate(used):
                    for column in range(0, width, lanes):
                        store(edge, [span(column, lanes)], values[span(column, lanes)])
                    with T.serial(0, count) as c:
                        store(out, [i, row + r, first + c], edge[c])

            with T.serial(0, m // rows) as group:
                product(rows, group * rows)
            with T.serial(0, m % rows) as row:
                product(1, m // rows * rows + row)
    return made[0]


def lookup(count: int, k: int, width: int | None, dtype: str) -> Any:
    """Kernel (table, tokens, out): rows of an embedding.

    table       [count, K] float32; with `width`, packed in tiles of so many rows, for both its uses
    tokens      [1, Q] of `dtype`; what is no row of the table gives its first or last one
    out         [1, Q, K] float32
    """
    T = script()
    with kernel("lookup") as made:
        q = T.int64()
        shape = (count, k) if width is None else (ceil(count / width), k, width)
        table = parameter("table", shape)
        tokens = parameter("tokens", (1, q), dtype)
        out = parameter("out", (1, q, k))
        with T.serial(0, q) as j:
            token = row_of(tokens, j, count)
            with T.serial(0, k) as d:
                place = (token, d) if width is None else (token // width, d, token % width)
                store(out, [0, j, d], table[place])
    return made[0]
