"""The programs `score` and `evict`: numbers, exactness, drift, and the same answer from ONNX."""

import math

import numpy as np
import onnxruntime
import pytest
import torch

from lcc.config import PolicyConfig
from lcc.errors import ConfigError
from lcc.passes.policies import POLICIES, make_policy
from lcc.passes.programs.cycle import (
    EVICT_OUTPUTS,
    SCORE_OUTPUTS,
    Evict,
    Score,
    export_evict,
    export_score,
)
from lcc.passes.rotation import Rotation, rotate
from lcc.testing import oracles as testing
from lcc.testing.oracles import OracleCache

EVICTING = [name for name, policy in POLICIES.items() if policy.evicts]
FREQUENCIES = [1.0, 0.2, 0.03]
HEADS, D = 2, 8  # 2 of the 8 numbers do not turn


def table(positions, interleaved=False):
    frequencies = torch.tensor(FREQUENCIES, dtype=torch.float64)
    return Rotation.from_frequencies(frequencies, positions, interleaved=interleaved)


def case(policy, *, slots, used, budget, prefix=2, recent=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    feeds = {
        "key": torch.randn(1, HEADS, slots, D, generator=g),
        "value": torch.randn(1, HEADS, slots, D, generator=g),
        "used": torch.tensor([used], dtype=torch.int32),
        "prefix": torch.tensor([prefix], dtype=torch.int32),
        "recent": torch.tensor([recent], dtype=torch.int32),
        "new_slots": torch.arange(budget),
    }
    return feeds | {n: torch.rand(HEADS, slots, generator=g) for n in policy.scalars}


def session(program, path, outputs):
    torch.onnx.export(
        program, (), path, dynamo=True, opset_version=23, output_names=list(outputs), verbose=False
    )
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(session, feeds):
    return session.run(None, {name: x.numpy() for name, x in feeds.items()})


# --- score ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("query_pool", ["sum", "max"])
@pytest.mark.parametrize("group_pool", ["mean", "max"])
def test_score_is_the_oracles(query_pool, group_pool):
    g = torch.Generator().manual_seed(3)
    slots, start, n, group = 12, 6, 4, 3
    key = torch.randn(1, HEADS, slots, D, generator=g)
    queries = torch.randn(HEADS * group, n, D, generator=g)
    cache = OracleCache(kv_heads=HEADS, scale=0.4)
    for slot in range(start + n):
        cache.append(key[0, :, slot], key[0, :, slot])
    pools = {"query_pool": query_pool, "group_pool": group_pool}
    expected = cache.score(queries.transpose(0, 1), start=start, **pools)
    got = Score(scale=0.4, **pools)(queries, key, torch.tensor([start], dtype=torch.int32))
    assert got[:, : start + n].tolist() == [pytest.approx(row, rel=1e-5) for row in expected]
    assert (got[:, start + n :] == 0).all()


def test_score_bounds_the_logits_as_the_layer_does():
    key = torch.tensor([[[[1.0], [0.0]]]])
    got = Score(scale=3.0, softcap=2.0)(torch.ones(1, 1, 1), key, torch.ones(1, dtype=torch.int32))
    first = math.exp(2 * math.tanh(3 / 2))
    assert got.tolist() == [pytest.approx([first / (first + 1), 1 / (first + 1)])]


def test_score_in_onnx_of_any_size(tmp_path):
    score = Score(scale=0.4)
    sizes = {"query_heads": 6, "kv_heads": HEADS, "head_size": D}
    program = export_score(score, **sizes, slots=24, queries=5)
    names = [n.name for n in program.graph.nodes if n.op == "placeholder"]
    assert names == ["queries", "key", "start"]
    onnx = session(program, tmp_path / "score.onnx", SCORE_OUTPUTS)
    for slots, n, start in ((24, 5, 10), (50, 1, 49), (8, 7, 0)):
        feeds = {
            "queries": torch.randn(6, n, D),
            "key": torch.randn(1, HEADS, slots, D),
            "start": torch.tensor([start], dtype=torch.int32),
        }
        expected = score(**feeds)
        assert torch.equal(program.module()(**feeds), expected)
        np.testing.assert_allclose(run(onnx, feeds)[0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("scalars", "queries", "words"),
    [
        (("position",), None, "scalar 'position', wanted attention, consensus"),
        (("attention",), None, "scalar attention and no queries"),
        (("consensus",), None, "scalar consensus and no queries"),
        (("retaining",), None, "scalar retaining and no heads; wanted --heads"),
        (("novelty",), "catalyst", "no scalar reads their attention"),
        (("attention",), "last", "queries is 'last', wanted one of None, 'catalyst', 'recent'"),
        (("noise", "noise"), None, "scalars noise, noise: one twice"),
    ],
)
def test_scalars_that_nobody_would_fill(scalars, queries, words, monkeypatch):
    def build(self, config, with_heads=False):
        POLICIES["knorm"].__init__(self, config)

    for heads in ("never", "may"):
        fields = {"scalars": scalars, "queries": queries, "heads": heads, "__init__": build}
        monkeypatch.setitem(POLICIES, "own", type("Own", (POLICIES["knorm"],), fields))
        with pytest.raises(ConfigError, match=words):
            make_policy(PolicyConfig(name="own"))
    if scalars[0] in ("consensus", "retaining"):
        assert make_policy(PolicyConfig(name="own"), with_heads=True).scalars == scalars


# --- evict ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("interleaved", [False, True])
def test_an_entry_that_does_not_move_is_untouched(interleaved):
    policy = make_policy(PolicyConfig(name="random"))
    feeds = case(policy, slots=40, used=30, budget=20, prefix=6)
    feeds["key"][0, :, 2] = torch.tensor([-0.0, 1, torch.inf, -1, 0, -2, 1e-45, -torch.inf])
    kept, key, value = Evict(policy, table(40, interleaved))(**feeds)
    bits = [x.view(torch.int32) for x in (key, feeds["key"], value, feeds["value"])]
    assert torch.equal(bits[0][0, :, :6], bits[1][0, :, :6])
    assert (kept[:, -1] > 19).all()  # others do move
    for head in range(HEADS):
        assert torch.equal(bits[2][0, head], bits[3][0, head, kept[head]])


@pytest.mark.parametrize("interleaved", [False, True])
def test_moved_keys_have_the_angle_of_their_new_slot(interleaved):
    policy = make_policy(PolicyConfig(name="random"))
    feeds = case(policy, slots=40, used=30, budget=20)
    rotation = table(40, interleaved)
    raw = feeds["key"]
    feeds["key"] = rotate(raw, rotation.cos, rotation.sin, interleaved)
    kept, key, _ = Evict(policy, rotation)(**feeds)
    for head in range(HEADS):
        for new, old in enumerate(kept[head].tolist()):
            expected = testing.rotate(
                raw[0, head, old].tolist(), new, FREQUENCIES, interleaved=interleaved
            )
            assert key[0, head, new].tolist() == pytest.approx(expected, abs=1e-5)


def test_without_rotation_keys_are_only_moved():
    policy = make_policy(PolicyConfig(name="knorm"))
    feeds = case(policy, slots=40, used=30, budget=20)
    kept, key, _ = Evict(policy)(**feeds)
    for head in range(HEADS):
        assert torch.equal(key[0, head], feeds["key"][0, head, kept[head]])
    assert not torch.equal(Evict(policy, table(40))(**feeds)[1], key)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-3), (torch.float16, 2e-2)])
