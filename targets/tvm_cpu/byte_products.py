"""Matrix products in 8 bits: rows of inputs rounded as they come, weights rounded when compiled.

    out[m, n] = sum over k of levels[m, k] * weight_levels[n, k] * scale[m] * scale[n]

On x86 weights are stored as unsigned bytes (level + 128), because that is what its instructions
multiply with signed ones; what the 128 add is the sum of a row's levels, which its sum begins
without. On Arm they are signed, and it begins with 0. Four neighbours of K share a 32-bit word, and
the sums of their four products are one step. Where a CPU has no instruction for that, it multiplies
in 16 bits: inputs lie in memory so, and bytes of weights are taken apart in registers, once for all
rows of a register tile.
"""

import math
from math import ceil
from operator import add
from typing import Any

import numpy as np

from lcc.targets.low_bits import columns_of_8_bits
from lcc.targets.tvm_cpu.byte_dot import byte_of, dot, dot_16
from lcc.targets.tvm_cpu.column_tiles import ColumnTiles
from lcc.targets.tvm_cpu.rows import FEW
from lcc.targets.tvm_cpu.tir import (
    Tiles,
    fill,
    folded,
    kernel,
    lanes_of,
    parameter,
    row_of,
    script,
    shared,
    span,
    store,
)

WORD = 4  # bytes
FINER = 254  # times as fine as the first rounding is the second: what it leaves is half a level
_MORE = 2  # words behind the levels of a row of inputs: its scale, and what its sum begins with


def packed_shape(n: int, k: int, tiles: Tiles) -> tuple[int, int, int]:
    """Shape of [N, K] when it is packed: int32 words."""
    return ceil(n / tiles.byte_columns), ceil(k / WORD) + 1, tiles.byte_columns


def pack(weight: np.ndarray, tiles: Tiles) -> np.ndarray:
    """[N, K] float32 -> [ceil(N / columns), K / 4 + 1, columns] int32.

    Of a tile: words of four levels, and the scales of its columns, float32, behind them. The last
    tile is filled up with zeros.
    """
    n, k = weight.shape
    count, words, width = packed_shape(n, k, tiles)
    padded = np.zeros((count * width, (words - 1) * WORD), np.float32)
    padded[:n, :k] = weight
    rounded = columns_of_8_bits(padded.T)
    levels = (rounded.levels.T.astype(np.int16) + _zero_of(tiles)).astype(np.uint8)
    packed = np.empty((count, words, width), np.int32)
    words_of = _in_words(levels.reshape(count, width, words - 1, WORD), tiles).view("<i4")[..., 0]
    packed[:, :-1] = words_of.transpose(0, 2, 1)
    packed[:, -1] = rounded.scales.reshape(count, width).view(np.int32)
    return packed


def _zero_of(tiles: Tiles) -> int:
    """The byte of a weight that is 0."""
    return tiles.least_byte + 128


def _in_words(levels: np.ndarray, tiles: Tiles) -> np.ndarray:
    """Four levels of each word in the order of its bytes; neighbours in 16 bits are 2 apart."""
    return np.ascontiguousarray(levels[..., [0, 2, 1, 3]]) if tiles.in_16_bits else levels


def _input_words(k: int, tiles: Tiles) -> int:
    """Words of the levels of K inputs."""
    return ceil(k / WORD) * (2 if tiles.in_16_bits else 1)


def rounded_size(k: int, tiles: Tiles) -> int:
    """Words of a row of K inputs when it is rounded."""
    return _input_words(k, tiles) + _MORE


