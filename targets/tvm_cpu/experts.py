"""Experts: the rows that chose one go through it together; one that nobody chose costs nothing.

Rows of an expert are found by counting. Threads share the tiles of columns, so each reads a part of
every expert that is hit, and no two add to the same number. Gate and other half of a number lie in
one tile of the first weights: what the gate makes of them is stored, and they never are.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lcc.targets.tvm_cpu.expert_weights import down_shape, up_shape
from lcc.targets.tvm_cpu.matmul import add_products
from lcc.targets.tvm_cpu.tir import (
    Tiles,
    erf,
    exp,
    fill,
    kernel,
    parameter,
    rows_of,
    script,
    span,
    store,
    tanh,
)


@dataclass(frozen=True)
class Experts:
    """What is known of `lcc::experts` when it is compiled.

    count, chosen       experts there are, and those of one token
    width, inner        numbers of a token, and of the gate's result
    activation .. limit see `lcc.passes.experts.gate`
    up_bias, down_bias  whether a product has a bias
    gated               whether there is another half, which the activation is multiplied with
    """

    count: int
    chosen: int
    width: int
    inner: int
    activation: str
    alpha: float = 1.0
    beta: float = 0.0
    limit: float = math.inf
    up_bias: bool = False
    down_bias: bool = False
    gated: bool = True

    def numbers(self, tiles: Tiles) -> int:
        """Of the gate's result, that come of one tile of the first weights."""
        return tiles.lanes if self.gated else tiles.columns


