"""Attention over a cache in slots: writes the new entries into it and reads only those in use.

Softmax is computed on the way (running maximum and sum of every row), 64 slots at a time, so that
no [Q, S] matrix exists. A task is one KV head with some of its queries; its query heads are rows of
one matrix. With one query, the slots are divided among tasks instead, and their parts merged.
"""

from contextlib import nullcontext
from functools import reduce
from typing import Any

from lcc.targets.tvm_cpu.attention_bf16 import RowsBf16, takes
from lcc.targets.tvm_cpu.attention_rows import Layer, Rows
from lcc.targets.tvm_cpu.bf16 import bf16
from lcc.targets.tvm_cpu.prefetch import prefetching
from lcc.targets.tvm_cpu.tir import (
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

ROWS = 192  # of queries times heads, that a task takes at most
PARTS = 4  # that the slots are divided into where there is one query


def cached_attention(layer: Layer, tiles: Tiles) -> Any:
    """Kernel (q, [sink_q,] k, v, keys, values, used, [places,] [sinks,] [bias,] out).

    q, sink_q       [1, Q, Hq, D] float32; sink_q only where the layer has sinks
    k, v            [1, Q, Hkv, D]
    keys, values    [1, Hkv, S, D], float32 or float16; slots used .. used+Q-1 are written, later
                    ones not touched
    used            [1] int32
    places          [H, S] int64, H >= Hkv; only where the layer sees blocks of the text. Those of
                    the new entries ascend
    sinks, bias     [Hq] and [Hq, S + MOST_SLOTS or more] float32; only where the layer has them
    out             [1, Q, Hq, D]

    What they are, the operators say.
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
        keys, values = (parameter(name, cache, layer.dtype) for name in ("keys", "values"))
        used = parameter("used", (1,), "int32")
        caches: tuple = (keys, values)
        if layer.blocks:
            caches += (parameter("places", (T.int64(), slots), "int64"),)
        more, out = _more(layer), parameter("out", heads)
        halves = bf16() if takes(layer, tiles) else nullcontext()
        first = T.bind(T.cast(used[0], "int64"))
        fits = T.And(first >= 0, first + length <= slots)
        with T.Assert(fits, "the new entries do not fit in the cache: used is too large"):
            pass
        with halves, prefetching(), T.If(length == 1):
            with T.Then():
                _write(layer, tiles, k, v, keys, values, first, 0)
                _one_query(layer, tiles, (q, sink_q), caches, first, out, more)
            with T.Else():
                with T.parallel(0, length) as j:
                    _write(layer, tiles, k, v, keys, values, first, j)
                _many_queries(layer, tiles, (q, sink_q), caches, first, out, more, length)
    return made[0]


def _more(layer: Layer) -> tuple[Any, Any]:
    """The parameters for a logit of each head, and for a bias of each slot; None = it has none."""
    sinks = parameter("sinks", (layer.query_heads,)) if layer.sinks else None
    columns = script().int64() if layer.bias else None
    return sinks, parameter("bias", (layer.query_heads, columns)) if layer.bias else None


def _write(
    layer: Layer, tiles: Tiles, k: Any, v: Any, keys: Any, values: Any, first: Any, j: Any
) -> None:
    """Put the entries of token j into their slot."""
    lanes = lanes_of(layer.size, tiles.lanes)
    for head in range(layer.kv_heads):
        for column in range(0, layer.size, lanes):
            place = span(column, lanes)
            for cache, new in ((keys, k), (values, v)):
                value = new[0, j, head, place]
                value = script().cast(value, f"float16x{lanes}") if layer.half else value
                store(cache, [0, head, first + j, place], value)


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
    layer: Layer,
    tiles: Tiles,
    sources: tuple,
    caches: tuple,
    first: Any,
    out: Any,
    more: tuple,
    length: Any,
) -> None:
    """A task is a KV head and up to ROWS rows, those of a token together."""
    T, group = script(), layer.group
    tokens = max(1, ROWS // group)
    across = (length + tokens - 1) // tokens
    with T.parallel(0, layer.kv_heads * across) as task:
        head, begin = T.bind(task // across), T.bind(task % across * tokens)
        count = T.bind(T.min(length - begin, T.int64(tokens)))
        kind = RowsBf16 if takes(layer, tiles) else Rows
        rows = kind(layer, tiles, head, caches, tokens * group, more[1])
        with T.serial(0, count * group) as r:
            mine = T.bind(head * group + r % group)
            rows.take(r, sources, begin + r // group, mine, more[0][mine] if layer.sinks else None)
        whole = (count * group + rows.step - 1) // rows.step
        with T.serial(count * group, whole * rows.step) as r:  # to fill the last tile
            rows.take(r, sources, begin, head * group)
        end = T.bind(first + begin + count)
        ranges = _ranges(layer, first + begin, end)
        last = count - 1  # of those that fill the last tile, too

        def slot_of(row: Any) -> Any:
            return first + begin + T.min(row // group, last)

        rows.see(ranges, whole, slot_of, turn=True)
        with T.serial(0, count * group) as r:
            share = T.bind(T.float32(1) / rows.sum_of(r))
            for column in range(0, layer.size, rows.wide):
                place = span(column, rows.wide)
                value = rows.mixed[r, place] * fill(share, rows.wide)
                store(out, [0, begin + r // group, head * group + r % group, place], value)


def _one_query(
    layer: Layer, tiles: Tiles, sources: tuple, caches: tuple, first: Any, out: Any, more: tuple
) -> None:
    """A task is a KV head and one of PARTS parts of its slots."""
    T, group, size, sinks = script(), layer.group, layer.size, more[0]
    wide, heads = lanes_of(size, tiles.lanes), layer.query_heads
    best = T.alloc_buffer((heads, PARTS), "float32")
    total = T.alloc_buffer((heads, PARTS), "float32")
    mixed = T.alloc_buffer((heads, PARTS, size), "float32")
    with T.parallel(0, layer.kv_heads * PARTS) as task:
        head, part = T.bind(task // PARTS), T.bind(T.cast(task % PARTS, "int64"))
        rows = Rows(layer, tiles, head, caches, group, more[1])
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
        highest = sinks[h] if layer.sinks else best[h, 0]
        highest = T.bind(reduce(T.max, (best[h, part] for part in range(PARTS)), highest))
        weights = [exp(best[h, part] - highest, 1) for part in range(PARTS)]
        whole = exp(sinks[h] - highest, 1) if layer.sinks else T.float32(0)
        whole = sum((total[h, part] * weights[part] for part in range(PARTS)), whole)
        share = T.bind(T.float32(1) / whole)
        for column in range(0, size, wide):
            place = span(column, wide)
            value = fill(0.0, wide)
            for part in range(PARTS):
                value = value + mixed[h, part, place] * fill(weights[part], wide)
            store(out, [0, 0, h, place], value * fill(share, wide))