def test_drift_over_1000_cycles(record_property, dtype, most):
    """A key that moves a little in each cycle, against the same key rotated once, directly.

    In a cache of float16 it is rounded each time: 1000 errors of one part in 4096 at most that add
    up like steps of a random walk.
    """
    cycles, far = 1000, 1001
    policy = make_policy(PolicyConfig(name="sink_window"))
    rotation = table(far + 1)
    evict = Evict(policy, rotation)
    raw = torch.randn(1, HEADS, far + 1, D, generator=torch.Generator().manual_seed(5))
    key = rotate(raw, rotation.cos, rotation.sin, False)
    for used in range(far + 1, far + 1 - cycles, -1):  # each cycle drops the oldest entry
        count = torch.tensor([used], dtype=torch.int32)
        none = torch.zeros(1, dtype=torch.int32)
        _, key, _ = evict(key, key, count, none, none, torch.arange(used - 1))
        key = key.to(dtype).float()
    exact = rotate(raw[:, :, -2:], rotation.cos[:2], rotation.sin[:2], False)
    drift = ((key - exact).norm(dim=-1) / exact.norm(dim=-1)).max().item()
    record_property("drift", drift)
    print(f"relative drift after {cycles} rotations by 1 slot, {dtype}: {drift:.1e}")
    assert key.shape == exact.shape
    assert 0 < drift < most


