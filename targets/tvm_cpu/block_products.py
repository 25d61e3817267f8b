"""Matrix products in 4 or 8 bits with scales of their own for blocks of 32 inputs.

    weight[n, k] = level[n, k] * scale[n, k // 32] + least[n, k // 32]
    out[m, n] = sum over blocks b of  x_scale[m, b] * (scale[n, b] * dots + least[n, b] * sums)

Here dots is the sum over the block of level[n, k] * x_level[m, k], sums that of x_level[m, k].
Levels of inputs are signed, those of weights unsigned, but for 8 bits on Arm, where they begin with
-128 and the block's `least` is what level 0 stands for. Scales and leasts are in float16 beside a
power of two for each column: those of a file in GGUF's Q4_1 are exact where they are no less than a
thousandth of the column's largest. Words of 4 bits are taken apart in registers, once for all rows
of a register tile.
"""

import math
from math import ceil
from operator import add
from typing import Any

import numpy as np

from lcc.targets.low_bits import BLOCK
from lcc.targets.tvm_cpu.byte_dot import byte_of, dot, dot_small, widened
from lcc.targets.tvm_cpu.column_tiles import ColumnTiles
from lcc.targets.tvm_cpu.rows import FEW
from lcc.targets.tvm_cpu.tir import (
    Tiles,
    clear,
    fill,
    folded,
    kernel,
    parameter,
    row_of,
    rows_of,
    script,
    shared,
    span,
    store,
)

_WORDS = BLOCK // 4  # of four levels of inputs
_OF_INPUT = _WORDS + 2  # behind them the block's scale, and scale * sum of the levels
_HALF_TO_FLOAT = 2.0**112  # what a float16's exponent lacks when its bits stand in a float32


def packed_shape(n: int, k: int, tiles: Tiles, *, bits: int) -> tuple[int, int, int]:
    """Shape of [N, K] when it is packed, K a multiple of 32: int32 words."""
    return ceil(n / tiles.columns), k // BLOCK * _of_weight(bits) + 1, tiles.columns


def _of_weight(bits: int) -> int:
    """Words of a block of a column: levels, and its scale and least."""
    return BLOCK * bits // 32 + 1


