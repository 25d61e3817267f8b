"""The operators of layers that see a part of the text, against loops."""

import itertools

import msgspec
import pytest
import torch

from lcc.config import Positions
from lcc.ir.plan import BlockSparse, SinkWindow
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.passes.rotation import Rotation, rotate
from lcc.testing.oracles import OracleCache, attention, sees

FREQUENCIES = torch.tensor([1.0, 0.3, 0.1, 0.01], dtype=torch.float64)
HEADS, GROUP, D = 2, 2, 8
KINDS = [
    SinkWindow(sink=2, window=5),
    SinkWindow(sink=0, window=3),
    SinkWindow(sink=4, window=6, block=2),
    SinkWindow(sink=0, window=4, block=4),
    SinkWindow(sink=3, window=40),
]


def test_what_is_seen() -> None:
    seen = lambda kind, i: [j for j in range(i + 2) if sees(kind, i, j)]  # noqa: E731
    assert seen(KINDS[0], 9) == [0, 1, 5, 6, 7, 8, 9]
    assert seen(KINDS[0], 3) == [0, 1, 2, 3]
    assert seen(KINDS[2], 11) == [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]  # the last place of its block
    assert seen(KINDS[2], 12) == [0, 1, 2, 3, 8, 9, 10, 11, 12]  # the first place of the next
    assert seen(KINDS[4], 20) == list(range(21))


