"""Layers of other kinds: the operator against loops, the pass against the dense graph."""

import itertools

import msgspec
import pytest
import torch

from lcc.artifact.manifest import LayerEntry
from lcc.capture.export import capture
from lcc.config import CacheConfig, PolicyConfig, Positions
from lcc.errors import ConfigError, PassError
from lcc.ir.plan import BlockSparse, SinkWindow, Sparse, parse_plan
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph, shape
from lcc.passes.hybrid_layers import HybridLayers
from lcc.passes.lift_kv_cache import LiftKVCache
from lcc.passes.policies import make_policy
from lcc.passes.programs.per_layer import eviction_programs
from lcc.passes.rotation import Rotation, rotate
from lcc.runtime.windows import windows_of
from lcc.testing.oracles import OracleCache, sees
from lcc.testing.tiny import tiny_model

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


@pytest.fixture(scope="module")
def lifted() -> ModelGraph:
    graph = FindAttention(table_size=64)(capture(tiny_model("llama"))).graph
    return LiftKVCache(capacity=48, queries=True)(graph).graph


def run(graph: ModelGraph, ids: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Logits of ids [n], read in chunks."""
    caches = {
        node.name: torch.zeros(shape(node))
        for node in graph.graph.find_nodes(op="placeholder")
        if node.name.startswith(("key_", "value_"))
    }
    rows, used = [], 0
    for size in sizes:
        part = torch.arange(used, used + size)[None]
        given = {"tokens": ids[None, used : used + size], "positions": part}
        given["places_1"] = torch.arange(shape(graph.placeholder("key_0"))[2]).repeat(2, 1)
        given["query_rows"] = torch.tensor([size - 1])
        at = torch.tensor([used], dtype=torch.int32)
        names = [node.name for node in graph.graph.find_nodes(op="placeholder")]
        values = [given.get(name, caches.get(name, at)) for name in names]
        outputs = dict(zip(graph.outputs, graph.module(*values), strict=True))
        caches = {name: outputs[f"{name}_out"] for name in caches}
        rows.append(outputs["logits"][0])
        used += size
    return torch.cat(rows)


@pytest.mark.parametrize("positions", ["contiguous", "absolute"])
def test_a_window_larger_than_the_text_changes_nothing(
    lifted: ModelGraph, positions: Positions
) -> None:
    ids, sizes = torch.arange(20) * 7 % 250, [7, 1, 12]
    dense = run(lifted, ids, sizes)
    for text, sites in (
        ("dense", 0),
        ("longgen(sink=2, window=20)", 1),
        ("0-1: sink_window", 2),
        ("longgen_blocks(block=4, local=5, sink=0, stride=9)", 1),
    ):
        plan = parse_plan(text, 2)
        result = HybridLayers(plan, positions=positions, chunk_size=12)(lifted)
        assert result.sites == sites
        got = run(result.graph, ids, sizes)
        assert torch.equal(got, dense) if sites == 0 else torch.allclose(got, dense, atol=1e-5)


def test_sparse_layers_are_small_and_nobody_scores_them(lifted: ModelGraph) -> None:
    plan = parse_plan("0: sink_window(sink=2, window=9); 1: full", 2)
    graph = HybridLayers(plan, positions="contiguous", chunk_size=4)(lifted).graph
    assert shape(graph.placeholder("key_0"))[2] == shape(graph.placeholder("value_0"))[2] == 15
    assert shape(graph.placeholder("key_1"))[2] == 48
    assert graph.outputs == (
        "logits",
        "queries_1",
        "key_0_out",
        "value_0_out",
        "key_1_out",
        "value_1_out",
    )
    inputs = [node.name for node in graph.graph.find_nodes(op="placeholder")]
    assert inputs[:5] == ["tokens", "positions", "used", "used_1", "query_rows"]
    ids = torch.arange(15) * 7 % 250
    narrow = run(graph, ids, [4, 4, 4, 3])
    assert torch.allclose(narrow, run(graph, ids, [1] * 15), atol=1e-5)
    assert not torch.allclose(narrow, run(lifted, ids, [4, 4, 4, 3]), atol=1e-3)


def test_where_nobody_is_scored_no_rows_are_asked_for(lifted: ModelGraph) -> None:
    plan = parse_plan("0-1: sink_window(sink=2, window=9)", 2)
    graph = HybridLayers(plan, positions="contiguous", chunk_size=4)(lifted).graph
    inputs = [node.name for node in graph.graph.find_nodes(op="placeholder")]
    assert inputs[:5] == ["tokens", "positions", "used", "used_1", "key_0"]


def test_what_a_layer_drops_no_policy_decides(lifted: ModelGraph) -> None:
    """Whatever policy and options full layers have, sparse ones have a program that reads none."""
    plan = parse_plan("0: sink_window(sink=2, window=9); 1: full", 2)
    graph = HybridLayers(plan, positions="contiguous", chunk_size=4)(lifted).graph
    cache = CacheConfig(capacity=48, budget=24, chunk_size=4, catalyst_size=4, recent_size=4)
    policy = make_policy(PolicyConfig(name="sink_window", merge=0.5))
    layers, programs = eviction_programs(graph, cache, policy, plan)
    assert [layer.evict for layer in layers] == ["compact_0", "evict_0"]
    inputs = {name: program.inputs for program in programs for name in program.names}
    assert inputs["compact_0"] == ("key", "value", "kept", "new_slots")


def test_blocks_larger_than_the_table_of_angles_are_refused(lifted: ModelGraph) -> None:
    """Two blocks at once: one is no longer new, one lies beyond the reach."""
    plan = parse_plan("0: block_sparse(block=32, stride=2, local=1, reach=4, sink=0); 1: full", 2)
    with pytest.raises(ConfigError, match=r"64 entries may be dropped .*\(64\); .*--capacity 65"):
        HybridLayers(plan, positions="contiguous", chunk_size=16)(lifted)
    assert HybridLayers(plan, positions="absolute", chunk_size=16)(lifted).sites == 1


@pytest.mark.parametrize("kind", [*KINDS, *BLOCKS], ids=str)
def test_no_more_leave_at_once_than_is_said(kind: Sparse) -> None:
    for chunk in (1, 3, 8, 20):
        most = 0
        for heads in (1, 3):
            layers = [LayerEntry(query_heads=heads, kv_heads=heads, head_size=4, kind=kind,
                                 slots=kind.slots(chunk, 4))]  # fmt: skip
            (window,) = windows_of(layers)
            for read in range(200):
                if window.is_due(read, chunk, 1):
                    before = window.used
                    window.compact(window.kept())
                    most = max(most, before - window.used)
                window.place(window.used, read, 1)
                window.used += 1
        assert 0 < most <= kind.leaving(chunk, 4)


def test_plans_that_do_not_fit_are_refused(lifted: ModelGraph) -> None:
    with pytest.raises(PassError, match="2 cached attentions, the plan has 3 layers"):
        HybridLayers(parse_plan("dense", 3), positions="contiguous", chunk_size=4)(lifted)
    graph = FindAttention(table_size=64)(capture(tiny_model("mistral"))).graph
    graph = LiftKVCache(capacity=48, queries=True)(graph).graph
    with pytest.raises(ConfigError, match=r"layer 1 has a window of its own .* wanted full"):
        HybridLayers(parse_plan("longgen", 2), positions="contiguous", chunk_size=4)(graph)
