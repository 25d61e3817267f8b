"""hybrid_layers: the plan's kinds against the dense graph, ports, token positions, what is refused.

That the operators mean what the glossary says: test_ops.py. Whole texts: tests/end_to_end.
"""

import pytest
import torch

from lcc.capture.export import capture
from lcc.config import Positions
from lcc.errors import ConfigError, PassError
from lcc.ir.plan import parse_plan
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph, evaluate, shape
from lcc.passes.hybrid_layers import HybridLayers
from lcc.passes.lift_kv_cache import LiftKVCache
from lcc.testing.tiny import tiny_model

WINDOW = "0: sink_window(sink=2, window=9); 1: full"
BLOCKS = "0: block_sparse(block=4, stride=3, local=2, reach=6); 1: full"
block_sparse = torch.ops.lcc.cached_block_sparse.default


@pytest.fixture(scope="module")
def lifted(captured: ModelGraph) -> ModelGraph:
    graph = FindAttention(table_size=64)(captured).graph
    return LiftKVCache(capacity=48, queries=True)(graph).graph


def hybrid(graph: ModelGraph, plan: str, positions: Positions = "contiguous") -> ModelGraph:
    return HybridLayers(plan, positions=positions, chunk_size=4)(graph).graph


def names(graph: ModelGraph) -> list[str]:
    """Of the inputs, as the graph has them and as the ports say."""
    found = [node.name for node in graph.graph.find_nodes(op="placeholder")]
    assert found == [port.name for port in graph.inputs]
    return found


