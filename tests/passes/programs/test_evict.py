"""The program `evict`: what moves with an entry, what is protected, angles, what is refused.

Which entries a policy ranks higher: tests/passes/policies. The same from ONNX: test_evict_onnx.py.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lcc.config import PolicyConfig
from lcc.errors import ConfigError
from lcc.passes.policies import POLICIES, EvictionPolicy, make_policy
from lcc.passes.policies.entry_scores import ATTENTION, RETAINING
from lcc.passes.programs.evict import (
    Evict,
    EvictOldest,
    Protection,
    evict_program,
    stored_name,
    stored_scores,
)
from lcc.passes.rotation import Rotation, rotate
from lcc.testing import oracles

FREQUENCIES = [1.0, 0.2, 0.03]
HEADS, D = 2, 8  # 2 of the 8 numbers do not turn
SIZES = Protection(sink_size=2, recent_size=3)


def table(positions: int, *, interleaved: bool = False) -> Rotation:
    frequencies = torch.tensor(FREQUENCIES, dtype=torch.float64)
    return Rotation.from_frequencies(frequencies, positions, interleaved=interleaved)


def policy_of(name: str, **options: float) -> EvictionPolicy:
    return make_policy(PolicyConfig(name=name, options=options))


def case(
    policy: EvictionPolicy,
    *,
    slots: int = 40,
    used: int = 30,
    budget: int = 20,
    kept: int = 12,
    read: int = 500,
    **counters: int,
) -> dict[str, Tensor]:
    """A layer that kept 12 entries of every third token, and read 18 since."""
    g = torch.Generator().manual_seed(0)
    numbers = {"used": used, "kept": kept, "protected": 0, "left": -1, "layer": 0, "seed": 0}
    feeds = {
        "key": torch.randn(1, HEADS, slots, D, generator=g),
        "value": torch.randn(1, HEADS, slots, D, generator=g),
        "token_position": torch.arange(slots) * 3 + torch.arange(HEADS)[:, None],
        "tokens_read": torch.tensor([read]),
        "new_slots": torch.arange(budget),
    }
    feeds["token_position"][:, kept:] = -9  # nothing was written there
    counts = (numbers | counters).items()
    feeds |= {name: torch.tensor([n], dtype=torch.int32) for name, n in counts}
    for each in policy.scores:
        shape = {"log": (slots,), "step": (slots, HEADS)}.get(each.made_by, (HEADS, slots))
        feeds[each.name] = torch.rand((slots,) if each.for_all else shape, generator=g)
        if each.made_by == "log":
            feeds[f"{each.name}_kept"] = torch.rand(HEADS, slots, generator=g)
    return feeds


def positions_of(feeds: dict[str, Tensor]) -> list[list[int]]:
    """Token position of every entry, head by head: those kept, then the newest ones."""
    used, kept, read = (int(feeds[name]) for name in ("used", "kept", "tokens_read"))
    newest = list(range(read - (used - kept), read))
    return [feeds["token_position"][head, :kept].tolist() + newest for head in range(HEADS)]


def run(evict: Evict, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
    names = ["key_out", "value_out", "token_position_out"]
    names += [f"{stored_name(each)}_out" for each in stored_scores(evict.policy)]
    outputs = evict(*(feeds[name] for name in evict.names))
    return dict(zip(names, outputs, strict=True))


def kept_slots(feeds: dict[str, Tensor], out: dict[str, Tensor]) -> list[list[int]]:
    """Which slots survived, by their token positions: no two entries have the same."""
    budget = len(feeds["new_slots"])
    return [
        [positions.index(int(p)) for p in out["token_position_out"][head, :budget]]
        for head, positions in enumerate(positions_of(feeds))
    ]


# --- what moves -----------------------------------------------------------------------------------


def test_positions_and_values_move_with_their_entries() -> None:
    policy = policy_of("random")
    feeds = case(policy)
    out = run(Evict(policy, SIZES), feeds)
    kept = kept_slots(feeds, out)
    assert kept[0] != kept[1]
    assert all(min(set(range(12)) & set(row)) == 0 and max(row) == 29 for row in kept)
    for head, slots in enumerate(kept):
        assert slots == sorted(set(slots))
        assert torch.equal(out["value_out"][0, head, :20], feeds["value"][0, head, slots])
        assert torch.equal(out["key_out"][0, head, :20], feeds["key"][0, head, slots])
    for name in ("key", "value"):
        assert out[f"{name}_out"].shape == feeds[name].shape


def test_a_value_that_is_the_key_is_kept_once() -> None:
    """As if it were its own value; what does not turn is the value, and the same bit for bit."""
    policy = policy_of("random")
    feeds = case(policy)
    feeds["value"] = feeds["key"]
    rotation = table(64)
    shared, apart = (Evict(policy, SIZES, rotation, shared=each) for each in (True, False))
    assert {*apart.names} - {*shared.names} == {"value"}
    program = evict_program("e", shared, kv_heads=HEADS, head_size=D, capacity=40, budget=20)
    assert "value" not in program.input_names
    assert program.output_names == ["key_out", "token_position_out"]
    key, position = shared(*(feeds[name] for name in shared.names))
    wanted = run(apart, feeds)
    assert torch.equal(key, wanted["key_out"])
    assert torch.equal(position, wanted["token_position_out"])
    still = 2 * len(FREQUENCIES)
    assert torch.equal(key[..., still:], wanted["value_out"][..., still:])
    assert not torch.equal(key, wanted["value_out"]), "else nothing turned"


@pytest.mark.parametrize("name", ["infinipot", "locret", "h2o", "consensus"])
def test_scores_move_with_their_entries(name: str) -> None:
    """Of those made in a log, what was kept comes from one buffer, what is new from another."""
    policy = policy_of("locret", alpha=0.5) if name == "locret" else policy_of(name)
    feeds = case(policy)
    out = run(Evict(policy, SIZES), feeds)
    assert (
        len(stored_scores(policy)) == {"infinipot": 1, "locret": 2, "h2o": 1, "consensus": 2}[name]
    )
    for each in stored_scores(policy):
        moved = out[f"{stored_name(each)}_out"]
        for head, slots in enumerate(kept_slots(feeds, out)):
            if each.made_by == "log":
                old = [feeds[f"{each.name}_kept"][head], feeds[each.name]]
                wanted = [float(old[slot >= 12][slot]) for slot in slots]
            else:
                rows = feeds[each.name].T if each.made_by == "step" else feeds[each.name]
                wanted = rows[head, slots].tolist()
            got = moved[:20, head] if each.made_by == "step" else moved[head, :20]
            assert got.tolist() == wanted


def test_what_is_made_anew_each_cycle_does_not_move() -> None:
    assert stored_scores(policy_of("snapkv")) == []
    assert ATTENTION in stored_scores(policy_of("h2o"))
    assert RETAINING in stored_scores(policy_of("locret"))


def test_noise_goes_by_the_token_and_not_by_the_slot() -> None:
    """Two caches that hold the same tokens in other slots keep the same ones."""
    policy = policy_of("random")
    bare = Protection(sink_size=0, recent_size=0)
    feeds = case(policy, used=30, kept=30, budget=10)
    feeds["token_position"] = torch.arange(40).expand(HEADS, -1).clone()
    whole = run(Evict(policy, bare), feeds)["token_position_out"][:, :10]
    best = set(whole[0].tolist())
    rest = [p for p in range(30) if p not in best]
    fewer = torch.tensor(sorted([*best, *rest[::2]]))
    feeds["token_position"][:, : len(fewer)] = fewer
    one = torch.tensor([len(fewer)], dtype=torch.int32)
    out = run(Evict(policy, bare), feeds | {"used": one, "kept": one})
    assert set(out["token_position_out"][0, :10].tolist()) == best
    for changed in ("layer", "seed"):
        other = feeds | {changed: torch.tensor([5], dtype=torch.int32)}
        again = run(Evict(policy, bare), other | {"used": one, "kept": one})
        assert set(again["token_position_out"][0, :10].tolist()) != best


# --- what is protected ----------------------------------------------------------------------------


def protected(sizes: Protection, evict: type[Evict] = Evict, **counters: int) -> set[int]:
    """Slots that survive though their rank is the lowest of all: all keys of h2o score alike..."""
    policy = policy_of("h2o")
    found = set()
    for worst in range(30):
        feeds = case(policy, **counters)
        feeds["attention"] = torch.ones(HEADS, 40)
        feeds["attention"][:, worst] = 0.0
        module = evict(policy, sizes)
        if worst in kept_slots(feeds, run(module, feeds))[0]:
            found.add(worst)
    # ...and of entries that tie, the newer survive: the oldest are not chosen without protection.
    return found


@pytest.mark.parametrize(
    ("sizes", "counters", "first", "newest"),
    [
        (SIZES, {}, 2, 3),
        (SIZES, {"protected": 1}, 2, 3),
        (SIZES, {"protected": 9}, 9, 3),
        (SIZES, {"left": 0}, 2, 3),  # no tail_size: every cycle is like the others
        (Protection(2, 3, tail_size=8), {}, 2, 3),
        (Protection(2, 3, tail_size=8), {"left": -1}, 2, 3),
        (Protection(2, 3, tail_size=8), {"left": 0}, 2, 8),
        (Protection(2, 3, tail_size=8), {"left": 5}, 2, 3),
        (Protection(2, 3, tail_size=8), {"left": 6}, 2, 2),
        (Protection(2, 3, tail_size=8), {"left": 8}, 2, 0),
        (Protection(2, 3, tail_size=8), {"left": 99}, 2, 0),
        (Protection(2, 3, tail_size=100), {"left": 0}, 2, 18),  # the budget is 20
        (Protection(2, 3, tail_size=100), {"left": 0, "protected": 7}, 7, 13),
    ],
)
def test_what_survives_whatever_its_rank(
    sizes: Protection, counters: dict[str, int], first: int, newest: int
) -> None:
    assert protected(sizes, **counters) == {*range(first), *range(30 - newest, 30)}


def test_of_a_models_own_window_the_newest_entries_stay() -> None:
    """Nothing at the beginning is protected, and no score is read."""
    policy = policy_of("sink_window")
    feeds = case(policy, protected=9)
    out = run(EvictOldest(policy, SIZES), feeds)
    assert kept_slots(feeds, out) == [list(range(10, 30))] * HEADS


# --- angles ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("interleaved", [False, True])
def test_an_entry_that_does_not_move_is_untouched(interleaved: bool) -> None:
    policy = policy_of("random")
    feeds = case(policy, protected=6)
    feeds["key"][0, :, 2] = torch.tensor([-0.0, 1, torch.inf, -1, 0, -2, 1e-45, -torch.inf])
    out = run(Evict(policy, SIZES, table(40, interleaved=interleaved)), feeds)
    kept = kept_slots(feeds, out)
    bits = {n: x.view(torch.int32) for n, x in (feeds | out).items() if n[:3] in ("key", "val")}
    assert torch.equal(bits["key_out"][0, :, :6], bits["key"][0, :, :6])
    assert all(row[-1] > 19 for row in kept)  # others do move
    for head in range(HEADS):
        assert torch.equal(bits["value_out"][0, head, :20], bits["value"][0, head, kept[head]])


@pytest.mark.parametrize("interleaved", [False, True])
def test_moved_keys_have_the_angle_of_their_new_slot(interleaved: bool) -> None:
    policy = policy_of("random")
    feeds = case(policy)
    rotation, raw = table(40, interleaved=interleaved), feeds["key"]
    feeds["key"] = rotate(raw, rotation.cos, rotation.sin, interleaved)
    out = run(Evict(policy, SIZES, rotation), feeds)
    for head, slots in enumerate(kept_slots(feeds, out)):
        for new, old in enumerate(slots):
            expected = oracles.rotate(
                raw[0, head, old].tolist(), new, FREQUENCIES, interleaved=interleaved
            )
            assert out["key_out"][0, head, new].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-3), (torch.float16, 2e-2)])
def test_drift_over_1000_cycles(
    record_property: Callable[[str, object], None], dtype: torch.dtype, most: float
) -> None:
    """A key that moves a little in each cycle, against the same key rotated once, directly.

    In a cache of float16 it is rounded each time: 1000 errors of one part in 4096 at most that add
    up like steps of a random walk.
    """
    cycles, far = 1000, 1001
    policy, rotation = policy_of("sink_window"), table(far + 1)
    evict = Evict(policy, Protection(0, 0), rotation)
    raw = torch.randn(1, HEADS, far + 1, D, generator=torch.Generator().manual_seed(5))
    key = rotate(raw, rotation.cos, rotation.sin, False)
    for used in range(far + 1, far + 1 - cycles, -1):  # each cycle drops the oldest entry
        feeds = case(policy, slots=used, used=used, budget=used - 1)
        out = run(evict, feeds | {"key": key, "value": key})
        key = out["key_out"][:, :, : used - 1].to(dtype).float()
    exact = rotate(raw[:, :, -2:], rotation.cos[:2], rotation.sin[:2], False)
    drift = ((key - exact).norm(dim=-1) / exact.norm(dim=-1)).max().item()
    record_property("drift", drift)
    print(f"relative drift after {cycles} rotations by 1 slot, {dtype}: {drift:.1e}")
    assert key.shape == exact.shape
    assert 0 < drift < most


# --- what is refused ------------------------------------------------------------------------------


def test_a_rank_that_branches_on_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def rank(self: object, entries: object) -> Tensor:
        key = entries.key  # type: ignore[attr-defined]
        return key.sum(-1) if key.sum() > 0 else -key.sum(-1)

    own = type("Own", (POLICIES["knorm"],), {"name": "own", "rank": rank})
    monkeypatch.setitem(POLICIES, "own", own)
    words = r"policy own: rank\(\) cannot be traced: .*; wanted tensor code that branches on no"
    with pytest.raises(ConfigError, match=words) as caught:
        evict_program(
            "evict_0",
            Evict(policy_of("own"), SIZES),
            kv_heads=HEADS,
            head_size=D,
            capacity=24,
            budget=10,
        )
    assert "\n" not in str(caught.value)
