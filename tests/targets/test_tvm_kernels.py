"""Kernels of target tvm:cpu against the operators' eager meaning, with garbage where none may look.

Every kernel runs for the level of CPU that this machine has and for the one that all have.
"""

import itertools
from dataclasses import replace

import msgspec
import pytest
import torch
from torch import Tensor

from lcc.ir.plan import BlockSparse
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.targets.tvm_cpu import rows
from lcc.targets.tvm_cpu.attention import cached_attention
from lcc.targets.tvm_cpu.attention_rows import Layer
from lcc.targets.tvm_cpu.matmul import batched, linear, lookup, pack
from lcc.targets.tvm_cpu.tir import TILES
from lcc.testing.tvm_kernels import BEST, HERE, PLAINEST, compiled, drawn

SLOTS = 200
LAYERS = {
    "GQA": Layer(9, 3, 64, 0.125),
    "one head each, capped": Layer(4, 4, 16, 0.4, softcap=2.0),
    "window": Layer(9, 3, 64, 0.125, window=8),
    "a size that is no power of 2": Layer(4, 1, 20, 0.3, window=70),
    "many heads of one, capped window": Layer(24, 2, 16, 0.2, softcap=3.0, window=5),
    "sinks": Layer(6, 2, 8, 0.4, window=9, sink=3),
    "sinks, capped, a chunk longer than the window": Layer(6, 2, 8, 0.4, 2.0, window=2, sink=5),
    "sinks that come in two chunks": Layer(6, 2, 8, 0.4, window=4, sink=20),
    "blocks": Layer(6, 2, 8, 0.4, window=12, sink=4, block=4),
    "blocks without sinks": Layer(6, 2, 8, 0.4, window=12, block=4),
}
STEPS = [(0, 1), (0, 16), (5, 1), (2, 7), (63, 2), (64, 1), (100, 16), (130, 70), (184, 16)]
STEPS += [(SLOTS - 1, 1)]


@pytest.mark.parametrize(
    ("name", "level"),
    [*((name, BEST) for name in LAYERS), ("GQA", PLAINEST), ("sinks", PLAINEST)],
)
def test_attention_is_the_operator(name: str, level: str) -> None:
    """Empty caches and full ones; what lies in slots not in use is NaN, and stays it."""
    layer = LAYERS[name]
    run = compiled(cached_attention(layer, TILES[level]), level)
    for used, length in STEPS:
        q, sink_q = (drawn(1, length, layer.query_heads, layer.size, seed=s) for s in (1, 2))
        k, v = (drawn(1, length, layer.kv_heads, layer.size, seed=s) for s in (3, 4))
        keys, values = (drawn(1, layer.kv_heads, SLOTS, layer.size, seed=s) for s in (5, 6))
        count, filled = torch.tensor([used], dtype=torch.int32), used + length
        args = (k, v, keys, values, count)
        if layer.sink or layer.block > 1:
            numbers = (layer.sink, layer.window, layer.block, layer.scale, layer.softcap, -1)
            wanted = torch.ops.lcc.cached_sink_window(q, sink_q, *args, *numbers)
        else:
            numbers = (layer.scale, layer.window, layer.softcap, -1)
            wanted = torch.ops.lcc.cached_attention(q, *args, *numbers)
        for cache in (keys, values):
            cache[:, :, used:] = torch.nan  # those of this step are to be written
        out = torch.full_like(q, torch.nan)
        run(*([q, sink_q] if layer.sink else [q]), *args, out)
        torch.testing.assert_close(out, wanted[0], atol=2e-6, rtol=0)
        for cache, other in zip((keys, values), wanted[1:], strict=True):
            assert torch.equal(cache[:, :, :filled], other[:, :, :filled])
            assert cache[:, :, filled:].isnan().all()


ON_ARM = [("GQA", "armv8.2-a"), ("sinks", "generic")]
ON_X86 = ["cooperlake", "x86-64-v4", "x86-64-v3"]