def pack(weight: np.ndarray, tiles: Tiles, *, bits: int) -> np.ndarray:
    """[N, K] float32 -> [ceil(N / columns), words, columns] int32; see `packed_shape`.

    Of each block the words of its levels and one of its scale (lower half) and its least (upper
    half); behind all blocks the power of two that both are multiplied by. Of 4 bits byte b of word
    i has the levels of inputs 4 i + b and 16 + 4 i + b, of 8 bits that of 4 i + b.
    """
    n, k = weight.shape
    count, words, width = packed_shape(n, k, tiles, bits=bits)
    padded = np.zeros((count * width, k // BLOCK, BLOCK), np.float32)
    padded[:n] = weight.reshape(n, -1, BLOCK)
    least, largest = padded.min(axis=2), padded.max(axis=2)
    far = np.maximum(np.abs(least), np.abs(largest)).max(axis=1, keepdims=True)
    power = np.exp2(np.ceil(np.log2(np.where(far > 0, far, 1)))).astype(np.float32)
    power = np.where(np.isfinite(far), power, np.float32(np.nan))  # which no product hides
    scale = ((largest - least) / (power * (2**bits - 1))).astype(np.float16)
    step = scale.astype(np.float32)[..., None]
    first = tiles.least_byte if bits == 8 else 0
    least = (least / power - first * step[..., 0]).astype(np.float16)
    above = padded / power[..., None] - least.astype(np.float32)[..., None]
    levels = np.rint(above / np.where(step > 0, step, 1)).clip(first, first + 2**bits - 1)
    levels = levels.astype(np.int16).astype(np.uint8)
    levels[step[..., 0] == 0] = 0
    if bits == 4:
        levels = levels[..., : BLOCK // 2] | levels[..., BLOCK // 2 :] << 4
    packed = np.empty((count * width, k // BLOCK, _of_weight(bits)), np.uint32)
    packed[..., :-1] = np.ascontiguousarray(levels).view("<u4")
    high = least.view(np.uint16).astype(np.uint32) << 16
    packed[..., -1] = scale.view(np.uint16) | high
    flat = np.concatenate([packed.reshape(count * width, -1), power.view(np.uint32)], axis=1)
    tiled = flat.view(np.int32).reshape(count, width, words)
    return np.ascontiguousarray(tiled.transpose(0, 2, 1))


def rounded_size(k: int) -> int:
    """Words of a row of K inputs when it is rounded."""
    return k // BLOCK * _OF_INPUT


def round_rows(k: int, rank: int, tiles: Tiles) -> Any:
    """Kernel (x, out): each block of 32 inputs in 8 bits, even about zero, with its own scale.

    x       [1, .., M, K] float32, of `rank` axes, M any, K a multiple of 32
    out     [1, .., M, K / 32 * 10] int32: of each block eight words of four levels, its scale, and
            the scale times the sum of its levels

    A block with a number that is none has such a scale, so that no product hides it.
    """
    T, zero, lanes = script(), (0,) * (rank - 2), tiles.lanes
    here, kind = span(0, lanes), f"x{lanes}"
    with kernel(f"round_blocks_{k}") as made:
        m = T.int64()
        x = parameter("x", (*(1,) * (rank - 2), m, k))
        out = parameter("out", (*(1,) * (rank - 2), m, rounded_size(k)), "int32")
        bytes_of = T.decl_buffer((m * rounded_size(k) * 4,), "int8", data=out.data)

        def of_row(j: Any) -> None:
            with T.serial(0, k // BLOCK) as block:
                parts = range(0, BLOCK, lanes)
                values = [T.bind(x[(*zero, j, span(block * BLOCK + i, lanes))]) for i in parts]
                most, plain = (rows_of(1, lanes)[0] for _ in range(2))
                store(most, [here], fill(0.0, lanes))
                store(plain, [here], fill(0.0, lanes))
                for value in values:
                    size = T.max(value, fill(0.0, lanes) - value)
                    store(most, [here], T.max(most[here], size))
                    store(plain, [here], plain[here] + value)
                largest = T.bind(T.max(folded(most[here], lanes, T.max), T.float32(1e-30)))
                is_none = T.bind(T.isnan(folded(plain[here], lanes, add)))
                factor = T.bind(T.float32(127) / largest)
                total = T.alloc_buffer((lanes,), "int32")
                store(total, [here], fill(T.int32(0), lanes))
                first = T.bind(block * _OF_INPUT)
                for i, value in zip(parts, values, strict=True):
                    near = T.nearbyint(value * fill(factor, lanes))
                    level = T.bind(T.cast(near, f"int32{kind}"))
                    store(total, [here], total[here] + level)
                    place = (j * rounded_size(k) + first) * 4 + i
                    store(bytes_of, [span(place, lanes)], T.cast(level, f"int8{kind}"))
                scale = largest * T.float32(1 / 127)
                scale = T.bind(T.Select(is_none, T.float32(math.nan), scale))
                sums = T.cast(folded(total[here], lanes, add, "int32"), "float32") * scale
                for word, number in ((_WORDS, scale), (_WORDS + 1, sums)):
                    store(out, [*zero, j, first + word], T.reinterpret("int32", number))

        shared(m, of_row, worth=m >= FEW)
    return made[0]


def linear(n: int, k: int, rank: int, tiles: Tiles, *, bits: int, bias: bool = False) -> Any:
    """Kernel (x, packed, [bias,] out): out = x @ weight.T + bias.

    x           [1, .., M, K / 32 * 10] int32, see `round_rows`, of `rank` axes
    packed      see `pack`
    bias        [N]
    out         [1, .., M, N] float32
    """
    T, one, zero = script(), (1,) * (rank - 2), (0,) * (rank - 2)
    lanes, width = tiles.lanes, tiles.columns
    with kernel(f"linear_blocks_{bits}_{n}_{k}") as made:
        m = T.int64()
        x = parameter("x", (*one, m, rounded_size(k)), "int32")
        w = parameter("w", packed_shape(n, k, tiles, bits=bits), "int32")
        b = parameter("b", (n,)) if bias else None
        out = parameter("out", (*one, m, n))
        loops = ColumnTiles(out, b, n=n, width=width, lanes=lanes)

        def add_block(rows: list, first: Any, tile: Any, block: Any) -> None:
            """Add a block of the columns of a tile to the sums of rows: a word of all, then on."""
            inputs, place = T.bind(block * _OF_INPUT), T.bind(block * _of_weight(bits))
            columns = [span(column, lanes) for column in range(0, width, lanes)]
            small = bits == 4 and tiles.bytes == "maddubs"
            begin = fill(T.int16(0), 2 * lanes) if small else fill(T.int32(0), lanes)
            dots = [[begin] * len(columns) for _ in rows]
            add_up = dot_small if small else dot
            for j in range(_WORDS):
                levels = [
                    T.bind(_level(w, (tile, place), here, j, bits, lanes)) for here in columns
                ]
                for i, of_row in enumerate(dots):
                    four = T.bind(x[(*zero, first + i, inputs + j)])
                    for c, level in enumerate(levels):
                        of_row[c] = T.bind(add_up(of_row[c], level, four, tiles))
            last = place + _of_weight(bits) - 1
            both = [map(T.bind, _halves(T.bind(w[tile, last, here]), lanes)) for here in columns]
            halves = list(map(tuple, both))
            for i, (sums, of_row) in enumerate(zip(rows, dots, strict=True)):
                scale_of_x, scaled = (
                    fill(T.bind(T.reinterpret("float32", x[(*zero, first + i, inputs + j)])), lanes)
                    for j in (_WORDS, _WORDS + 1)
                )
                for here, dots_of, (scale, least) in zip(columns, of_row, halves, strict=True):
                    whole = widened(dots_of, tiles) if small else dots_of
                    value = T.cast(whole, f"float32x{lanes}") * scale_of_x
                    store(sums, [here], sums[here] + value * scale + scaled * least)

        def column_tile(tile: Any) -> None:
            registers = rows_of(tiles.block_rows, width)

            def product(count: int, first: Any) -> None:
                sums = registers[:count]
                clear(sums, width=width, lanes=lanes)
                with T.serial(0, k // BLOCK) as block:
                    add_block(sums, first, tile, block)
                powers = packed_shape(n, k, tiles, bits=bits)[1] - 1
                for i, total in enumerate(sums):

                    def value(column: int, total: Any = total) -> Any:
                        here = span(column, lanes)
                        power = T.reinterpret(f"float32x{lanes}", w[tile, powers, here])
                        return total[here] * power

                    loops.put([*zero, first + i], tile, value)

            loops.rows(m, tiles.block_rows, product)

        loops.each(column_tile)
    return made[0]


def lookup(n: int, k: int, tiles: Tiles, dtype: str, *, bits: int) -> Any:
    """Kernel (packed, tokens, out): rows of a table that is packed for products, as float32.

    tokens      [1, Q] of `dtype`; what is no row of the table gives its first or last one
    out         [1, Q, K] float32
    """
    T, width, size = script(), tiles.columns, _of_weight(bits)
    shape = packed_shape(n, k, tiles, bits=bits)
    with kernel(f"lookup_blocks_{bits}") as made:
        q = T.int64()
        table = parameter("table", shape, "int32")
        tokens = parameter("tokens", (1, q), dtype)
        out = parameter("out", (1, q, k))
        with T.serial(0, q) as t:
            token = row_of(tokens, t, n)
            tile, column = T.bind(token // width), T.bind(token % width)
            power = T.bind(T.reinterpret("float32", table[tile, shape[1] - 1, column]))
            with T.serial(0, k // BLOCK) as block:
                first = T.bind(block * size)
                halves = _halves(T.bind(table[tile, first + size - 1, column]), 1)
                scale, least = (T.bind(each * power) for each in halves)
                for j in range(_WORDS):
                    levels = T.bind(_level(table, (tile, first), column, j, bits, 1))
                    for byte in range(4):
                        one = byte_of(levels, T.int32(8 * byte), tiles)
                        value = T.cast(one, "float32") * scale + least
                        store(out, [0, t, block * BLOCK + 4 * j + byte], value)
    return made[0]


def _level(w: Any, place: tuple, columns: Any, j: int, bits: int, lanes: int) -> Any:
    """Word j of four levels of each column, of the block whose words begin at `place`."""
    T, (tile, first) = script(), place
    if bits == 8:
        return w[tile, first + j, columns]
    half = _WORDS // 2
    word, low = w[tile, first + j % half, columns], fill(T.int32(0x0F0F0F0F), lanes)
    return (word >> fill(T.int32(4), lanes)) & low if j >= half else word & low


def _halves(word: Any, lanes: int) -> tuple[Any, Any]:
    """Two float16 of a word as float32, the lower one at least 0; on any CPU."""
    T, kind = script(), f"float32x{lanes}" if lanes > 1 else "float32"
    low = (word & fill(T.int32(0x7FFF), lanes)) << fill(T.int32(13), lanes)
    high = (word >> fill(T.int32(3), lanes)) & fill(T.int32(0x0FFFE000), lanes)
    high = high | (word & fill(T.int32(-(2**31)), lanes))
    return tuple(T.reinterpret(kind, bits) * fill(_HALF_TO_FLOAT, lanes) for bits in (low, high))