@pytest.mark.parametrize("name", EVICTING)
def test_evict_in_onnx_of_any_size(name, tmp_path):
    policy = make_policy(PolicyConfig(name=name, attention_span=5, novelty_span=3))
    evict = Evict(policy, table(128))
    program = export_evict(evict, kv_heads=HEADS, head_size=D, slots=24, budget=10)
    names = [n.name for n in program.graph.nodes if n.op == "placeholder"]
    fixed = ["key", "value", "used", "prefix", "recent", "new_slots"]
    assert [n for n in names if not n.startswith("b_")] == [*fixed, *policy.scalars]
    onnx = session(program, tmp_path / "evict.onnx", EVICT_OUTPUTS)
    assert [x.name for x in onnx.get_inputs()] == [*fixed, *policy.scalars]
    assert [x.name for x in onnx.get_outputs()] == list(EVICT_OUTPUTS)
    for slots, used, budget in ((24, 22, 10), (128, 100, 64), (9, 9, 8), (30, 9, 6)):
        for ties in (False, True):
            feeds = case(policy, slots=slots, used=used, budget=budget)
            if ties:
                feeds |= {n: (feeds[n] * 3).floor() for n in policy.scalars}
            expected = evict(**feeds)
            assert torch.equal(program.module()(**feeds)[0], expected[0])
            kept, key, value = run(onnx, feeds)
            assert kept.tolist() == expected[0].tolist()
            np.testing.assert_allclose(key, expected[1], rtol=0, atol=1e-6)
            assert np.array_equal(value, expected[2])


@pytest.mark.parametrize("odd", [-math.inf, math.inf, math.nan])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_rank_that_is_no_number(odd, share, tmp_path):
    """Random's rank is the scalar itself; neither an empty slot nor a protected one gives way."""
    evict = Evict(make_policy(PolicyConfig(name="random")), table(128))
    program = export_evict(evict, kv_heads=HEADS, head_size=D, slots=24, budget=10)
    onnx = session(program, tmp_path / "evict.onnx", EVICT_OUTPUTS)
    slots, used, budget, prefix, recent = 30, 25, 16, 2, 3
    feeds = case(evict.policy, slots=slots, used=used, budget=budget, prefix=prefix, recent=recent)
    noise = feeds["noise"]
    noise[torch.rand(noise.shape, generator=torch.Generator().manual_seed(3)) < share] = odd

    def worth(row, slot):
        rank = row[slot].item()
        safe = slot < prefix or slot >= used - recent
        return safe, -math.inf if math.isnan(rank) else rank, slot

    expected = [
        sorted(sorted(range(used), key=lambda slot: worth(row, slot))[-budget:]) for row in noise
    ]
    assert evict(**feeds)[0].tolist() == expected
    assert run(onnx, feeds)[0].tolist() == expected


def test_static_sizes_are_fixed():
    policy = make_policy(PolicyConfig(name="infinipot"))
    sizes = {"kv_heads": HEADS, "head_size": D, "slots": 24, "budget": 10}
    program = export_evict(Evict(policy), **sizes, symbolic=False)
    assert not program.range_constraints
    feeds = case(policy, slots=24, used=20, budget=10)
    assert torch.equal(program.module()(**feeds)[0], Evict(policy)(**feeds)[0])