@pytest.mark.parametrize(
    ("name", "level"),
    [*itertools.product(("GQA", "a size that is no power of 2", "sinks"), ON_X86), *ON_ARM],
)
def test_attention_over_halves(name: str, level: str) -> None:
    """It is that over the same numbers in float32; new entries are rounded as they are written."""
    if level not in HERE:
        pytest.skip(f"nothing runs code for {level} here")
    layer = replace(LAYERS[name], half=True)
    run = compiled(cached_attention(layer, TILES[level]), level)
    for used, length in STEPS:
        q, sink_q = (drawn(1, length, layer.query_heads, layer.size, seed=s) for s in (1, 2))
        k, v = (drawn(1, length, layer.kv_heads, layer.size, seed=s) for s in (3, 4))
        keys, values = (drawn(1, layer.kv_heads, SLOTS, layer.size, seed=s).half() for s in (5, 6))
        count, filled = torch.tensor([used], dtype=torch.int32), used + length
        numbers = (layer.sink, layer.window, layer.block, layer.scale, layer.softcap, -1)
        if not layer.window:
            numbers = (0, SLOTS, *numbers[2:])
        rounded = [x.half().float() for x in (k, v, keys, values)]
        wanted = torch.ops.lcc.cached_sink_window(q, sink_q, *rounded, count, *numbers)
        for cache in (keys, values):
            cache[:, :, used:] = torch.nan
        out = torch.full_like(q, torch.nan)
        run(*([q, sink_q] if layer.sink else [q]), k, v, keys, values, count, out)
        torch.testing.assert_close(out, wanted[0], atol=2e-6, rtol=0)
        for cache, other in zip((keys, values), wanted[1:], strict=True):
            assert torch.equal(cache[:, :, :filled].float(), other[:, :, :filled])
            assert cache[:, :, filled:].isnan().all()


def test_what_the_test_above_compares_differs_from_kind_to_kind() -> None:
    """Or a kernel that forgot windows, caps or sinks would pass."""
    base = Layer(6, 2, 8, 0.4, window=12, sink=4, block=4)
    others = [replace(base, **change) for change in ({"softcap": 2.0}, {"window": 8}, {"block": 1})]
    results = []
    for layer in (base, replace(base, sink=0), *others):
        q, k = drawn(1, 16, 6, 8), drawn(1, 16, 2, 8)
        cache = (drawn(1, 2, SLOTS, 8, seed=1), drawn(1, 2, SLOTS, 8, seed=2))
        numbers = (layer.sink, layer.window, layer.block, layer.scale, layer.softcap, -1)
        used = torch.tensor([100], dtype=torch.int32)
        results.append(torch.ops.lcc.cached_sink_window(q, -q, k, k, *cache, used, *numbers)[0])
    for i, one in enumerate(results):
        assert all((one - other).abs().max() > 0.01 for other in results[:i])


BLOCKS = {
    "only its own block and older ones": BlockSparse(block=4, stride=3, local=1, reach=90),
    "a shift, an offset, several sinks": BlockSparse(
        block=2, stride=5, local=3, sink=4, reach=130, offset=1, shift=2
    ),
    "no sink, a reach that ends": BlockSparse(block=8, stride=2, local=2, sink=0, reach=7, shift=1),
    "reach within the newest": BlockSparse(block=3, stride=2, local=4, sink=2, reach=1),
    "numbers that int32 does not hold": BlockSparse(
        block=16, stride=2, local=1, sink=0, reach=10**15, offset=10**12 + 1, shift=10**12 + 1
    ),
}
HELD = 240  # tokens of the text that the first slots in use are of


