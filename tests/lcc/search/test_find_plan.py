"""Plans found: losses are those of the layers that would be compiled, and the rules are kept."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from lcc.capture.export import capture
from lcc.cli import app
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import ConfigError
from lcc.ir.plan import BlockSparse, Full, SinkWindow, Sparse, parse_plan, positions_of, show_plan
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.passes.hybrid_layers import HybridLayers
from lcc.passes.lift_kv_cache import LiftKVCache
from lcc.passes.policies import make_policy
from lcc.passes.specialize import Subject, specialize
from lcc.search.find_plan import find_plan, greedy, kv_bytes, most_full, placements
from lcc.search.plan_meter import Loss, Meter, Plan, Site, sites
from lcc.sources.models import LoadedModel
from lcc.testing.tiny import tiny_model, tiny_tokenizer
from lcc.train import sparse_attention
from lcc.train.sparse_attention import attend_window

KIND = SinkWindow(sink=2, window=8)
CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
LENGTH = 48
TEXT = "".join(f"The key of door {i} is {i * i % 97}, said guard {i % 7}.\n" for i in range(40))


def loaded(architecture: str, **overrides: object) -> LoadedModel:
    files = {"tokenizer.json": tiny_tokenizer().to_str().encode()}
    model = tiny_model(architecture, **overrides)
    return LoadedModel(model, architecture, architecture, 512, files)


@pytest.fixture(scope="module")
def graph() -> ModelGraph:
    return FindAttention(2 * LENGTH)(capture(tiny_model("llama", num_hidden_layers=3))).graph


@pytest.fixture(scope="module")
def texts() -> list[list[int]]:
    ids = list(TEXT.encode())
    return [ids[:LENGTH], ids[200 : 200 + LENGTH]]


@pytest.fixture(scope="module")
def meter(graph: ModelGraph, texts: list[list[int]]) -> Meter:
    return Meter(graph, texts, skip=8)


@torch.no_grad()
def compiled_logits(graph: ModelGraph, plan: Plan, ids: list[int]) -> Tensor:
    """[n, V] by the passes that a compilation runs, over caches that hold the whole text."""
    lifted = LiftKVCache(capacity=LENGTH, queries=False)(graph).graph
    if any(kind != Full() for kind in plan):
        hybrid = HybridLayers(show_plan(plan), positions=positions_of(plan), chunk_size=LENGTH)
        lifted = hybrid(lifted).graph
    values = {
        "tokens": torch.tensor([ids]),
        "positions": torch.arange(len(ids))[None],
    }
    nodes = lifted.graph.find_nodes(op="placeholder")
    for node in nodes:
        if node.name not in values:
            empty = node.meta["val"]
            values[node.name] = torch.zeros(tuple(empty.shape), dtype=empty.dtype)
    logits: Tensor = lifted.module(*(values[node.name] for node in nodes))[0][0]
    return logits


@pytest.mark.parametrize(
    "kind",
    [
        KIND,
        SinkWindow(sink=0, window=3),
        SinkWindow(sink=4, window=8, block=4),
        BlockSparse(block=2, stride=4, local=2, shift=1),
    ],
    ids=str,
)
@pytest.mark.parametrize("ranges", ["0: full; 1: {}; 2: full", "0-2: {}", "0: {}; 1-2: full"])
def test_losses_are_those_of_the_compiled_layers(
    ranges: str, kind: Sparse, graph: ModelGraph, texts: list[list[int]], meter: Meter
) -> None:
    plan = parse_plan(ranges.format(kind), 3)
    divergence, nll, count = 0.0, 0.0, 2 * (LENGTH - 9)
    for ids in texts:
        dense = compiled_logits(graph, (Full(),) * 3, ids).log_softmax(-1)[8:-1]
        got = compiled_logits(graph, plan, ids).log_softmax(-1)[8:-1]
        divergence += float((dense.exp() * (dense - got)).sum()) / count
        nll -= sum(float(row[i]) for row, i in zip(got, ids[9:], strict=True)) / count
    loss = meter.loss(plan)
    assert loss.divergence == pytest.approx(divergence, rel=1e-3)
    assert loss.nll == pytest.approx(nll, rel=1e-5)
    assert loss.divergence > 1e-3


@pytest.mark.parametrize(
    "kind", [KIND, SinkWindow(sink=9, window=3), SinkWindow(sink=4, window=12, block=4)], ids=str
)
def test_queries_in_blocks_see_what_they_see_at_once(
    kind: SinkWindow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of seven: some begin among the first tokens, some inside a block of the kind."""
    draw = torch.Generator().manual_seed(5)
    q, sink_q = (torch.randn(1, 45, 4, 8, generator=draw) for _ in range(2))
    k, v = (torch.randn(1, 45, 2, 8, generator=draw) for _ in range(2))
    whole = attend_window(q, sink_q, k, v, kind, 0.4, softcap=3.0)
    monkeypatch.setattr(sparse_attention, "BLOCK", 7)
    torch.testing.assert_close(attend_window(q, sink_q, k, v, kind, 0.4, softcap=3.0), whole)


