"""Attention over a cache in slots: writes the new entries into it and reads only those in use.

Softmax is computed on the way (running maximum and sum of every row), 64 slots at a time, so that
no [Q, S] matrix exists. A task is one KV head with some of its queries; its query heads are rows of
one matrix. With one query, the slots are divided among tasks instead, and their parts merged.
"""

from dataclasses import dataclass
from typing import Any

from lcc.targets.tvm_cpu.tir import (
    LOWEST,
    Tiles,
    clear,
    exp,
    fill,
    kernel,
    lanes_of,
    multiply_add,
    parameter,
    rows_of,
    script,
    span,
    store,
    tanh,
)

SLOTS = 64  # of the cache, that are taken at a time
ROWS = 192  # of queries times heads, that a task takes at most
PARTS = 4  # that the slots are divided into where there is one query


@dataclass(frozen=True)
class Layer:
    """What is known of an attention when it is compiled; see `lcc::cached_sink_window`.

    sink, block     0 and 1 where a query sees the newest `window` entries; window 0 = all
    """

    query_heads: int
    kv_heads: int
    size: int
    scale: float
    softcap: float = 0.0
    window: int = 0
    sink: int = 0
    block: int = 1

    @property
    def group(self) -> int:
        """Query heads of one KV head."""
        return self.query_heads // self.kv_heads

    def oldest(self, query: Any) -> Any:
        """The first slot that a query sees, besides the sinks; it may be negative."""
        if not self.window:
            return 0
        return (query // self.block - self.window // self.block + 1) * self.block


def cached_attention(layer: Layer, tiles: Tiles) -> Any:
    """Kernel (q, [sink_q,] k, v, key_cache, value_cache, used, out), as the operators say.

    q, sink_q       [1, Q, Hq, D] float32; sink_q only where the layer has sinks
    k, v            [1, Q, Hkv, D]
    caches          [1, Hkv, S, D]; slots used .. used+Q-1 are written, later ones not touched
    used            [1] int32
    out             [1, Q, Hq, D]
    """
    T = script()
    with kernel("cached_attention") as made:
        length, slots = T.int64(), T.int64()
        heads = (1, length, layer.query_heads, layer.size)
        entries = (1, length, layer.kv_heads, layer.size)
        cache = (1, layer.kv_heads, slots, layer.size)
        q = parameter("q", heads)
        sink_q = parameter("sink_q", heads) if layer.sink else q
        k, v = parameter("k", entries), parameter("v", entries)
        keys, values = parameter("keys", cache), parameter("values", cache)
        used = parameter("used", (1,), "int32")
        out = parameter("out", heads)
        first = T.bind(T.cast(used[0], "int64"))
        with T.If(length == 1):
            with T.Then():
                _write(layer, tiles, k, v, keys, values, first, 0)
                _one_query(layer, tiles, (q, sink_q), (keys, values), first, out)
            with T.Else():
                with T.parallel(0, length) as j:
                    _write(layer, tiles, k, v, keys, values, first, j)
                _many_queries(layer, tiles, (q, sink_q), (keys, values), first, out, length)
    return made[0]


def _write(
    layer: Layer, tiles: Tiles, k: Any, v: Any, keys: Any, values: Any, first: Any, j: Any
) -> None:
    """Put the entries of token j into their slot."""
    lanes = lanes_of(layer.size, tiles.lanes)
    for head in range(layer.kv_heads):
        for column in range(0, layer.size, lanes):
            place = span(column, lanes)
            store(keys, [0, head, first + j, place], k[0, j, head, place])
            store(values, [0, head, first + j, place], v[0, j, head, place])


class _Rows:
    """Rows of queries of one KV head, and what they have seen so far.

    queries     [R, D] per kind of query (for the sinks, for the rest), times the scale
    best        [R] the highest logit
    total       [R, lanes] sums of exp(logit - best), to be added up
    mixed       [R, D] sums of values times exp(logit - best)
    """

    def __init__(self, layer: Layer, tiles: Tiles, head: Any, caches: tuple, count: int) -> None:
        T = script()
        self.layer, self.tiles, self.head = layer, tiles, head
        self.keys, self.values = caches
        self.lanes = tiles.lanes
        self.wide = lanes_of(layer.size, tiles.lanes)  # of vectors along a head
        self.chunk = self.wide * (2 if layer.size % (2 * self.wide) == 0 else 1)
        self.step = min(count, tiles.rows)  # rows of a tile
        count = -(-count // self.step) * self.step
        self.count = count
        self.queries = [
            T.alloc_buffer((count, layer.size), "float32") for _ in range(2 if layer.sink else 1)
        ]
        self.best = T.alloc_buffer((count,), "float32")
        self.total = T.alloc_buffer((count, self.lanes), "float32")
        self.mixed = T.alloc_buffer((count, layer.size), "float32")
        self.logits = T.alloc_buffer((tiles.rows, SLOTS), "float32")
        self.shrink = T.alloc_buffer((tiles.rows,), "float32")
        self.fold = T.alloc_buffer((self.lanes,), "float32")
        self.turned = T.alloc_buffer((layer.size, SLOTS), "float32")
        self.registers = rows_of(tiles.rows, max(tiles.columns, self.chunk))

    def take(self, row: Any, sources: tuple, token: Any, head: Any) -> None:
        """Begin a row with the query of a token and a query head."""
        T = script()
        for kept, source in zip(self.queries, sources, strict=False):
            for column in range(0, self.layer.size, self.wide):
                place = span(column, self.wide)
                scaled = source[0, token, head, place] * fill(self.layer.scale, self.wide)
                store(kept, [row, place], scaled)
        for column in range(0, self.layer.size, self.wide):
            store(self.mixed, [row, span(column, self.wide)], fill(0.0, self.wide))
        store(self.best, [row], T.float32(LOWEST))
        store(self.total, [row, span(0, self.lanes)], fill(0.0, self.lanes))

    def see(self, ranges: list, tile_count: Any, query: Any, *, turn: bool) -> None:
        """Go over ranges of slots.

        ranges      (kind of query, first slot, slot after the last, whether `oldest` hides some)
        tile_count  how many tiles of rows there are
        query       row -> slot of its query
        turn        multiply with turned keys, many rows at once; otherwise row by row
        """
        T = script()
        for kind, begin, end, windowed in ranges:
            with T.serial(0, T.max((end - begin + SLOTS - 1) // SLOTS, T.int64(0))) as block:
                first = T.bind(begin + block * SLOTS)
                count = T.bind(T.min(end - first, T.int64(SLOTS)))
                if turn:
                    self._turn(first, count)
                with T.serial(0, tile_count) as tile:
                    base = T.bind(tile * self.step)
                    self._multiply(self.queries[kind], base, first, count, turn)
                    with T.serial(0, self.step) as i:
                        slot = T.bind(query(base + i))
                        oldest = self.layer.oldest(slot) if windowed else T.int64(0)
                        newest = T.min(slot, first + count - 1)
                        self._weigh(i, base, first, T.bind(oldest), T.bind(newest))
                    self._mix(base, first, count)

    def _turn(self, first: Any, count: Any) -> None:
        """Keys of some slots as columns; 0 behind the last, where anything may lie."""
        T = script()
        with T.serial(0, count) as s, T.serial(0, self.layer.size) as d:
            store(self.turned, [d, s], self.keys[0, self.head, first + s, d])
        with T.serial(count, T.int64(SLOTS)) as s, T.serial(0, self.layer.size) as d:
            store(self.turned, [d, s], T.float32(0))

    def _multiply(self, queries: Any, base: Any, first: Any, count: Any, turn: bool) -> None:
        """Logits of a tile of rows."""
        T, lanes, width = script(), self.lanes, self.tiles.columns
        if not turn:
            self._dots(queries, base, first, count)
            return
        with T.serial(0, SLOTS // width) as part:
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
        """The same, a key at a time."""
        T, wide = script(), self.wide
        with T.serial(0, count) as s:
            for i in range(self.step):
                fold = self.registers[i]
                clear([fold], width=wide, lanes=wide)
                for column in range(0, self.layer.size, wide):
                    place, own = span(column, wide), span(0, wide)
                    product = queries[base + i, place] * self.keys[0, self.head, first + s, place]
                    store(fold, [own], fold[own] + product)
                store(self.logits, [i, s], self._folded(fold, wide, lambda a, b: a + b))
        with T.serial(count, T.int64(SLOTS)) as s:
            for i in range(self.step):
                store(self.logits, [i, s], T.float32(0))

    def _folded(self, row: Any, lanes: int, combine: Any) -> Any:
        """One number of the first `lanes` in a row, which is lost."""
        while lanes > 1:
            lanes //= 2
            store(row, [span(0, lanes)], combine(row[span(0, lanes)], row[span(lanes, lanes)]))
        return row[0]

    def _weigh(self, i: Any, base: Any, first: Any, oldest: Any, newest: Any) -> None:
        """Cap and hide logits of row base + i, then make weights of them."""
        T, lanes, cap = script(), self.lanes, self.layer.softcap
        row, fold = base + i, self.fold
        kind = f"int32x{lanes}" if lanes > 1 else "int32"
        store(fold, [span(0, lanes)], fill(LOWEST, lanes))
        for column in range(0, SLOTS, lanes):
            x = self.logits[i, span(column, lanes)]
            if cap > 0:
                x = tanh(x * fill(1.0 / cap, lanes), lanes) * fill(cap, lanes)
            slot = T.cast(span(T.cast(first, "int32") + column, lanes), kind)
            low, high = (fill(T.cast(bound, "int32"), lanes) for bound in (oldest, newest))
            x = T.bind(T.Select((slot >= low) & (slot <= high), x, fill(LOWEST, lanes)))
            store(self.logits, [i, span(column, lanes)], x)
            store(fold, [span(0, lanes)], T.max(fold[span(0, lanes)], x))
        best = T.bind(T.max(self.best[row], self._folded(fold, lanes, T.max)))
        shrink = exp(self.best[row] - best, 1)
        store(self.best, [row], best)
        store(self.shrink, [i], shrink)
        total = self.total[row, span(0, lanes)] * fill(shrink, lanes)
        for column in range(0, SLOTS, lanes):
            place = span(column, lanes)
            weight = exp(self.logits[i, place] - fill(best, lanes), lanes)
            store(self.logits, [i, place], weight)
            total = T.bind(total + weight)
        store(self.total, [row, span(0, lanes)], total)

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
                lambda s, column: self.values[0, self.head, first + s, span(start + column, wide)],
                width=self.chunk,
                lanes=wide,
            )
            for i, row in enumerate(rows):
                for column in range(0, self.chunk, wide):
                    place = span(start + column, wide)
                    store(self.mixed, [base + i, place], row[span(column, wide)])

    def sum_of(self, row: Any) -> Any:
        """The sum of a row's weights."""
        T, lanes = script(), self.lanes
        store(self.fold, [span(0, lanes)], self.total[row, span(0, lanes)])
        return T.bind(self._folded(self.fold, lanes, lambda a, b: a + b))


def _ranges(layer: Layer, first_query: Any, end: Any) -> list:
    """What some queries see, the first in slot `first_query`, the last in slot end - 1."""
    T = script()
    if not layer.window:
        return [(0, T.int64(0), end, False)]
    near = T.bind(T.max(layer.oldest(first_query), T.int64(layer.sink)))
    ranges = [(0, near, end, True)]
    if layer.sink:
        ranges.append((1, T.int64(0), T.bind(T.min(end, T.int64(layer.sink))), False))
    return ranges


def _many_queries(
    layer: Layer, tiles: Tiles, sources: tuple, caches: tuple, first: Any, out: Any, length: Any
) -> None:
    """A task is a KV head and up to ROWS rows, those of a token together."""
    T, group = script(), layer.group
    tokens = max(1, ROWS // group)
    across = (length + tokens - 1) // tokens
    with T.parallel(0, layer.kv_heads * across) as task:
        head, begin = T.bind(task // across), T.bind(task % across * tokens)
        count = T.bind(T.min(length - begin, T.int64(tokens)))
        rows = _Rows(layer, tiles, head, caches, tokens * group)
        with T.serial(0, count * group) as r:
            rows.take(r, sources, begin + r // group, head * group + r % group)
        whole = (count * group + rows.step - 1) // rows.step
        with T.serial(count * group, whole * rows.step) as r:  # to fill the last tile
            rows.take(r, sources, begin, head * group)
        end = T.bind(first + begin + count)
        ranges = _ranges(layer, first + begin, end)
        rows.see(ranges, whole, lambda r: first + begin + r // group, turn=True)
        with T.serial(0, count * group) as r:
            share = T.bind(T.float32(1) / rows.sum_of(r))
            for column in range(0, layer.size, rows.wide):
                place = span(column, rows.wide)
                value = rows.mixed[r, place] * fill(share, rows.wide)
                store(out, [0, begin + r // group, head * group + r % group, place], value)


def _one_query(
    layer: Layer, tiles: Tiles, sources: tuple, caches: tuple, first: Any, out: Any
) -> None:
    """A task is a KV head and one of PARTS parts of its slots."""
    T, group, size = script(), layer.group, layer.size
    wide, heads = lanes_of(size, tiles.lanes), layer.query_heads
    best = T.alloc_buffer((heads, PARTS), "float32")
    total = T.alloc_buffer((heads, PARTS), "float32")
    mixed = T.alloc_buffer((heads, PARTS, size), "float32")
    with T.parallel(0, layer.kv_heads * PARTS) as task:
        head, part = T.bind(task // PARTS), T.bind(T.cast(task % PARTS, "int64"))
        rows = _Rows(layer, tiles, head, caches, group)
        with T.serial(0, rows.count) as r:
            rows.take(r, sources, 0, head * group + T.min(r, group - 1))
        ranges = []
        for kind, begin, end, windowed in _ranges(layer, first, first + 1):
            each = T.bind((end - begin + PARTS - 1) // PARTS)
            start = T.bind(begin + part * each)
            ranges.append((kind, start, T.bind(T.min(start + each, end)), windowed))
        rows.see(ranges, rows.count // rows.step, lambda _: first, turn=False)
        with T.serial(0, group) as r:
            mine = head * group + r
            store(best, [mine, part], rows.best[r])
            store(total, [mine, part], rows.sum_of(r))
            for column in range(0, size, wide):
                place = span(column, wide)
                store(mixed, [mine, part, place], rows.mixed[r, place])
    with T.serial(0, heads) as h:
        highest = best[h, 0]
        for part in range(1, PARTS):
            highest = T.max(highest, best[h, part])
        highest = T.bind(highest)
        weights = [exp(best[h, part] - highest, 1) for part in range(PARTS)]
        whole = sum((total[h, part] * weights[part] for part in range(PARTS)), T.float32(0))
        share = T.bind(T.float32(1) / whole)
        for column in range(0, size, wide):
            place = span(column, wide)
            value = fill(0.0, wide)
            for part in range(PARTS):
                value = value + mixed[h, part, place] * fill(weights[part], wide)
            store(out, [0, 0, h, place], value * fill(share, wide))
