"""Goldens without a model: what is read, what is written down, what a file may say."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lcc.artifact.golden import (
    CycleRecord,
    Golden,
    LogitsRecord,
    Sizes,
    Tolerance,
    golden_bytes,
    make_golden,
    read_golden,
    recorded_layers,
    transcript,
)
from lcc.artifact.golden_reading import golden_ids, golden_sizes
from lcc.artifact.golden_text import PARAGRAPH, drawn_ids
from lcc.artifact.manifest import LayerEntry, Manifest, ModelEntry, ProgramEntry
from lcc.artifact.schedule import (
    Block,
    BufferSpec,
    Catalyst,
    Group,
    Over,
    Run,
    Schedule,
    TensorSpec,
    TextFacts,
)
from lcc.config import CacheConfig, PolicyConfig
from lcc.errors import ArtifactError
from lcc.ir.roles import Role
from lcc.measure.check_golden import check_golden

VOCAB = 50


def manifest_of(
    *,
    cache: CacheConfig | None = None,
    reserved: int = 0,
    groups: Sequence[Group] = (),
    layers: int = 2,
    evicts: bool = True,
    fixed: Sequence[int | str] = ("n",),
    **fields: object,
) -> Manifest:
    """A model of which nothing is known but sizes; its step takes tokens of shape `fixed`."""
    cache = cache or CacheConfig(
        capacity=200, budget=100, chunk_size=64, catalyst_size=10, recent_size=8
    )
    sizes = {name: getattr(cache, name) for name in ("capacity", "budget", "chunk_size")}
    tokens = TensorSpec(name="tokens", role=Role.TOKENS, dtype="int64", shape=(1, *fixed))
    entry = ProgramEntry(file="step", inputs=[tokens], outputs=[])
    run = Run(run="step", bind={"tokens": ("ids", "used", "n")})
    read = Block(over=Over(ids="text", most="chunk_size"), do=(run,))
    others = [layer for group in groups for layer in group.layers]
    full = tuple(layer for layer in range(layers) if layer not in others)
    parts: dict = {
        "made_by": "a test",
        "target": "onnxruntime:cpu",
        "model": ModelEntry(
            name="m",
            architecture="llama",
            hidden_size=4,
            vocab_size=VOCAB,
            layers=[LayerEntry(query_heads=2, kv_heads=2, head_size=2)] * layers,
        ),
        "cache": cache,
        "policy": PolicyConfig(name="keydiff"),
        "constants": {**sizes, "reserved": reserved, "zero": 0, "one": 1},
        "counters": dict.fromkeys(("used", "kept", "tokens", "n", "start", "layer", "left"), 0),
        "groups": (
            Group(name="full", used="used", kept="kept", slots="capacity", layers=full),
            *groups,
        ),
        "buffers": (
            BufferSpec(name="ids", role=Role.TOKENS, dtype="int64", shape=(300,)),
            BufferSpec(name="key_0", role=Role.KEY, dtype="float32", shape=(1, 2, "capacity", 2)),
        ),
        "schedule": Schedule(read=(read,), cycle=(Block(),) if evicts else (), logits=(), nll=()),
        "text": TextFacts(),
        "programs": {"step": entry},
        "passes": [],
        "memory": [],
    }
    return Manifest(**parts | fields)


def window(slots: int, *layers: int) -> Group:
    return Group(name="w", used="used_1", kept="kept_1", slots=slots, layers=layers)


class FakeExecutor:
    """Keeps the newest entries; the token after `t` is most probably `t + 1`."""

    def __init__(self, capacity: int, budget: int, *, reserved: int = 0) -> None:
        self.limits = SimpleNamespace(
            capacity=capacity,
            budget=budget,
            chunk_size=3,
            reserved=reserved,
            usable=capacity - reserved,
        )
        self.reads_catalyst = reserved > 0
        self.entries: list[int] = []
        self.tokens, self.last = 0, 0
        self.beginning: list[int] = []
        self.calls: list[object] = []

    @property
    def used(self) -> int:
        return len(self.entries)

    @property
    def counters(self) -> dict[str, int]:
        passing = {"n": 77, "start": 77, "layer": 77, "left": 77}
        return {"used": self.used, "kept": self.used, "tokens": self.tokens, **passing}

    def read(self, ids: Sequence[int]) -> None:
        assert self.used + len(ids) <= self.limits.usable
        self.calls.append(list(ids))
        self.entries += range(self.tokens, self.tokens + len(ids))
        self.tokens, self.last = self.tokens + len(ids), ids[-1]
        self.beginning = (self.beginning + list(ids))[:32]

    def evict(self, catalyst: Sequence[int], left: int = -1) -> None:
        self.calls.append(("cycle", list(catalyst), left))
        self.entries = self.entries[-self.limits.budget :]

    def logits(self) -> np.ndarray:
        logits = np.zeros(VOCAB, np.float32)
        logits[[(self.last + 1) % VOCAB, 0]] = 3, -4
        return logits

    def kept_tokens(self, layer: int) -> np.ndarray:
        return np.array([self.entries, self.entries], np.int64)


def test_ids_are_read_as_one_text_that_ends() -> None:
    executor = FakeExecutor(6, 4)
    seen = transcript(executor, manifest_of(), list(range(10, 20)), layers=[1], follow=[30])
    # 6 fit, then 2 a cycle; of the last cycle it is known that 2 tokens are left.
    assert executor.calls == [
        [10, 11, 12, 13, 14, 15],
        ("cycle", [], -1),
        [16, 17],
        ("cycle", [], 2),
        [18, 19],
        ("cycle", [], -1),
        [30],
    ]
    assert [cycle.tokens for cycle in seen.cycles] == [6, 8, 10]
    assert seen.cycles[0] == CycleRecord(
        tokens=6,
        counters={"used": 4, "kept": 4, "tokens": 6},
        kept={1: ((2, 3, 4, 5), (2, 3, 4, 5))},
    )
    assert [tokens for tokens, _ in seen.logits] == [10, 11]
    assert [int(logits.argmax()) for _, logits in seen.logits] == [20, 31]
    assert seen.chosen == [20]


@pytest.mark.parametrize(
    ("catalyst", "wanted"),
    [
        (Catalyst(ids=(7, 8)), [7, 8]),
        (Catalyst(beginning=2), [5, 10, 11]),
        (Catalyst(beginning=32), [5, 10, 11, 12]),  # no more than there are slots for it
    ],
)
def test_cycles_run_the_catalyst_of_the_artifact(catalyst: Catalyst, wanted: list[int]) -> None:
    text = TextFacts(catalyst=catalyst, separator=(5,))
    executor = FakeExecutor(10, 4, reserved=4)
    transcript(executor, manifest_of(text=text), list(range(10, 17)), layers=[], follow=[])
    assert ("cycle", wanted, 1) in executor.calls
    other = FakeExecutor(6, 4)
    transcript(other, manifest_of(text=text), list(range(10, 17)), layers=[], follow=[])
    assert ("cycle", [], 1) in other.calls, "whose cycles read none"


def test_a_golden_is_what_was_seen() -> None:
    golden = make_golden(FakeExecutor(6, 4), manifest_of(), [20, 21, 22])
    assert golden.sizes == Sizes(capacity=6, budget=4, chunk_size=3)
    assert golden.ids == (20, 21, 22)
    assert golden.next == tuple(range(23, 31))
    assert [each.tokens for each in golden.logits] == list(range(3, 12))
    # Equal logits in order of their ids; id 0 has the lowest.
    assert golden.logits[0].top == ((23, 3.0), *((i, 0.0) for i in range(1, 8)))
    assert golden.exact
    # The deviation of two numbers in fifty is less than 1.
    assert golden.tolerance == Tolerance(logits=0.001, kept=0.0)
    assert len(golden.cycles) == 3


def test_the_tolerance_of_logits_follows_their_deviation() -> None:
    executor = FakeExecutor(6, 4)
    executor.logits = lambda: np.arange(VOCAB, dtype=np.float32)  # deviation 14.43
    golden = make_golden(executor, manifest_of(), [20, 21, 22])
    assert golden.tolerance.logits == pytest.approx(0.01443, rel=1e-3)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_lossy_goldens_have_wider_tolerances(precision: str) -> None:
    golden = make_golden(FakeExecutor(6, 4), manifest_of(precision=precision), [40, 41, 42])
    assert not golden.exact
    assert golden.tolerance.logits > 0.05
    assert 0 < golden.tolerance.kept < 0.5


def test_a_cache_in_half_precision_is_lossy() -> None:
    key = BufferSpec(name="key_0", role=Role.KEY, dtype="float16", shape=(1, 2, "capacity", 2))
    golden = make_golden(FakeExecutor(6, 4), manifest_of(buffers=(key,)), [40, 41, 42])
    assert not golden.exact
    assert 0.001 < golden.tolerance.logits < 0.2


def test_layers_of_all_groups_are_recorded() -> None:
    assert recorded_layers(manifest_of()) == [0, 1]
    assert recorded_layers(manifest_of(layers=1)) == [0]
    many = recorded_layers(manifest_of(layers=30, groups=[window(9, *range(20, 25))]))
    assert len(many) == 4
    assert 22 in many, "the middle of the window's"
    assert {0, 29} <= set(many)


def test_sizes_are_small() -> None:
    sizes = golden_sizes(manifest_of(reserved=10))
    # 4 sinks + 8 recent + 32 to choose; two chunks of 32 and the catalyst behind them.
    assert (sizes.budget, sizes.chunk_size, sizes.capacity) == (44, 32, 118)


def test_sizes_are_never_larger_than_compiled() -> None:
    cache = CacheConfig(capacity=24, budget=12, chunk_size=5, catalyst_size=4, recent_size=3)
    sizes = golden_sizes(manifest_of(cache=cache))
    assert (sizes.budget, sizes.chunk_size, sizes.capacity) == (12, 5, 24)


def test_a_chunk_size_that_programs_have_as_a_number_stays() -> None:
    sizes = golden_sizes(manifest_of(fixed=(64,)))
    assert (sizes.budget, sizes.chunk_size, sizes.capacity) == (44, 64, 182)


def test_two_cycles_are_read() -> None:
    manifest = manifest_of(reserved=10)
    ids = golden_ids(manifest, golden_sizes(manifest), None)
    # Cycles after 108 tokens and 64 more, then half a chunk and one token.
    assert len(ids) == 108 + 64 + 16 + 1


def test_every_group_is_compacted_once() -> None:
    manifest = manifest_of(groups=[window(700, 1)])
    assert len(golden_ids(manifest, golden_sizes(manifest), None)) == 700 + 32 + 16 + 1
    manifest = manifest_of(groups=[window(5000, 1)])
    assert len(golden_ids(manifest, golden_sizes(manifest), None)) == 1200


def test_where_nothing_evicts_the_text_fits() -> None:
    manifest = manifest_of(evicts=False, groups=[window(60, 1)])
    sizes = golden_sizes(manifest)
    ids = golden_ids(manifest, sizes, None)
    assert 60 + 32 <= len(ids) <= sizes.capacity - 8
    manifest = manifest_of(evicts=False, groups=[window(900, 1)])
    sizes = golden_sizes(manifest)
    assert sizes.capacity == 200, "as compiled, less than wanted"
    assert len(golden_ids(manifest, sizes, None)) <= 192


def test_ids_are_prefix_drawn_ids_and_english() -> None:
    text = TextFacts(prefix=(3,), special=(3, 4, 5), ends=(6,))
    manifest = manifest_of(text=text)
    sizes = golden_sizes(manifest)
    ids = golden_ids(manifest, sizes, lambda text: [len(text) % VOCAB, *[9] * 20])
    count = 118 + 74 + 16 + 1  # a full cache, a cycle to 44, half a chunk and one
    assert len(ids) == count
    assert ids[0] == 3
    assert ids[-21:] == [len(PARAGRAPH) % VOCAB, *[9] * 20]
    drawn = ids[1:-21]
    assert not {3, 4, 5, 6} & set(drawn)
    assert len(set(drawn)) > 30, "of 46"
    long = golden_ids(manifest, sizes, lambda text: [8] * 5000)
    assert long.count(8) >= count // 2
    assert len(long) == count


def test_drawn_ids_are_the_same_everywhere() -> None:
    state, wanted = 1, []
    for _ in range(3):
        state = (6364136223846793005 * state + 1442695040888963407) % 2**64
        wanted.append((state // 2**33) % 49152)
    assert list(itertools.islice(drawn_ids(49152, ()), 3)) == wanted
    with pytest.raises(ValueError, match="no id of 2"):
        next(drawn_ids(2, {0, 1}))


GOLDEN = Golden(
    sizes=Sizes(capacity=8, budget=4, chunk_size=2),
    ids=(1, 2),
    cycles=(CycleRecord(tokens=2, counters={"used": 1}, kept={11: ((0,), (1,)), 2: ((0,),)}),),
    logits=(LogitsRecord(tokens=2, top=((5, 1.5),)),),
    next=(),
    tolerance=Tolerance(logits=0.25, kept=0.0),
    exact=True,
)
TEXT = (
    '{"cycles":[{"counters":{"used":1},"kept":{"11":[[0],[1]],"2":[[0]]},"tokens":2}],'
    '"exact":true,"ids":[1,2],"logits":[{"tokens":2,"top":[[5,1.5]]}],"next":[],'
    '"sizes":{"budget":4,"capacity":8,"chunk_size":2},"tolerance":{"kept":0.0,"logits":0.25}}\n'
)


def test_the_file(tmp_path: Path) -> None:
    assert golden_bytes(GOLDEN).decode() == TEXT
    (tmp_path / "golden.json").write_text(TEXT)
    assert read_golden(tmp_path) == GOLDEN


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"more": 1}, "unknown field `more`"),
        ({"exact": None}, "Expected `bool`, got `null`"),
        ({"next": [7]}, "logits of 1 places, wanted one more than next has tokens .1."),
        ({"ids": ["a"]}, "Expected `int`, got `str`"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict, words: str) -> None:
    (tmp_path / "golden.json").write_text(json.dumps(json.loads(TEXT) | change))
    with pytest.raises(ArtifactError, match=words):
        read_golden(tmp_path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"golden.json: cannot read it .No such file"):
        read_golden(tmp_path)
    (tmp_path / "golden.json").write_bytes(b"\xff")
    with pytest.raises(ArtifactError, match=r"golden.json: "):
        read_golden(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": [1, 50]}, "golden.json has id 50, wanted 0 to 49"),
        ({"logits": [{"tokens": 2, "top": [[-1, 0.0]]}]}, "golden.json has id -1, wanted 0 to 49"),
        ({}, "golden.json has layer 2, wanted 0 to 1"),
    ],
)
def test_a_golden_of_another_model_is_refused(tmp_path: Path, change: dict, words: str) -> None:
    (tmp_path / "golden.json").write_text(json.dumps(json.loads(TEXT) | change))
    model = SimpleNamespace(manifest=manifest_of(), engine=None)
    with pytest.raises(ArtifactError, match=words):
        check_golden(model, tmp_path)