def entries(layer: Layer, used: int, length: int) -> tuple[Tensor, ...]:
    """k, v, caches, used, places: heads hold other tokens where they see others; a row too many."""
    k, v = (drawn(1, length, layer.kv_heads, layer.size, seed=s) for s in (3, 4))
    keys, values = (drawn(1, layer.kv_heads, SLOTS, layer.size, seed=s) for s in (5, 6))
    draw = torch.Generator().manual_seed(used)
    places = torch.full((layer.kv_heads + 1, SLOTS), 2**40)
    for row in places:
        row[:used] = torch.randperm(HELD, generator=draw)[:used].sort().values
        row[used : used + length] = torch.arange(HELD, HELD + length)
    assert layer.blocks
    if not layer.blocks.shift:
        places[1:] = places[0]
    return k, v, keys, values, torch.tensor([used], dtype=torch.int32), places


def numbers_of(layer: Layer) -> tuple:
    return *msgspec.structs.astuple(layer.blocks), layer.scale, layer.softcap, -1


@pytest.mark.parametrize(
    ("name", "heads", "softcap", "level"),
    [
        ("only its own block and older ones", (9, 3, 64), 0.0, BEST),
        ("a shift, an offset, several sinks", (6, 3, 8), 0.0, BEST),
        ("no sink, a reach that ends", (24, 2, 16), 2.0, BEST),
        ("reach within the newest", (4, 4, 20), 0.0, BEST),
        ("numbers that int32 does not hold", (4, 2, 16), 0.0, BEST),
        ("a shift, an offset, several sinks", (6, 3, 8), 2.0, PLAINEST),
    ],
)
def test_attention_to_blocks_is_the_operator(
    name: str, heads: tuple[int, int, int], softcap: float, level: str
) -> None:
    """As above; places of slots not in use are garbage."""
    layer = Layer(*heads, heads[-1] ** -0.5, softcap, blocks=BLOCKS[name])
    run = compiled(cached_attention(layer, TILES[level]), level)
    for used, length in STEPS:
        q, filled = drawn(1, length, layer.query_heads, layer.size, seed=1), used + length
        args = entries(layer, used, length)
        wanted = torch.ops.lcc.cached_block_sparse(q, *args, *numbers_of(layer))
        for cache in args[2:4]:
            cache[:, :, used:] = torch.nan
        out = torch.full_like(q, torch.nan)
        run(q, *args, out)
        torch.testing.assert_close(out, wanted[0], atol=2e-6, rtol=0)
        for cache, other in zip(args[2:4], wanted[1:], strict=True):
            assert torch.equal(cache[:, :, :filled], other[:, :, :filled])
            assert cache[:, :, filled:].isnan().all()


def test_kinds_of_blocks_see_differently() -> None:
    """Or a kernel that forgot one of their numbers would pass."""
    base = BLOCKS["a shift, an offset, several sinks"]
    changes = {"block": 4, "stride": 4, "local": 1, "sink": 0, "reach": 20, "offset": 0, "shift": 0}
    results = []
    for kind in (base, *(msgspec.structs.replace(base, **{k: n}) for k, n in changes.items())):
        layer = Layer(6, 3, 8, 0.3, blocks=kind)
        args = entries(replace(layer, blocks=base), 150, 7)
        q = drawn(1, 7, 6, 8)
        results.append(torch.ops.lcc.cached_block_sparse(q, *args, *numbers_of(layer))[0])
    for i, one in enumerate(results):
        assert all((one - other).abs().max() > 0.01 for other in results[:i])


def test_slots_that_no_query_sees_are_passed_over() -> None:
    """64 at a time: of them, neither keys nor values are read."""
    layer = Layer(4, 2, 16, 0.3, blocks=BlockSparse(block=4, stride=3, local=2, sink=0, reach=5))
    run = compiled(cached_attention(layer, TILES[BEST]))
    for length in (1, 16):
        args, q = entries(layer, 184, length), drawn(1, length, 4, 16)
        assert args[-1][0, 127] < HELD - 5 * 4
        wanted, out = torch.ops.lcc.cached_block_sparse(q, *args, *numbers_of(layer))[0], q.clone()
        for cache in args[2:4]:
            cache[:, :, :128] = torch.nan
        run(q, *args, out)
        torch.testing.assert_close(out, wanted, atol=2e-6, rtol=0)