def test_going_on_from_a_layer_is_beginning_anew(meter: Meter) -> None:
    plan = parse_plan(f"0: {KIND}; 1: full; 2: {KIND}", 3)
    meter.base(parse_plan(f"0: {KIND}; 1-2: full", 3))
    later = meter.loss(plan, changed=2)
    assert later == meter.loss(plan)
    assert meter.loss(meter.dense).divergence == 0.0


class Sums:
    """A meter whose losses are known: every layer costs its own, and two of them more together."""

    dense: Plan = (Full(),) * 4
    windows = (0, 0, 0, 0)
    costs = (4.0, 1.0, 2.0, 1.5)

    def __init__(self) -> None:
        self.measured = 0

    def base(self, plan: Plan) -> None:
        self.began = plan

    def loss(self, plan: Plan, changed: int | None = None) -> Loss:
        self.measured += 1
        sparse = [i for i, kind in enumerate(plan) if kind != Full()]
        return Loss(sum(self.costs[i] for i in sparse) + 3 * ({1, 3} <= set(sparse)), 0.0)


def test_greedy_takes_the_layer_that_costs_least_now() -> None:
    """1 first; then 3 would be next by its cost alone, but beside 1 it costs more than 2."""
    alone = {i: Loss(cost, 0.0) for i, cost in enumerate(Sums.costs)}
    found = list(greedy(Sums(), KIND, alone, 1, lambda *_: None))  # type: ignore[arg-type]
    taken = [{i for i, kind in enumerate(plan) if kind == KIND} for plan, _ in found]
    assert taken == [{1}, {1, 2}, {1, 2, 0}]
    assert [loss.divergence for _, loss in found] == [1.0, 3.0, 7.0]


def test_placements_leave_as_many_layers_full() -> None:
    meter = Sums()
    meter.windows, meter.dense = (0,) * 9, (Full(),) * 9
    found = placements(meter, KIND, 3)  # type: ignore[arg-type]
    full = {
        name: [i for i, kind in enumerate(plan) if kind == Full()] for name, plan in found.items()
    }
    assert full == {
        "longgen, the middle full": [3, 4, 5],
        "the first full": [0, 1, 2],
        "the last full": [6, 7, 8],
        "interleaved": [1, 4, 7],
    }
    assert found["longgen, the middle full"] == parse_plan("longgen(sink=2, window=8)", 9)
    assert set(placements(meter, KIND, 0)["interleaved"]) == {KIND}  # type: ignore[arg-type]


def test_bytes_are_those_of_the_compiled_cache(graph: ModelGraph) -> None:
    plan = parse_plan(f"0: {KIND}; 1-2: full", 3)
    knorm = PolicyConfig(name="knorm")
    config = CompileConfig(cache=CACHE, plan=f"0: {KIND}; 1-2: full", policy=knorm)
    captured = capture(tiny_model("llama", num_hidden_layers=3))
    special = specialize(Subject(captured, "m", "llama", 512), config, make_policy(knorm))
    entries = sum(2 * e.kv_heads * e.head_size * (e.slots or 96) * 4 for e in special.model.layers)
    layers = sites(graph)
    assert kv_bytes(layers, plan, CACHE) == entries
    assert most_full(layers, KIND, CACHE, entries) == 2
    assert most_full(layers, KIND, CACHE, entries - 1) == 1
    with pytest.raises(ConfigError, match="without a full layer keys and values take"):
        most_full(layers, KIND, CACHE, 999)
    mixed = [Site(8, 0), Site(32, 0), Site(8, 0)]  # one may stay full, if it is the largest
    largest = parse_plan(f"0: {KIND}; 1: full; 2: {KIND}", 3)
    assert most_full(mixed, KIND, CACHE, kv_bytes(mixed, largest, CACHE)) == 1
    assert most_full(mixed, KIND, CACHE, kv_bytes(mixed, largest, CACHE) - 1) == 0


