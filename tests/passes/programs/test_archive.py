"""What leaves a cache, against what `Evict` keeps; its rows, against the oracle's rotation."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lcc.config import PolicyConfig
from lcc.ir.program import Program
from lcc.passes.policies import EvictionPolicy, make_policy
from lcc.passes.programs.archive import ArchiveRows, Leave, archive_program, leave_program
from lcc.passes.programs.evict import Evict, Protection
from lcc.passes.rotation import Rotation
from lcc.targets.reference import ReferenceEngine
from lcc.testing.oracles import rotate

HEADS, SLOTS, SIZE, BUDGET = 2, 24, 8, 10
FREQUENCIES = [1.0, 0.3, 0.1, 0.01]
PROTECTION = Protection(sink_size=2, recent_size=3)


def counter(value: int, dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.tensor([value], dtype=dtype)


def given(seed: int, *, used: int, kept: int, tokens: int) -> dict[str, Tensor]:
    """A cache of which `kept` entries come from anywhere before the newest."""
    g = torch.Generator().manual_seed(seed)
    older = torch.randperm(tokens - used + kept, generator=g)[:kept].sort().values
    position = torch.zeros(HEADS, SLOTS, dtype=torch.int64)
    position[:, :kept] = older
    sentence = (torch.arange(SLOTS) + tokens - used) // 4 * 4
    return {
        "token_position": position,
        "used": counter(used),
        "kept": counter(kept),
        "tokens_read": counter(tokens, torch.int64),
        "protected": counter(0),
        "left": counter(-1),
        "layer": counter(0),
        "seed": counter(0),
        "new_slots": torch.arange(BUDGET),
        "agreed": torch.rand(SLOTS, generator=g),
        "nll": torch.rand(SLOTS, generator=g) * 6,
        "nll_kept": (torch.rand(1, SLOTS, generator=g) * 6).expand(HEADS, -1).contiguous(),
        "sentence": sentence.float(),
        "sentence_kept": (position // 4 * 4).float(),
    }


def policy() -> EvictionPolicy:
    return make_policy(PolicyConfig(name="consensus"))


def kept_by_evict(inputs: dict[str, Tensor]) -> list[int]:
    """Token positions that an eviction keeps."""
    evict = Evict(policy(), PROTECTION)
    cache = torch.zeros(1, HEADS, SLOTS, SIZE)
    everything = inputs | {"key": cache, "value": cache}
    return evict(*(everything[name] for name in evict.names))[2][0, :BUDGET].tolist()


def left(inputs: dict[str, Tensor], archived_to: int = 0, everything: int = 0) -> list[Tensor]:
    """Slots, positions, and scores of what leaves, without what lies behind their number."""
    leave = Leave(policy(), PROTECTION)
    inputs = inputs | {
        "archived_to": counter(archived_to, torch.int64),
        "everything": counter(everything),
    }
    slots, count, *rest = leave(*(inputs[name] for name in leave.names))
    return [each[: int(count)] for each in (slots, *rest)]


def positions_of(inputs: dict[str, Tensor]) -> list[int]:
    used, kept, tokens = (int(inputs[name]) for name in ("used", "kept", "tokens_read"))
    return [
        *inputs["token_position"][0, :kept].tolist(),
        *range(tokens - used + kept, tokens),
    ]


@pytest.mark.parametrize(("used", "kept", "tokens"), [(20, 0, 20), (22, 10, 60), (11, 10, 35)])
def test_what_leaves_is_what_evict_does_not_keep(used: int, kept: int, tokens: int) -> None:
    for seed in range(5):
        inputs = given(seed, used=used, kept=kept, tokens=tokens)
        every, stays = positions_of(inputs), kept_by_evict(inputs)
        gone = [p for p in every if p not in stays]
        slots, position, nll, sentence = left(inputs)
        assert position.tolist() == gone
        assert slots.tolist() == [every.index(p) for p in gone]
        for slot, one, other in zip(slots.tolist(), nll, sentence, strict=True):
            name = "_kept" if slot < kept else ""
            assert one == inputs[f"nll{name}"].view(-1, SLOTS)[0, slot]
            assert other == inputs[f"sentence{name}"].view(-1, SLOTS)[0, slot]


def test_what_the_archive_has_does_not_leave_again() -> None:
    inputs = given(3, used=22, kept=10, tokens=60)
    before = left(inputs)[1].tolist()
    assert any(p < 50 for p in before)
    assert left(inputs, archived_to=50)[1].tolist() == [p for p in before if p >= 50]


@pytest.mark.parametrize("used", [6, 22])
def test_everything_leaves_before_a_recall(used: int) -> None:
    inputs = given(4, used=used, kept=5, tokens=60)
    assert left(inputs, everything=1)[1].tolist() == positions_of(inputs)


def test_rows_have_no_rotation_and_one_row_a_token() -> None:
    g = torch.Generator().manual_seed(0)
    plain = torch.randn(HEADS, SLOTS, SIZE, generator=g)
    key = torch.zeros(1, HEADS, SLOTS, SIZE)
    for head in range(HEADS):
        for slot in range(SLOTS):
            turned = rotate(plain[head, slot].tolist(), slot, FREQUENCIES)
            key[0, head, slot] = torch.tensor(turned)
    value, leaving = torch.randn(1, HEADS, SLOTS, SIZE, generator=g), torch.tensor([0, 3, 7, 23])
    table = Rotation.from_frequencies(torch.tensor(FREQUENCIES), SLOTS)
    rows, values = ArchiveRows(table)(key, value, leaving)
    torch.testing.assert_close(rows, plain[:, leaving].transpose(0, 1), rtol=1e-5, atol=1e-5)
    assert (values == value[0][:, leaving].transpose(0, 1)).all()
    plainly, _ = ArchiveRows(None)(key, value, leaving)  # absolute positions: as they are
    assert (plainly == key[0][:, leaving].transpose(0, 1)).all()


def test_exported_they_take_other_sizes() -> None:
    made = leave_program(policy(), PROTECTION, kv_heads=HEADS, capacity=64, budget=32)
    inputs = given(5, used=22, kept=10, tokens=60)
    inputs |= {"archived_to": counter(0, torch.int64), "everything": counter(0)}
    arrays = {name: inputs[name].numpy() for name in made.input_names}
    outputs = {"leaving": np.zeros(SLOTS, np.int64), "count": np.zeros(1, np.int32)}
    run(made, arrays | outputs)
    assert outputs["leaving"][: outputs["count"][0]].tolist() == left(inputs)[0].tolist()
    rows = archive_program("archive", None, kv_heads=HEADS, head_size=SIZE, capacity=64)
    cache = np.random.default_rng(0).normal(size=(1, HEADS, SLOTS, SIZE)).astype(np.float32)
    got = np.zeros((3, HEADS, SIZE), np.float32)
    leaving = np.array([1, 2, 9])
    run(rows, {"key": cache, "value": cache, "leaving": leaving, "archived_value": got})
    assert (got == cache[0][:, leaving].transpose(1, 0, 2)).all()


def run(program: Program, arrays: dict[str, np.ndarray]) -> None:
    ReferenceEngine([program]).runner(program.names[0])(arrays)
