"""The programs `see` and `compact`: what a sparse layer drops, in loops over lists of tokens."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from lcc.ir.plan import BlockSparse, SinkWindow, Sparse
from lcc.ir.roles import Role
from lcc.passes.programs.compact import Compact, See, compact_program, see_program
from lcc.passes.rotation import Rotation, rotate
from lcc.testing import oracles
from lcc.testing.oracles import sees

FREQUENCIES = [1.0, 0.2, 0.03]
KINDS: list[Sparse] = [
    SinkWindow(sink=2, window=5),
    SinkWindow(sink=0, window=3),
    SinkWindow(sink=4, window=6, block=2),
    SinkWindow(sink=3, window=40),
    BlockSparse(block=2, stride=3, local=2, sink=1, reach=8),
    BlockSparse(block=4, stride=3, local=1, sink=0, reach=5, offset=2, shift=1),
    BlockSparse(block=3, stride=2, local=2, sink=0, reach=5, shift=3),
    BlockSparse(block=1, stride=2, local=3, sink=0, reach=0),
]


def still_seen(kind: Sparse, held: list[list[int]], read: int, lag: int) -> list[list[int]]:
    """What stays of the tokens held in each head; all heads keep as many."""
    last = max(0, read - max(1, lag))
    seen = [{t for t in held[h] if t > last or sees(kind, last, t, h)} for h in range(len(held))]
    count = max(map(len, seen))
    for h, tokens in enumerate(seen):
        newest = [t for t in reversed(held[h]) if t not in tokens]
        tokens.update(newest[: count - len(tokens)])
    return [sorted(tokens) for tokens in seen]


@dataclass
class Layers:
    """All layers of a kind as a runtime drives them, and the tokens that each head holds."""

    kind: Sparse
    heads: int
    lag: int
    slots: int
    used: int = 0
    kept: int = 0
    read: int = 0
    held: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held = [[] for _ in range(self.heads)]
        self.position = torch.full((self.heads, self.slots), -9)

    def append(self, count: int) -> None:
        for tokens in self.held:
            tokens += range(self.read, self.read + count)
        self.used, self.read = self.used + count, self.read + count

    def compact(self) -> tuple[list[list[int]], Tensor]:
        """The slots that stay, by the loops, and by the program; then all is as it says."""
        see = See(self.kind, self.lag)
        numbers = [torch.tensor([each], dtype=torch.int32) for each in (self.used, self.kept)]
        stays, self.position, seen = see(self.position, *numbers, torch.tensor([self.read]))
        wanted = still_seen(self.kind, self.held, self.read, self.lag)
        slots = [
            [old.index(token) for token in new] for old, new in zip(self.held, wanted, strict=True)
        ]
        assert seen.tolist() == [len(wanted[0])]
        self.held, self.used, self.kept = wanted, len(wanted[0]), len(wanted[0])
        return slots, stays


@pytest.mark.parametrize("lag", [0, 1, 7])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_stays_is_the_loops(kind: Sparse, lag: int) -> None:
    layers = Layers(kind, heads=3, lag=lag, slots=kind.slots(8) + max(0, lag - 1))
    dropped = False
    for count in itertools.islice(itertools.cycle([8, 1, 3, 8, 2, 5]), 40):
        if layers.used + count > layers.slots:
            before = layers.used
            wanted, stays = layers.compact()
            number = layers.used
            assert stays[:, :number].tolist() == wanted
            own = torch.arange(number, layers.slots).expand(3, -1)
            assert torch.equal(stays[:, number:], own)
            assert layers.position[:, :number].tolist() == layers.held
            assert number + count <= layers.slots  # so that the step has room
            dropped |= number < before
        layers.append(count)
    assert dropped


def test_heads_that_see_less_keep_the_newest_of_the_others() -> None:
    """Blocks of one token, the newest two and every third: 0, 3, 6 in head 0, 1, 4, 7 in head 1."""
    kind = BlockSparse(block=1, stride=3, local=2, sink=0, shift=2)
    one = torch.tensor([9], dtype=torch.int32), torch.tensor([0], dtype=torch.int32)
    stays, _, seen = See(kind)(torch.zeros(2, 12).long(), *one, torch.tensor([9]))
    assert seen.tolist() == [5]
    assert stays[:, :5].tolist() == [[0, 3, 6, 7, 8], [1, 4, 6, 7, 8]]  # 6 it does not see


def test_what_the_newest_tokens_saw_stays_where_they_are_read_again() -> None:
    kind = SinkWindow(sink=1, window=3)
    one = torch.tensor([10], dtype=torch.int32), torch.tensor([0], dtype=torch.int32)
    for lag, stay in ((0, [0, 7, 8, 9]), (1, [0, 7, 8, 9]), (4, [0, 4, 5, 6, 7, 8, 9])):
        stays, _, seen = See(kind, lag)(torch.zeros(1, 11).long(), *one, torch.tensor([10]))
        assert stays[0, : int(seen)].tolist() == stay


@pytest.mark.parametrize("lag", [0, 5])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_no_more_leave_at_once_than_is_said(kind: Sparse, lag: int) -> None:
    """The table of angles is as long as that; steps of one token drop most at once."""
    for chunk in (1, 3, 8, 20):
        most = 0
        layers = Layers(kind, heads=2, lag=lag, slots=kind.slots(chunk, 4) + max(0, lag - 1))
        for _ in range(150):
            aligned = isinstance(kind, BlockSparse) and layers.read % chunk == 0
            if aligned or layers.used + 1 > layers.slots:
                before = layers.used
                layers.compact()
                most = max(most, before - layers.used)
            layers.append(1)
        assert 0 < most <= kind.leaving(chunk, 4)


@pytest.mark.parametrize("interleaved", [False, True])
def test_entries_move_and_turn(interleaved: bool) -> None:
    """A layer of two heads reads the rows of a kind that has three."""
    table = Rotation.from_frequencies(
        torch.tensor(FREQUENCIES, dtype=torch.float64), 20, interleaved=interleaved
    )
    raw = torch.randn(1, 2, 9, 8, generator=torch.Generator().manual_seed(2))
    key, value = rotate(raw, table.cos[:9], table.sin[:9], interleaved), torch.randn(1, 2, 9, 8)
    chosen = [[0, 1, 4, 7], [0, 3, 4, 8], [1, 2, 3, 4]]
    stays = torch.tensor([[*row, 4, 5, 6, 7, 8] for row in chosen])
    new_key, new_value = Compact(table)(key, value, stays)
    assert new_key.shape == key.shape
    for head in range(2):
        assert torch.equal(new_value[0, head], value[0, head, stays[head]])
        assert torch.equal(new_key[0, head, 0], key[0, head, 0])  # did not move: bit for bit
        assert torch.equal(new_key[0, head, 4:], key[0, head, 4:])
        for new, old in enumerate(chosen[head]):
            turned = oracles.rotate(
                raw[0, head, old].tolist(), new, FREQUENCIES, interleaved=interleaved
            )
            assert new_key[0, head, new].tolist() == pytest.approx(turned, abs=1e-5)
    plain, _ = Compact()(key, value, stays)  # absolute positions: the angle stays
    assert torch.equal(plain[0, 0], key[0, 0, stays[0]])


def test_the_programs_are_the_modules(call: Callable[..., dict[str, Tensor]]) -> None:
    kind = KINDS[5]
    see = see_program("see_1", kind, heads=3, slots=17, lag=2)
    assert [(each.name, each.role) for each in see.outputs] == [
        ("stays", Role.KEPT),
        ("token_position_out", Role.TOKEN_POSITION),
        ("seen", Role.COUNTER),
    ]
    given = {
        "token_position": torch.arange(17).expand(3, -1) * 2,
        "used": torch.tensor([15], dtype=torch.int32),
        "kept": torch.tensor([7], dtype=torch.int32),
        "tokens_read": torch.tensor([50]),
    }
    got = call(see, **given)
    for name, wanted in zip(see.output_names, See(kind, 2)(*given.values()), strict=True):
        assert torch.equal(got[name], wanted)
    assert got["seen"].dtype == torch.int32
    compact = compact_program("compact_0", Compact(), kv_heads=2, head_size=8, heads=3, slots=17)
    key, value = torch.randn(2, 1, 2, 17, 8)
    moved = call(compact, key=key, value=value, stays=got["stays"])
    assert torch.equal(moved["value_out"], Compact()(key, value, got["stays"])[1])