def test_layers_with_windows_keep_them() -> None:
    found = find_plan(loaded("gemma3_text"), TEXT, KIND, full=0, cache=CACHE, length=40, pieces=1)
    assert [loss is None for loss in found.alone] == [True, False, True]
    assert found.best.plan == f"0: full; 1: {KIND}; 2: full"
    assert found.best.full == 0


def command(tmp_path: Path, model: Path, *flags: str) -> str:
    data = tmp_path / "text.txt"
    data.write_text(TEXT)
    sizes = ("--length", "64", "--pieces", "2", "--kind", "sink_window(sink=2, window=8)")
    result = CliRunner().invoke(
        app,
        [
            "plan",
            str(model),
            "--data",
            str(data),
            "-o",
            str(tmp_path / "plan.yaml"),
            *sizes,
            *flags,
        ],
    )
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_the_command_writes_what_compile_reads(tiny_folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "plan.png"
    page = json.loads(
        command(tmp_path, tiny_folder, "--json", "--picture", str(picture), "--full", "1")
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(page["alone"]) == 2
    assert page["best"]["full"] == 1
    assert page["plans"]["dense"]["divergence"] == 0.0
    text = (tmp_path / "plan.yaml").read_text()
    assert f'plan: "{page["best"]["plan"]}"' in text
    out = tmp_path / "m.lcc"
    flags = ["--config", str(tmp_path / "plan.yaml"), "--target", "reference", "--json", "-q"]
    flags += ["--capacity", "400", "--chunk-size", "64"]
    result = CliRunner().invoke(app, ["compile", str(tiny_folder), "-o", str(out), *flags])
    assert result.exit_code == 0, (result.output, result.exception)
    kinds = [layer.get("kind") for layer in json.loads(result.stdout)["model"]["layers"]]
    assert sum(kind is not None and kind.get("type") == "sink_window" for kind in kinds) == 1


def test_a_plan_of_blocks_says_by_what_positions(tiny_folder: Path, tmp_path: Path) -> None:
    kind = "block_sparse(block=4, stride=4, local=2, reach=64)"
    command(tmp_path, tiny_folder, "--kind", kind, "--full", "1")
    text = (tmp_path / "plan.yaml").read_text()
    assert f": {kind}" in text
    assert "cache: {positions: absolute}" in text


def test_what_cannot_be_found(tiny_folder: Path, tmp_path: Path) -> None:
    model = loaded("llama")
    cases = [
        ({"length": 10}, "sees all of a piece of 10 tokens"),
        ({"length": 600}, "was trained to read 512 tokens"),
        ({"length": 400, "pieces": 9}, "9 pieces of 400 are 3600"),
        ({"length": 40, "full": 2}, "layers that stay full: 2, wanted 0 to 1"),
        ({"length": 40, "pieces": 0}, "pieces is 0, wanted 1 or more"),
        ({"length": 40, "kv_limit": 10**9}, "all 2 layers fit as they are"),
        (
            {
                "kind": SinkWindow(window=300),
                "length": 400,
                "cache": CacheConfig(capacity=560, budget=240),
                "pieces": 2,
            },
            "nothing would be saved",
        ),
    ]
    for options, words in cases:
        with pytest.raises(ConfigError, match=words):
            find_plan(model, TEXT, options.pop("kind", KIND), **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="every layer has a window of the model's own"):
        find_plan(loaded("mistral"), TEXT, KIND, length=40)
    base = ["plan", str(tiny_folder), "--data", str(tmp_path / "none.txt")]
    for flags, words in [
        (["-o", str(tmp_path)], "a folder; wanted a file"),
        (["-o", "p.yaml", "--picture", "p.foo"], "p.foo: wanted a name that ends in .png or .svg"),
        (["-o", "p.yaml", "--kv", "much"], "'much' is not a size"),
        (["-o", "p.yaml", "--kind", "sink_window("], "has no closing parenthesis"),
        (["-o", "p.yaml", "--kind", "full"], "wanted what the layers see that are not full"),
        (["-o", "p.yaml"], "none.txt"),
    ]:
        result = CliRunner().invoke(app, [*base, *flags])
        assert result.exit_code == 2
        assert words in result.stderr