@pytest.mark.parametrize("positions", ["contiguous", "absolute"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_operator_is_the_loops(kind: SinkWindow, positions: Positions) -> None:
    """A layer of its own slots, compacted by hand, against one that never forgets."""
    g = torch.Generator().manual_seed(3)
    n, slots = 37, kind.slots(6)
    q = torch.randn(n, HEADS * GROUP, D, generator=g)
    k, v = (torch.randn(n, HEADS, D, generator=g) for _ in range(2))
    oracle = OracleCache(
        kv_heads=HEADS,
        scale=0.4,
        frequencies=FREQUENCIES.tolist(),
        positions=positions,
        kind=kind,
    )
    wanted = [oracle.step(q[t], k[t], v[t]) for t in range(n)]
    table = Rotation.from_frequencies(FREQUENCIES, 99)
    key, value = (torch.full((1, HEADS, slots, D), torch.nan) for _ in range(2))
    used, read, got = 0, 0, []
    for size in itertools.cycle([6, 1, 3, 6, 2]):
        if read == n:
            break
        size = min(size, n - read)
        if used + size > slots:
            used = _compact(key, value, used, kind, table if positions == "contiguous" else None)
        place = torch.arange(used, used + size)
        if positions == "absolute":
            place = torch.arange(read, read + size)
        sinks = place
        if positions == "contiguous":
            first = place // kind.block * kind.block - kind.window + kind.block
            sinks = place - (first - kind.sink).clamp(min=0)
        part = slice(read, read + size)
        turned = [_turn(x[part], at, table) for x, at in ((q, place), (q, sinks), (k, place))]
        out, key, value = torch.ops.lcc.cached_sink_window(
            *turned,
            v[part][None],
            key,
            value,
            torch.tensor([used], dtype=torch.int32),
            kind.sink,
            kind.window,
            kind.block,
            0.4,
            0.0,
            -1,
        )
        got += out[0].tolist()
        used, read = used + size, read + size
    torch.testing.assert_close(torch.tensor(got), torch.tensor(wanted), rtol=1e-4, atol=1e-5)


BLOCKS = [
    BlockSparse(block=2, stride=3, local=2, sink=1, reach=8),
    BlockSparse(block=4, stride=3, local=1, sink=0, offset=2, shift=1),
    BlockSparse(block=3, stride=2, local=2, sink=0, reach=5, shift=3),
    BlockSparse(block=8, stride=4, local=7),
]


@pytest.mark.parametrize("kind", BLOCKS, ids=str)
def test_the_operator_of_blocks_is_the_loops(kind: BlockSparse) -> None:
    """Chunks of any length over entries that lie where they were written."""
    g = torch.Generator().manual_seed(3)
    n, slots = 37, 45
    q = torch.randn(n, HEADS * GROUP, D, generator=g)
    k, v = (torch.randn(n, HEADS, D, generator=g) for _ in range(2))
    oracle = OracleCache(kv_heads=HEADS, scale=0.4, kind=kind)
    wanted = [oracle.step(q[t], k[t], v[t]) for t in range(n)]
    key, value = (torch.full((1, HEADS, slots, D), torch.nan) for _ in range(2))
    places = torch.arange(slots).repeat(HEADS + 1, 1)  # another layer of the kind has a head more
    got, used = [], 0
    for size in [6, 1, 3, 6, 2, 11, 1, 7]:
        part = slice(used, used + size)
        out, key, value = torch.ops.lcc.cached_block_sparse(
            *(q[part][None], k[part][None], v[part][None], key, value),
            *(torch.tensor([used], dtype=torch.int32), places),
            *msgspec.structs.astuple(kind),
            *(0.4, 0.0, -1),
        )
        got += out[0].tolist()
        used += size
    torch.testing.assert_close(torch.tensor(got), torch.tensor(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("more", ["sinks", "bias"])
def test_sinks_and_a_bias_by_slot_are_the_loops(more: str, window: int) -> None:
    """Query by query and head by head; in chunks, over slots that were never used."""
    g = torch.Generator().manual_seed(3)
    n, slots, heads = 17, 20, HEADS * GROUP
    q = torch.randn(n, heads, D, generator=g)
    k, v = (torch.randn(n, HEADS, D, generator=g) for _ in range(2))
    sinks = torch.randn(heads, generator=g) + 1 if more == "sinks" else None
    bias = torch.randn(heads, slots + 3, generator=g) if more == "bias" else None
    wanted = torch.zeros(n, heads, D)
    for token, head in itertools.product(range(n), range(heads)):
        mine = head // GROUP
        shares = attention(
            q[token, head].tolist(),
            k[: token + 1, mine].tolist(),
            0.4,
            window or None,
            sink=None if sinks is None else float(sinks[head]),
            bias=None if bias is None else bias[head].tolist(),
        )
        assert sum(shares) < 0.99 or sinks is None, "a sink takes its share"
        for share, value in zip(shares, v[: token + 1, mine], strict=True):
            wanted[token, head] += share * value
    whole = torch.ops.lcc.attention(q[None], k[None], v[None], 0.4, window, 0.0, -1, sinks, bias)
    torch.testing.assert_close(whole[0], wanted, rtol=1e-4, atol=1e-5)
    key, value = (torch.full((1, HEADS, slots, D), torch.nan) for _ in range(2))
    used, got = 0, []
    for size in (6, 1, 3, 7):
        part = slice(used, used + size)
        out, key, value = torch.ops.lcc.cached_attention(
            *(x[part][None] for x in (q, k, v)),
            *(key, value, torch.tensor([used], dtype=torch.int32)),
            *(0.4, window, 0.0, -1, sinks, bias),
        )
        got, used = [*got, out[0]], used + size
    torch.testing.assert_close(torch.cat(got), wanted, rtol=1e-4, atol=1e-5)


def _turn(x: torch.Tensor, places: torch.Tensor, table: Rotation) -> torch.Tensor:
    cos, sin = table.cos[places][:, None], table.sin[places][:, None]
    return rotate(x, cos, sin, interleaved=False)[None]


def _compact(
    key: torch.Tensor, value: torch.Tensor, used: int, kind: SinkWindow, table: Rotation | None
) -> int:
    """Drop what the next query does not see."""
    first = max(kind.sink, used // kind.block * kind.block - kind.window + kind.block)
    moved, count = first - kind.sink, used - first
    new = slice(kind.sink, kind.sink + count)
    tail = key[:, :, first:used].clone()
    if table is not None:
        tail = rotate(tail, table.cos[moved], -table.sin[moved], interleaved=False)
    key[:, :, new], value[:, :, new] = tail, value[:, :, first:used].clone()
    return kind.sink + count
