"""Rows of queries that go over slots of a cache: what one task of an attention kernel does."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from lcc.ir.plan import BlockSparse
from lcc.targets.tvm_cpu.attention_blocks import Horizon
from lcc.targets.tvm_cpu.prefetch import LINE, fetch
from lcc.targets.tvm_cpu.tir import (
    LOWEST,
    Tiles,
    clear,
    exp,
    fill,
    folded,
    lanes_of,
    multiply_add,
    rows_of,
    script,
    span,
    store,
    tanh,
    total,
    totals,
)

MOST_SLOTS = 128  # of the cache, that any kind of rows takes at a time


@dataclass(frozen=True)
class Layer:
    """What is known of an attention when it is compiled; see `lcc::cached_sink_window`.

    sink, block     0 and 1 where a query sees the newest `window` entries; window 0 = all
    blocks          the kind of a layer as `lcc::cached_block_sparse` says; its window is 0
    sinks, bias     whether a head has one more logit, that stands for no key, and a bias by slot
    half            whether keys and values are in float16
    """

    query_heads: int
    kv_heads: int
    size: int
    scale: float
    softcap: float = 0.0
    window: int = 0
    sink: int = 0
    block: int = 1
    blocks: BlockSparse | None = None
    sinks: bool = False
    bias: bool = False
    half: bool = False

    @property
    def dtype(self) -> str:
        """Of keys and values in the cache."""
        return "float16" if self.half else "float32"

    @property
    def group(self) -> int:
        """Query heads of one KV head."""
        return self.query_heads // self.kv_heads

    def oldest(self, query: Any) -> Any:
        """The first slot that a query sees, besides the sinks; it may be negative."""
        if not self.window:
            return 0
        return (query // self.block - self.window // self.block + 1) * self.block


class Rows:
    """Rows of queries of one KV head, and what they have seen so far.

    caches      keys, values and, where the layer sees blocks, places, as the kernel has them
    queries     [R, D] per kind of query (for the sinks, for the rest), times the scale
    best        [R] the highest logit
    total       [R, lanes] sums of exp(logit - best), to be added up
    mixed       [R, D] sums of values times exp(logit - best)
    slots       of the cache, that are taken at a time
    """

    slots = 64

    def __init__(
        self,
        layer: Layer,
        tiles: Tiles,
        head: Any,
        caches: tuple,
        count: int,
        bias: Any | None = None,
    ) -> None:
        T = script()
        self.bias = bias
        self.layer, self.tiles, self.head = layer, tiles, head
        self.keys, self.values, *places = caches
        self.horizon = Horizon(layer.blocks, places[0], head, self.slots) if layer.blocks else None
        self.lanes = tiles.lanes
        self.wide = lanes_of(layer.size, tiles.lanes)  # of vectors along a head
        self.chunk = self.wide * (2 if layer.size % (2 * self.wide) == 0 else 1)
        self.step = min(count, tiles.rows)  # rows of a tile
        count = -(-count // self.step) * self.step
        self.count = count
        self.best = T.alloc_buffer((count,), "float32")
        self.total = T.alloc_buffer((count, self.lanes), "float32")
        self.mixed = T.alloc_buffer((count, layer.size), "float32")
        self.logits = T.alloc_buffer((tiles.rows, self.slots), "float32")
        self.shrink = T.alloc_buffer((tiles.rows,), "float32")
        self.fold = T.alloc_buffer((self.lanes,), "float32")
        self.registers = rows_of(tiles.rows, max(tiles.columns, self.chunk))
        self._allocate(count)

    def _allocate(self, count: int) -> None:
        T, size = script(), self.layer.size
        kinds = 2 if self.layer.sink else 1
        self.queries = [T.alloc_buffer((count, size), "float32") for _ in range(kinds)]
        self.turned = T.alloc_buffer((size, self.slots), "float32")

    def _entry(self, cache: Any, slot: Any, column: Any, lanes: int) -> Any:
        """Numbers of the key or the value in a slot, as float32."""
        place = span(column, lanes)
        value = cache[0, self.head, slot, place]
        kind = f"float32x{lanes}" if lanes > 1 else "float32"
        return script().cast(value, kind) if self.layer.half else value

    def take(
        self, row: Any, sources: tuple, token: Any, head: Any, sink: Any | None = None
    ) -> None:
        """Begin a row with the query of a token and a query head.

        sink    a logit that stands for no key; None = there is none
        """
        T = script()
        for kept, source in zip(self.queries, sources, strict=False):
            self._take_query(kept, row, source, token, head)
        for column in range(0, self.layer.size, self.wide):
            store(self.mixed, [row, span(column, self.wide)], fill(0.0, self.wide))
        store(self.best, [row], T.float32(LOWEST) if sink is None else sink)
        store(self.total, [row, span(0, self.lanes)], fill(0.0, self.lanes))
        if sink is not None:  # what it is worth now: exp(sink - best)
            store(self.total, [row, 0], T.float32(1))

    def _take_query(self, kept: Any, row: Any, source: Any, token: Any, head: Any) -> None:
        for column in range(0, self.layer.size, self.wide):
            place = span(column, self.wide)
            scaled = source[0, token, head, place] * fill(self.layer.scale, self.wide)
            store(kept, [row, place], scaled)

    def see(self, ranges: list, tile_count: Any, query: Any, *, turn: bool) -> None:
        """Go over ranges of slots.

        ranges      (kind of query, first slot, slot after the last, whether `oldest` hides some)
        tile_count  how many tiles of rows there are
        query       row -> slot of its query
        turn        multiply with turned keys, many rows at once; otherwise row by row
        """
        T = script()
        for kind, begin, end, windowed in ranges:
            with T.serial(
                0, T.max((end - begin + self.slots - 1) // self.slots, T.int64(0))
            ) as block:
                first = T.bind(begin + block * self.slots)
                count = T.bind(T.min(end - first, T.int64(self.slots)))
                look = self.horizon.look(first, count, query(0)) if self.horizon else nullcontext()
                with look:
                    if turn:
                        self._turn(first, count)
                    with T.serial(0, tile_count) as tile:
                        base = T.bind(tile * self.step)
                        self._multiply(self.queries[kind], base, first, count, turn)
                        if self.horizon:
                            self._weigh_tile(base, query, first, count, windowed)
                        else:
                            with T.If(self._all_seen(base, query, first, count, windowed)):
                                with T.Then(), T.serial(0, self.step) as i:
                                    self._weigh(i, base, first, None)
                                with T.Else():
                                    self._weigh_tile(base, query, first, count, windowed)
                        self._mix(base, first, count)

    def _all_seen(self, base: Any, query: Any, first: Any, count: Any, windowed: bool) -> Any:
        """Whether each row of a tile sees all of some slots; rows are in the order of the text."""
        T = script()
        whole = T.And(count == self.slots, first + self.slots <= query(base) + 1)
        if not windowed:
            return whole
        return T.And(whole, self.layer.oldest(query(base + self.step - 1)) <= first)

    def _weigh_tile(self, base: Any, query: Any, first: Any, count: Any, windowed: bool) -> None:
        T = script()
        with T.serial(0, self.step) as i:
            seen = self._seen(T.bind(query(base + i)), first, count, windowed)
            self._weigh(i, base, first, seen)

    def _turn(self, first: Any, count: Any) -> None:
        """Keys of some slots as columns; 0 behind the last, where anything may lie."""
        T = script()
        with T.serial(0, count) as s, T.serial(0, self.layer.size) as d:
            store(self.turned, [d, s], self._entry(self.keys, first + s, d, 1))
        with T.serial(count, T.int64(self.slots)) as s, T.serial(0, self.layer.size) as d:
            store(self.turned, [d, s], T.float32(0))

    def _multiply(self, queries: Any, base: Any, first: Any, count: Any, turn: bool) -> None:
        """Logits of a tile of rows."""
        T, lanes, width = script(), self.lanes, self.tiles.columns
        if not turn:
            self._dots(queries, base, first, count)
            return
        with T.serial(0, self.slots // width) as part:
            rows = self.registers[: self.step]
            clear(rows, width=width, lanes=lanes)
            multiply_add(
                rows,
                self.layer.size,
                lambda i, d: queries[base + i, d],
                lambda d, column: self.turned[d, span(part * width + column, lanes)],
                width=width,
                lanes=lanes,
            )
            for i, row in enumerate(rows):
                for column in range(0, width, lanes):
                    place = span(column, lanes)
                    store(self.logits, [i, span(part * width + column, lanes)], row[place])

    def _dots(self, queries: Any, base: Any, first: Any, count: Any) -> None:
        """The same, keys as they lie; as many at a time as a vector has numbers."""
        T, wide = script(), self.wide

        def products(i: int, s: Any) -> Any:
            """Of a row and a key, to be added up."""
            value = None
            for column in range(0, self.layer.size, wide):
                place = span(column, wide)
                key = self._entry(self.keys, first + s, column, wide)
                product = queries[base + i, place] * key
                value = product if value is None else value + product
            return T.bind(value)

        with T.serial(0, count // wide) as group:
            for s in range(wide):
                for column in range(0, self.layer.size, LINE * (2 if self.layer.half else 1)):
                    slot = first + group * wide + s
                    fetch(self.values[0, self.head, slot, column])
                    fetch(self.keys[0, self.head, slot + 2 * wide, column])
            for i in range(self.step):
                vectors = [products(i, group * wide + s) for s in range(wide)]
                store(self.logits, [i, span(group * wide, wide)], totals(vectors))
        with T.serial(count // wide * wide, count) as s:
            for i in range(self.step):
                store(self.logits, [i, s], total(products(i, s), wide))
        with T.serial(count, T.int64(self.slots)) as s:
            for i in range(self.step):
                store(self.logits, [i, s], T.float32(0))

    def _seen(self, query: Any, first: Any, count: Any, windowed: bool) -> Callable[[int], Any]:
        """Which of some slots the query in one sees: first column -> a vector of booleans."""
        T, lanes, horizon = script(), self.lanes, self.horizon
        kind = f"int32x{lanes}" if lanes > 1 else "int32"
        oldest = T.bind(self.layer.oldest(query) if windowed else T.int64(0))
        newest = T.bind(T.min(query, first + count - 1))
        place = horizon.place_of(query) if horizon else None

        def seen(column: int) -> Any:
            slot = T.cast(span(T.cast(first, "int32") + column, lanes), kind)
            low, high = (fill(T.cast(bound, "int32"), lanes) for bound in (oldest, newest))
            if horizon:
                return horizon.sees(place, column, lanes) & (slot <= high)
            return (slot >= low) & (slot <= high)

        return seen

    def _weigh(self, i: Any, base: Any, first: Any, seen: Callable[[int], Any] | None) -> None:
        """Cap and hide logits of row base + i, of slots from the first on; make weights of them."""
        T, lanes, cap = script(), self.lanes, self.layer.softcap
        row, fold = base + i, self.fold
        head = None
        if self.bias is not None:
            head = T.bind(self.head * self.layer.group + row % self.layer.group)
        # In a buffer: a chain of maxima is what TVM simplifies for minutes.
        store(fold, [span(0, lanes)], fill(LOWEST, lanes))
        for column in range(0, self.slots, lanes):
            x = self.logits[i, span(column, lanes)]
            if cap > 0:
                x = tanh(x * fill(1.0 / cap, lanes), lanes) * fill(cap, lanes)
            if self.bias is not None:
                x = x + self.bias[head, span(first + column, lanes)]
            x = T.bind(x if seen is None else T.Select(seen(column), x, fill(LOWEST, lanes)))
            store(self.logits, [i, span(column, lanes)], x)
            store(fold, [span(0, lanes)], T.max(fold[span(0, lanes)], x))
        best = T.bind(T.max(self.best[row], folded(fold[span(0, lanes)], lanes, T.max)))
        shrink = exp(self.best[row] - best, 1)
        store(self.best, [row], best)
        store(self.shrink, [i], shrink)
        total = self.total[row, span(0, lanes)] * fill(shrink, lanes)
        for column in range(0, self.slots, lanes):
            place = span(column, lanes)
            weight = self._exp(self.logits[i, place] - fill(best, lanes), lanes)
            store(self.logits, [i, place], weight)
            total = T.bind(total + weight)
        store(self.total, [row, span(0, lanes)], total)

    def _exp(self, x: Any, lanes: int) -> Any:
        return exp(x, lanes)

    def _mix(self, base: Any, first: Any, count: Any) -> None:
        """Add values, weighted; those behind the last slot are not read."""
        T, wide, rows = script(), self.wide, self.registers[: self.step]
        with T.serial(0, self.layer.size // self.chunk) as part:
            start = part * self.chunk
            for i, row in enumerate(rows):
                for column in range(0, self.chunk, wide):
                    old = self.mixed[base + i, span(start + column, wide)]
                    store(row, [span(column, wide)], old * fill(self.shrink[i], wide))
            multiply_add(
                rows,
                count,
                lambda i, s: self.logits[i, s],
                lambda s, column: self._entry(self.values, first + s, start + column, wide),
                width=self.chunk,
                lanes=wide,
            )
            for i, row in enumerate(rows):
                for column in range(0, self.chunk, wide):
                    place = span(start + column, wide)
                    store(self.mixed, [base + i, place], row[span(column, wide)])

    def sum_of(self, row: Any) -> Any:
        """The sum of a row's weights."""
        return script().bind(total(self.total[row, span(0, self.lanes)], self.lanes))
