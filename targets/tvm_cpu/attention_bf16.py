"""Rows of queries that go over slots of a cache with products in bfloat16.

Queries, keys, weights and values are rounded to it as they are read; sums and softmax stay in
float32, and the cache what it is. `--precision int8` and `int4` take it where the CPU has it: a
product of bytes rounds more than this.
"""

from typing import Any

from lcc.targets.tvm_cpu.attention_rows import MOST_SLOTS, Layer, Rows
from lcc.targets.tvm_cpu.bf16 import LANES, dot, words
from lcc.targets.tvm_cpu.tir import Tiles, clear, exp_of_bf16, fill, script, span, store

PAIR = 2 * LANES  # numbers that become a vector of words
UNROLLED = 8  # words of an inner loop without a jump


def takes(layer: Layer, tiles: Tiles) -> bool:
    """Whether this layer can be computed so."""
    return tiles.bf16 and layer.size % PAIR == 0


class RowsBf16(Rows):
    """The same as `Rows`, many queries at once.

    queries     [R, D / 2] words per kind of query: neighbours along the head
    turned      [D / 2, slots] words of keys
    weights     [rows of a tile, slots / 2] words: neighbours along the slots
    pairs       [slots / 2, D] words of values: the same
    """

    slots = MOST_SLOTS

    def _allocate(self, count: int) -> None:
        T, size = script(), self.layer.size
        kinds = 2 if self.layer.sink else 1
        self.queries = [T.alloc_buffer((count, size // 2), "int32") for _ in range(kinds)]
        self.turned = T.alloc_buffer((size // 2, self.slots), "int32")
        self.key = T.alloc_buffer((size // 2,), "int32")
        self.weights = T.alloc_buffer((self.tiles.rows, self.slots // 2), "int32")
        self.pairs = T.alloc_buffer((self.slots // 2, size), "int32")

    def _take_query(self, kept: Any, row: Any, source: Any, token: Any, head: Any) -> None:
        scale = fill(self.layer.scale, LANES)
        for column in range(0, self.layer.size, PAIR):
            near, far = (
                source[0, token, head, span(column + more, LANES)] * scale for more in (0, LANES)
            )
            store(kept, [row, span(column // 2, LANES)], words(near, far))

    def _turn(self, first: Any, count: Any) -> None:
        """Keys as columns of words, values as words of two slots; 0 behind the last one."""
        T, size = script(), self.layer.size
        with T.serial(0, count) as s:
            for column in range(0, size, PAIR):
                near, far = (
                    self._entry(self.keys, first + s, column + more, LANES) for more in (0, LANES)
                )
                store(self.key, [span(column // 2, LANES)], words(near, far))
            with T.serial(0, size // 2) as d:
                store(self.turned, [d, s], self.key[d])
        with T.serial(count, T.int64(self.slots)) as s, T.serial(0, size // 2) as d:
            store(self.turned, [d, s], T.int32(0))
        with T.serial(0, count // 2) as pair:
            for column in range(0, size, LANES):
                place = span(column, LANES)
                low, high = (
                    self._rounded(self._entry(self.values, first + 2 * pair + more, column, LANES))
                    for more in (0, 1)
                )
                store(self.pairs, [pair, place], self._low(low) | self._high(high))
        with T.If(count % 2 == 1), T.Then():
            for column in range(0, size, LANES):
                place = span(column, LANES)
                last = self._entry(self.values, first + count - 1, column, LANES)
                low = self._rounded(last)
                store(self.pairs, [count // 2, place], self._low(low))
        with T.serial((count + 1) // 2, T.int64(self.slots // 2)) as pair:
            for column in range(0, size, LANES):
                store(self.pairs, [pair, span(column, LANES)], fill(T.int32(0), LANES))

    def _rounded(self, x: Any) -> Any:
        """float32 -> bits whose upper half is the nearest bfloat16."""
        T = script()
        bits = T.bind(T.reinterpret("int32x16", x))
        odd = (bits >> fill(T.int32(16), LANES)) & fill(T.int32(1), LANES)
        return T.bind(bits + odd + fill(T.int32(0x7FFF), LANES))

    def _low(self, bits: Any) -> Any:
        T = script()
        return (bits >> fill(T.int32(16), LANES)) & fill(T.int32(0xFFFF), LANES)

    def _high(self, bits: Any) -> Any:
        return bits & fill(script().int32(-65536), LANES)

    def _multiply(self, queries: Any, base: Any, first: Any, count: Any, turn: bool) -> None:
        T, width = script(), self.tiles.columns
        rows = self.registers[: self.step]
        with T.serial(0, self.slots // width) as part:
            clear(rows, width=width, lanes=LANES)
            with T.serial(0, self.layer.size // 2 // UNROLLED) as few, T.unroll(0, UNROLLED) as one:
                d = few * UNROLLED + one
                for i, row in enumerate(rows):
                    query = fill(queries[base + i, d], LANES)
                    for column in range(0, width, LANES):
                        place = span(column, LANES)
                        keys = self.turned[d, span(part * width + column, LANES)]
                        store(row, [place], dot(row[place], query, keys))
            for i, row in enumerate(rows):
                for column in range(0, width, LANES):
                    place = span(part * width + column, LANES)
                    store(self.logits, [i, place], row[span(column, LANES)])

    def _exp(self, x: Any, lanes: int) -> Any:
        return exp_of_bf16(x, lanes)

    def _mix(self, base: Any, first: Any, count: Any) -> None:
        """Add values, weighted."""
        T, rows, width = script(), self.registers[: self.step], self.chunk
        for i in range(self.step):
            for slot in range(0, self.slots, PAIR):
                near, far = (self.logits[i, span(slot + more, LANES)] for more in (0, LANES))
                store(self.weights, [i, span(slot // 2, LANES)], words(near, far))
        with T.serial(0, self.layer.size // width) as part:
            start = part * width
            for i, row in enumerate(rows):
                for column in range(0, width, LANES):
                    old = self.mixed[base + i, span(start + column, LANES)]
                    store(row, [span(column, LANES)], old * fill(self.shrink[i], LANES))
            few = (count + 2 * UNROLLED - 1) // (2 * UNROLLED)
            with T.serial(0, few) as begin, T.unroll(0, UNROLLED) as one:
                pair = begin * UNROLLED + one
                for i, row in enumerate(rows):
                    weight = fill(self.weights[i, pair], LANES)
                    for column in range(0, width, LANES):
                        place = span(column, LANES)
                        values = self.pairs[pair, span(start + column, LANES)]
                        store(row, [place], dot(row[place], weight, values))
            for i, row in enumerate(rows):
                for column in range(0, width, LANES):
                    place = span(start + column, LANES)
                    store(self.mixed, [base + i, place], row[span(column, LANES)])