@pytest.mark.parametrize("level", [BEST, PLAINEST])
@pytest.mark.parametrize(("n", "k", "bias"), [(96, 64, False), (260, 40, True), (7, 5, True)])
def test_products_of_packed_weights(n: int, k: int, bias: bool, level: str) -> None:
    """Columns and rows that fill no tile; nothing is written beside the result."""
    tiles = TILES[level]
    run = compiled(linear(n, k, 3, tiles, bias=bias), level)
    weight, added = drawn(n, k), drawn(n) if bias else torch.zeros(n)
    packed = torch.from_numpy(pack(weight.numpy(), tiles))
    for m in (1, 7, 8, 13, 33):
        x, out = drawn(1, m, k), torch.full((1, m, n), torch.nan)
        run(x, packed, *([added] if bias else []), out)
        torch.testing.assert_close(out, x @ weight.T + added, atol=2e-5, rtol=0)


def test_products_of_activations() -> None:
    run = compiled(batched(TILES[BEST], 3, None, 20, None))
    for m, n in [(1, 1), (9, 33), (24, 200)]:
        a, b, out = drawn(3, m, 20), drawn(3, 20, n), torch.full((3, m, n), torch.nan)
        run(a, b, out)
        torch.testing.assert_close(out, a @ b, atol=2e-5, rtol=0)


@pytest.mark.parametrize("packed", [True, False])
def test_rows_of_a_table(packed: bool) -> None:
    """Of a token that is none, some row of the table: memory beside it is never read."""
    table = drawn(70, 24)
    width = TILES[BEST].columns if packed else None
    given = torch.from_numpy(pack(table.numpy(), TILES[BEST])) if packed else table
    out = torch.empty(1, 5, 24)
    tokens = torch.tensor([[0, 69, 33, 10**12, -1]])
    compiled(lookup(70, 24, width, "int64"))(given, tokens, out)
    assert torch.equal(out[0], table[[0, 69, 33, 69, 0]])


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("half", [8, 5])
def test_rotation_is_the_operator(half: int, interleaved: bool) -> None:
    run = compiled(rows.rotate(TILES[BEST], 3, 16, half, interleaved))
    for length in (1, 40):
        x, cos, sin = drawn(1, length, 3, 16), drawn(1, length, half), drawn(1, length, half)
        out = torch.empty_like(x)
        run(x, cos, sin, out)
        wanted = torch.ops.lcc.rotate(x, cos, sin, interleaved)
        torch.testing.assert_close(out, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("level", [BEST, PLAINEST])
def test_softmax_and_the_sum_it_divides_by(level: str) -> None:
    """Of any length; what is hidden weighs exactly 0."""
    softmax = compiled(rows.softmax(TILES[level], [2, None, None]), level)
    log_sum = compiled(rows.log_sum(TILES[level], [2, None, None]), level)
    for count, length in [(1, 1), (3, 50), (20, 333)]:
        x = drawn(2, count, length) * 30
        x[:, :, 1::3] = -torch.inf
        out, total = torch.empty_like(x), torch.empty(2, count, 1)
        softmax(x, out)
        log_sum(x, total)
        torch.testing.assert_close(out, x.softmax(-1), atol=1e-6, rtol=2e-6)
        assert (out[x == -torch.inf] == 0).all()
        torch.testing.assert_close(total, x.logsumexp(-1, keepdim=True), atol=1e-5, rtol=1e-6)


def test_the_highest_of_each_row() -> None:
    """In order; of equal ones the first; garbage in what is written is not read."""
    run = compiled(rows.highest([None, 13], 5))
    for count in (1, 40):
        x = drawn(count, 13)
        x[:, 3], x[:, 7], x[:, 9] = -torch.inf, 2.0, 2.0
        x[0] = -torch.inf
        values, places = torch.full((count, 5), torch.nan), torch.full((count, 5), 99)
        run(x, values, places)
        order = [sorted(range(13), key=lambda i: (-row[i], i))[:5] for row in x.tolist()]
        assert places.tolist() == order
        assert torch.equal(values, x.gather(1, places))