def experts(layer: Experts, tiles: Tiles) -> Any:
    """Kernel (x, chosen, shares, up, down, [up_bias,] [down_bias,] out) of `lcc::experts`.

    x, out          [T, H] float32
    chosen          [T, K] int64; what is no expert is taken for the first or the last one
    shares          [T, K] float32
    up, down        see `expert_weights`; without a gate, `up` is packed as `down` is
    up_bias         [E, ceil(I / lanes), 1, 2 * lanes] or [E, ceil(I / columns), 1, columns]
    down_bias       [E, H]
    """
    T = script()
    assert tiles.columns == 2 * tiles.lanes, "gate and other half share a tile"
    with kernel("experts") as made:
        tokens = T.int64()
        x = parameter("x", (tokens, layer.width))
        chosen = parameter("chosen", (tokens, layer.chosen), "int64")
        shares = parameter("shares", (tokens, layer.chosen))
        shape_of, rows = (up_shape, 2) if layer.gated else (down_shape, 1)
        sizes = (layer.count, rows * layer.inner, layer.width)
        up = parameter("up", shape_of(sizes, tiles))
        down = parameter("down", down_shape((layer.count, layer.width, layer.inner), tiles))
        biases = (
            parameter("up_bias", shape_of((*sizes[:2], 1), tiles)) if layer.up_bias else None,
            parameter("down_bias", (layer.count, layer.width)) if layer.down_bias else None,
        )
        out = parameter("out", (tokens, layer.width))
        hit = _Hit(layer, chosen, tokens)
        numbers = layer.numbers(tiles)
        across = math.ceil(layer.inner / numbers)
        middle = T.alloc_buffer((tokens * layer.chosen, across * numbers), "float32")
        with T.parallel(0, across * hit.count) as task:
            tile, expert = T.bind(task // hit.count), hit.expert(task % hit.count)
            _first_product(layer, tiles, (x, up, biases[0], middle), hit, expert, tile)
        args = (middle, shares, down, biases[1], out)
        if whole := layer.width // tiles.columns:
            with T.parallel(0, whole) as tile:
                _second_product(layer, tiles, args, hit, tokens, tile, tiles.columns)
        if rest := layer.width % tiles.columns:
            _second_product(layer, tiles, args, hit, tokens, whole, rest)
    return made[0]


class _Hit:
    """Which experts some token chose, and by which rows: row = token * K + place among its K.

    count       of experts that are hit
    """

    def __init__(self, layer: Experts, chosen: Any, tokens: Any) -> None:
        T, self._each = script(), layer.chosen
        rows, last = tokens * layer.chosen, layer.count - 1
        self._begins = T.alloc_buffer((layer.count + 1,), "int64")  # of each in `_order`
        self._order = T.alloc_buffer((rows,), "int64")
        self._hit = T.alloc_buffer((layer.count,), "int64")
        filled, count = T.alloc_buffer((layer.count,), "int64"), T.alloc_buffer((1,), "int64")

        def expert_of(row: Any) -> Any:
            expert = chosen[row // self._each, row % self._each]
            return T.bind(T.max(T.min(expert, T.int64(last)), T.int64(0)))

        with T.serial(0, layer.count + 1) as e:
            store(self._begins, [e], T.int64(0))
        with T.serial(0, rows) as row:
            e = expert_of(row)
            store(self._begins, [e + 1], self._begins[e + 1] + T.int64(1))
        store(count, [0], T.int64(0))
        with T.serial(0, layer.count) as e:
            store(filled, [e], self._begins[e])
            with T.If(self._begins[e + 1] > 0), T.Then():
                store(self._hit, [count[0]], T.cast(e, "int64"))
                store(count, [0], count[0] + T.int64(1))
            store(self._begins, [e + 1], self._begins[e] + self._begins[e + 1])
        with T.serial(0, rows) as row:
            e = expert_of(row)
            store(self._order, [filled[e]], T.cast(row, "int64"))
            store(filled, [e], filled[e] + T.int64(1))
        self.count = T.bind(count[0])

    def expert(self, number: Any) -> Any:
        """One of those that are hit."""
        return script().bind(self._hit[number])

    def groups(self, expert: Any, most: int, body: Callable[[int, Any, list, list], None]) -> None:
        """Call body(count, first, tokens, places) for the rows of an expert, `most` at a time.

        What is left is taken by halves: of 8, 4, 2 and 1.
        first   place of the first row among those of all experts
        """
        T = script()
        begin, end = T.bind(self._begins[expert]), T.bind(self._begins[expert + 1])
        count = most
        while count:
            times = T.bind((end - begin) // count)
            with T.serial(0, times) as group:
                first = T.bind(begin + group * count)
                rows = [T.bind(self._order[first + i]) for i in range(count)]
                tokens = [T.bind(row // self._each) for row in rows]
                body(count, first, tokens, [T.bind(row % self._each) for row in rows])
            begin = T.bind(begin + times * count)
            count //= 2


def _first_product(
    layer: Experts, tiles: Tiles, args: tuple, hit: _Hit, expert: Any, tile: Any
) -> None:
    """Some numbers of the gate's results, of all rows of an expert."""
    x, up, bias, middle = args
    lanes = tiles.lanes
    registers, totals = (rows_of(tiles.rows, tiles.columns) for _ in range(2))

    def product(count: int, first: Any, tokens: list, _: list) -> None:
        sums = totals[:count]
        add_products(
            registers[:count],
            sums,
            layer.width,
            lambda i, d: x[tokens[i], d],
            lambda d, column: up[expert, tile, d, span(column, lanes)],
            tiles,
        )
        for i, row in enumerate(sums):
            halves = [row[span(column, lanes)] for column in (0, lanes)]
            if bias is not None:
                places = [span(column, lanes) for column in (0, lanes)]
                halves = [h + bias[expert, tile, 0, p] for h, p in zip(halves, places, strict=True)]
            results = (
                [_gate(layer, halves, lanes)]
                if layer.gated
                else [_activated(layer, each, lanes) for each in halves]
            )
            for j, result in enumerate(results):
                place = span(tile * layer.numbers(tiles) + j * lanes, lanes)
                store(middle, [first + i, place], result)

    hit.groups(expert, tiles.rows, product)


def _second_product(
    layer: Experts, tiles: Tiles, args: tuple, hit: _Hit, tokens: Any, tile: Any, used: int
) -> None:
    """Columns of the result, `used` of a tile: what all experts make, times their shares."""
    T = script()
    middle, shares, down, bias, out = args
    registers, totals = (rows_of(tiles.rows, tiles.columns) for _ in range(2))
    lanes = tiles.lanes if used == tiles.columns else 1
    edge = T.alloc_buffer((tiles.columns,), "float32") if used < tiles.columns else None
    with T.serial(0, tokens) as token:
        for column in range(0, used, lanes):
            store(out, [token, span(tile * tiles.columns + column, lanes)], fill(0.0, lanes))

    def add(row: Any, token: Any, place: Any, expert: Any) -> None:
        share = T.bind(shares[token, place])
        if edge is not None:
            for column in range(0, tiles.columns, tiles.lanes):
                store(edge, [span(column, tiles.lanes)], row[span(column, tiles.lanes)])
            row = edge
        for column in range(0, used, lanes):
            place = span(tile * tiles.columns + column, lanes)
            value = row[span(column, lanes)]
            if bias is not None:
                value = value + bias[expert, place]
            store(out, [token, place], out[token, place] + value * fill(share, lanes))

    with T.serial(0, hit.count) as number:
        expert = hit.expert(number)

        def product(count: int, first: Any, rows: list, places: list) -> None:
            sums = totals[:count]
            add_products(
                registers[:count],
                sums,
                layer.inner,
                lambda i, d: middle[first + i, d],
                lambda d, column: down[expert, tile, d, span(column, tiles.lanes)],
                tiles,
            )
            for row, token, place in zip(sums, rows, places, strict=True):
                add(row, token, place, expert)

        hit.groups(expert, tiles.rows, product)


def _gate(layer: Experts, halves: list, lanes: int) -> Any:
    """What `lcc.passes.experts.gate` makes of a vector of each half."""
    T = script()
    first, other = (T.bind(each) for each in halves)
    if not math.isinf(layer.limit):
        most = fill(layer.limit, lanes)
        first = T.bind(T.min(first, most))
        other = T.bind(T.max(T.min(other, most), fill(-layer.limit, lanes)))
    gate = _activated(layer, first, lanes)
    return T.bind(gate * (other if layer.beta == 0 else other + fill(layer.beta, lanes)))


def _activated(layer: Experts, value: Any, lanes: int) -> Any:
    """What one of `lcc.passes.experts.ACTIVATIONS` makes of a vector."""
    T = script()
    first = T.bind(value)
    x = first if layer.alpha == 1 else T.bind(first * fill(layer.alpha, lanes))
    if layer.activation == "silu":
        return first / (fill(1.0, lanes) + exp(fill(0.0, lanes) - x, lanes))
    if layer.activation in ("relu", "relu2"):
        relu = T.bind(T.max(x, fill(0.0, lanes)))
        return relu if layer.activation == "relu" else relu * relu
    if layer.activation == "gelu":
        inside = erf(x * fill(math.sqrt(0.5), lanes), lanes)
    else:
        cube = x * x * x * fill(0.044715, lanes)
        inside = tanh((x + cube) * fill(math.sqrt(2 / math.pi), lanes), lanes)
    return x * fill(0.5, lanes) * (fill(1.0, lanes) + inside)