def run(graph: ModelGraph, ids: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    """Logits of ids [n], read in chunks; nothing is dropped."""
    caches, one = {}, torch.zeros(1, dtype=torch.int32)
    for port in graph.inputs:
        if port.role in (Role.KEY, Role.VALUE, Role.TOKEN_POSITION):
            value = graph.placeholder(port.name).meta["val"]
            caches[port.name] = torch.zeros(value.shape, dtype=value.dtype)
    rows, used = [], 0
    for size in sizes:
        given = {
            "tokens": ids[None, used : used + size],
            "positions": torch.arange(used, used + size)[None],
            "query_rows": torch.tensor([size - 1]),
            "tokens_read": torch.tensor([used]),
            **caches,
        }
        given |= {name: one for name in names(graph) if name.startswith("kept")}
        counted = torch.tensor([used], dtype=torch.int32)
        outputs = graph.module(*(given.get(name, counted) for name in names(graph)))
        by_name = {p.name: x for p, x in zip(graph.outputs, outputs, strict=True)}
        caches |= {name: by_name[f"{name}_out"] for name in caches if f"{name}_out" in by_name}
        rows.append(by_name["logits"][0])
        used += size
    return torch.cat(rows)


@pytest.mark.parametrize("positions", ["contiguous", "absolute"])
def test_a_window_larger_than_the_text_changes_nothing(
    lifted: ModelGraph, positions: Positions
) -> None:
    ids, sizes = torch.arange(20) * 7 % 250, [7, 1, 12]
    dense = run(lifted, ids, sizes)
    for plan, sites in (
        ("dense", 0),
        ("longgen(sink=2, window=20)", 1),
        ("0-1: sink_window", 2),
        ("longgen_blocks(block=4, local=5, sink=0, stride=9)", 1),
    ):
        result = HybridLayers(plan, positions=positions, chunk_size=12)(lifted)
        assert result.sites == sites
        assert result.graph.plan == parse_plan(plan, 2)
        got = run(result.graph, ids, sizes)
        assert torch.equal(got, dense) if sites == 0 else torch.allclose(got, dense, atol=1e-5)
    assert lifted.plan is None


def test_sparse_layers_are_small_and_nobody_scores_them(lifted: ModelGraph) -> None:
    graph = hybrid(lifted, WINDOW)
    assert shape(graph.placeholder("key_0"))[2] == shape(graph.placeholder("value_0"))[2] == 15
    assert shape(graph.placeholder("key_1"))[2] == 48
    assert [port.name for port in graph.outputs] == [
        "logits",
        "queries_1",
        "key_0_out",
        "value_0_out",
        "key_1_out",
        "value_1_out",
    ]
    assert names(graph)[:5] == ["tokens", "positions", "used", "used_1", "query_rows"]
    ids = torch.arange(15) * 7 % 250
    narrow = run(graph, ids, [4, 4, 4, 3])
    assert torch.allclose(narrow, run(graph, ids, [1] * 15), atol=1e-5)
    assert not torch.allclose(narrow, run(lifted, ids, [4, 4, 4, 3]), atol=1e-3)


def test_where_nobody_is_scored_no_rows_are_asked_for(lifted: ModelGraph) -> None:
    graph = hybrid(lifted, "0-1: sink_window(sink=2, window=9)")
    assert names(graph)[:5] == ["tokens", "positions", "used", "used_1", "key_0"]


def test_there_is_room_for_what_the_newest_tokens_saw(lifted: ModelGraph) -> None:
    """Seen, a chunk, the catalyst; of five tokens that are read once more, four are behind it."""
    for plan, slots in ((WINDOW, 2 + 9 + 6 + 4), (BLOCKS, 4 * (1 + 2 + 2) + 4 + 6 + 4)):
        step = HybridLayers(plan, positions="absolute", chunk_size=4, catalyst_size=6, lag=5)
        assert shape(step(lifted).graph.placeholder("key_0"))[2] == slots


def test_every_kind_has_counters_of_its_own(lifted: ModelGraph) -> None:
    one, other = BLOCKS.replace("; 1: full", ""), "1: sink_window(sink=2, window=9)"
    graph = hybrid(lifted, f"{one}; {other}")
    added = graph.inputs[3:8]
    assert added == (
        Port("tokens_read", Role.COUNTER),
        Port("used_1", Role.COUNTER),
        Port("kept_1", Role.COUNTER),
        Port("token_position_block_sparse_1", Role.TOKEN_POSITION),
        Port("used_2", Role.COUNTER),
    )
    assert names(graph)[3:8] == [port.name for port in added]
    assert shape(graph.placeholder(added[3].name)) == (2, 24)
    (site,) = graph.calls(torch.ops.lcc.cached_sink_window.default)
    assert site.args[6].name == "used_2"


def test_token_positions_are_those_kept_and_then_the_newest(lifted: ModelGraph) -> None:
    """Five entries of a text of 30 tokens, of which the last compaction left three."""
    graph = hybrid(lifted, BLOCKS)
    (site,) = graph.calls(block_sparse)
    slots = shape(graph.placeholder("key_0"))[2]
    held = torch.full((2, slots), -7)
    held[0, :3], held[1, :3] = torch.tensor([0, 9, 27]), torch.tensor([0, 12, 27])
    given = {
        "token_position_block_sparse_1": held,
        "used_1": torch.tensor([5], dtype=torch.int32),
        "kept_1": torch.tensor([3], dtype=torch.int32),
        "tokens_read": torch.tensor([30]),
    }
    values = {graph.placeholder(name): value for name, value in given.items()}
    got = evaluate(graph, site.args[6], values).tolist()
    behind = list(range(28, 30 + slots - 5))  # slot 5 is the next token's
    assert got == [[0, 9, 27, *behind], [0, 12, 27, *behind]]


def test_blocks_larger_than_the_table_of_angles_are_refused(lifted: ModelGraph) -> None:
    """Two blocks at once: one is no longer new, one lies beyond the reach."""
    plan = "0: block_sparse(block=32, stride=2, local=1, reach=4, sink=0); 1: full"
    with pytest.raises(ConfigError, match=r"64 entries may be dropped .*\(64\); .*--capacity 65"):
        HybridLayers(plan, positions="contiguous", chunk_size=16)(lifted)
    assert HybridLayers(plan, positions="absolute", chunk_size=16)(lifted).sites == 1


def test_plans_that_do_not_fit_are_refused(lifted: ModelGraph, captured: ModelGraph) -> None:
    with pytest.raises(ConfigError, match="wanted layers 0 to 1"):
        hybrid(lifted, "0-2: full")
    with pytest.raises(ConfigError, match="no kind for layers 1"):
        hybrid(lifted, "0: full")
    with pytest.raises(PassError, match=r"no lcc.cached_attention; run lift_kv_cache first"):
        hybrid(captured, WINDOW)
    graph = FindAttention(table_size=64)(capture(tiny_model("mistral"))).graph
    graph = LiftKVCache(capacity=48, queries=True)(graph).graph
    with pytest.raises(ConfigError, match=r"layer 1 has a window of its own .* wanted full"):
        hybrid(graph, "longgen")