def round_rows(k: int, rank: int, tiles: Tiles, *, fine: bool = False) -> Any:
    """Kernel (x, out): each row in 8 bits, even about zero, with a scale of its own.

    x           [1, .., M, K] float32, of `rank` axes, M any
    out         [1, .., M, K / 4 + 2] int32: words of four levels, or K / 2 of two where
                `in_16_bits`; the scale, float32; what a sum begins with, on x86 less 128 times the
                sum of the levels
    fine        two rows of `out` for each of x: what the first leaves is rounded in the second

    A row with a number that is none has such a scale, so that no product hides it.
    """
    T, zero, lanes = script(), (0,) * (rank - 2), lanes_of(k, tiles.lanes)
    words, level_bytes = rounded_size(k, tiles), 2 if tiles.in_16_bits else 1
    of_word, dtype = 4 // level_bytes, f"int{8 * level_bytes}"
    kind = f"x{lanes}" if lanes > 1 else ""
    with kernel(f"round_rows_{k}") as made:
        m, each = T.int64(), 2 if fine else 1
        x = parameter("x", (*(1,) * (rank - 2), m, k))
        out = parameter("out", (*(1,) * (rank - 2), each * m, words), "int32")
        levels = T.decl_buffer((each * m * words * of_word,), dtype, data=out.data)

        def of_row(j: Any) -> None:
            most, plain = (T.alloc_buffer((lanes,), "float32") for _ in range(2))
            store(plain, [span(0, lanes)], fill(0.0, lanes))
            totals = [T.alloc_buffer((lanes,), "int32") for _ in range(each)]
            store(most, [span(0, lanes)], fill(0.0, lanes))
            for total in totals:
                store(total, [span(0, lanes)], fill(T.int32(0), lanes))
            with T.serial(0, k // lanes) as part:
                value = x[(*zero, j, span(part * lanes, lanes))]
                size = T.max(value, fill(0.0, lanes) - value)
                store(most, [span(0, lanes)], T.max(most[span(0, lanes)], size))
                store(plain, [span(0, lanes)], plain[span(0, lanes)] + value)
            largest = T.bind(T.max(folded(most[span(0, lanes)], lanes, T.max), T.float32(1e-30)))
            is_none = T.bind(T.isnan(folded(plain[span(0, lanes)], lanes, add)))
            factor = T.bind(T.float32(127) / largest)
            for n in range(each):
                for word in range(_input_words(k - k % WORD, tiles), words - _MORE):
                    store(out, [*zero, each * j + n, word], T.int32(0))
            with T.serial(0, k // lanes) as part:
                value = T.bind(x[(*zero, j, span(part * lanes, lanes))] * fill(factor, lanes))
                for n, total in enumerate(totals):
                    near = T.bind(T.nearbyint(value))
                    level = T.bind(T.cast(near, f"int32{kind}"))
                    store(total, [span(0, lanes)], total[span(0, lanes)] + level)
                    place = (each * j + n) * (words * of_word) + part * lanes
                    store(levels, [span(place, lanes)], T.cast(level, f"{dtype}{kind}"))
                    value = (value - near) * fill(FINER, lanes)
            for n, total in enumerate(totals):
                scale = largest / T.float32(127 * FINER**n)
                scale = T.Select(is_none, T.float32(math.nan), scale)
                store(out, [*zero, each * j + n, words - 2], T.reinterpret("int32", scale))
                sums = folded(total[span(0, lanes)], lanes, add, "int32")
                store(out, [*zero, each * j + n, words - 1], sums * T.int32(-_zero_of(tiles)))

        shared(m, of_row, worth=m >= FEW)
    return made[0]


def linear(
    n: int, k: int, rank: int, tiles: Tiles, *, bias: bool = False, fine: bool = False
) -> Any:
    """Kernel (x, packed, [bias,] out): out = x @ weight.T + bias.

    x           [1, .., M, `rounded_size`] int32, see `round_rows`, of `rank` axes
    packed      see `pack`
    bias        [N]
    out         [1, .., M, N] float32
    fine        as of `round_rows`; the second rows of x are read where M is 1
    """
    T, one, zero = script(), (1,) * (rank - 2), (0,) * (rank - 2)
    lanes, width, words = tiles.lanes, tiles.byte_columns, ceil(k / WORD)
    with kernel(f"linear_bytes_{n}_{k}{'_fine' if fine else ''}") as made:
        m, each = T.int64(), 2 if fine else 1
        x = parameter("x", (*one, each * m, rounded_size(k, tiles)), "int32")
        w = parameter("w", packed_shape(n, k, tiles), "int32")
        b = parameter("b", (n,)) if bias else None
        out = parameter("out", (*one, m, n))
        loops = ColumnTiles(out, b, n=n, width=width, lanes=lanes)

        def put(parts: list, row: Any, tile: Any) -> None:
            """A row of the result: of sums and the rows of x that they are of."""
            last = _input_words(k, tiles)
            scales = [T.reinterpret("float32", x[(*zero, source, last)]) for _, source in parts]
            scales = [fill(T.bind(each), lanes) for each in scales]

            def value(column: int) -> Any:
                here, total = span(column, lanes), fill(0.0, lanes)
                for (sums, _), scale in zip(parts, scales, strict=True):
                    total = total + T.cast(sums[here], f"float32x{lanes}") * scale
                return total * T.reinterpret(f"float32x{lanes}", w[tile, words, here])

            loops.put([*zero, row], tile, value)

        def step(sums: Any, levels: Any, source: Any, word: Any) -> Any:
            if not tiles.in_16_bits:
                return dot(sums, levels, x[(*zero, source, word)], tiles)
            two = [x[(*zero, source, 2 * word + i)] for i in range(2)]
            return dot_16(sums, levels, two, tiles)

        def product(parts: list, tile: Any) -> None:
            for sums, source in parts:
                begin = fill(x[(*zero, source, _input_words(k, tiles) + 1)], lanes)
                for column in range(0, width, lanes):
                    store(sums, [span(column, lanes)], begin)
            with T.serial(0, words) as word:
                for sums, source in parts:
                    for column in range(0, width, lanes):
                        here = span(column, lanes)
                        store(sums, [here], step(sums[here], w[tile, word, here], source, word))

        def column_tile(tile: Any) -> None:
            registers = [T.alloc_buffer((width,), "int32") for _ in range(tiles.rows)]

            def several_rows(count: int, first: Any) -> None:
                parts = [(registers[i], each * (first + i)) for i in range(count)]
                product(parts, tile)
                for i, part in enumerate(parts):
                    put([part], first + i, tile)

            if not fine:
                loops.rows(m, tiles.rows, several_rows)
                return
            with T.If(m == 1):
                with T.Then():
                    both = [(registers[0], 0), (registers[1], 1)]
                    product(both, tile)
                    put(both, 0, tile)
                with T.Else():
                    loops.rows(m, tiles.rows, several_rows)

        loops.each(column_tile)
    return made[0]


def lookup(n: int, k: int, tiles: Tiles, dtype: str) -> Any:
    """Kernel (packed, tokens, out): rows of a table that is packed for products, as float32.

    tokens      [1, Q] of `dtype`; what is no row of the table gives its first or last one
    out         [1, Q, K] float32
    """
    T, width, words = script(), tiles.byte_columns, ceil(k / WORD)
    with kernel("lookup_bytes") as made:
        q = T.int64()
        table = parameter("table", packed_shape(n, k, tiles), "int32")
        tokens = parameter("tokens", (1, q), dtype)
        out = parameter("out", (1, q, k))
        with T.serial(0, q) as j:
            token = row_of(tokens, j, n)
            tile, column = T.bind(token // width), T.bind(token % width)
            scale = T.bind(T.reinterpret("float32", table[tile, words, column]))
            with T.serial(0, k) as d:
                byte = T.cast(d % WORD, "int32")
                if tiles.in_16_bits:  # 0, 2, 1, 3; see `_in_words`
                    byte = byte // 2 + byte % 2 * 2
                shift = byte * 8
                level = byte_of(table[tile, d // WORD, column], shift, tiles) - _zero_of(tiles)
                store(out, [0, j, d], T.cast(level, "float32") * scale)
    return made[0]
