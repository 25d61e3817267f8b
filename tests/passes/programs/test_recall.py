"""The programs of a recall against loops: who is paid what, what comes back, where it is put."""

import math

import pytest
import torch
from torch import Tensor

from lcc.config import PolicyConfig
from lcc.passes.policies import make_policy
from lcc.passes.programs.evict import Protection
from lcc.passes.programs.recall import Attend, Choose, PutBack, Vote
from lcc.passes.rotation import Rotation
from lcc.testing.oracles import rotate
from lcc.testing.recall import Archived, choose, votes

LAYERS, HEADS, GROUP, SIZE, ASKED = 2, 2, 3, 8, 5
FREQUENCIES, SCALE, START = [1.0, 0.3, 0.1, 0.01], 0.7, 11
TABLE = Rotation.from_frequencies(torch.tensor(FREQUENCIES), 64)


def counter(value: int, dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.tensor([value], dtype=dtype)


def archive(count: int, seed: int = 0) -> list[Archived]:
    """Rows in the order in which they were evicted, not that of the text."""
    g = torch.Generator().manual_seed(seed)
    keys = torch.randn(count, LAYERS, HEADS, SIZE, generator=g).tolist()
    order = torch.randperm(count, generator=g).tolist()
    return [Archived(p, p // 3 * 3, k) for p, k in zip(order, keys, strict=True)]


def queries(seed: int = 1) -> list:
    """[layer][token][Hq], rotated by nothing."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(LAYERS, ASKED, HEADS * GROUP, SIZE, generator=g).tolist()


def at_their_places(of_layer: list) -> Tensor:
    """[P, Hq, D]: queries as a step hands them out, the first one at position START."""
    return torch.tensor(
        [
            [rotate(head, START + place, FREQUENCIES) for head in token]
            for place, token in enumerate(of_layer)
        ]
    )


def vote(rows: list[Archived], asked: list, block: int, sinks: Tensor | None = None) -> Tensor:
    """[N]: both scans, block by block and layer by layer, as the schedule runs them."""
    ask = {"scale": SCALE, "sinks": None, "count": (0, LAYERS * HEADS)}
    own = [None if sinks is None else sinks[i] for i in range(LAYERS)]
    totals = [torch.zeros(ASKED, HEADS * GROUP) for _ in range(LAYERS)]
    paid = torch.full((len(rows),), 7.0)  # whatever was there before
    for second in (False, True):
        for first in range(0, len(rows), block):
            some = rows[first : first + block]
            for i in range(LAYERS):
                key = torch.tensor([row.keys[i] for row in some])
                q = at_their_places(asked[i])
                if not second:
                    attend = Attend(TABLE, **(ask | {"sinks": own[i]}))
                    totals[i] = attend(q, key, counter(START), counter(first), totals[i])
                else:
                    here = slice(first, first + block)
                    scan = Vote(TABLE, **(ask | {"sinks": own[i]}))
                    paid[here] = scan(q, key, counter(START), counter(i), totals[i], paid[here])
    return paid


@pytest.mark.parametrize("block", [4, 10, 64])
@pytest.mark.parametrize("with_sinks", [False, True])
def test_votes_are_the_loops_in_any_blocks(block: int, with_sinks: bool) -> None:
    rows, asked = archive(23), queries()
    sinks = torch.randn(LAYERS, HEADS * GROUP, generator=torch.Generator().manual_seed(9))
    wanted = votes(rows, asked, FREQUENCIES, SCALE, sinks=sinks.tolist() if with_sinks else None)
    got = vote(rows, asked, block, sinks if with_sinks else None)
    torch.testing.assert_close(got, torch.tensor(wanted), rtol=1e-4, atol=1e-7)


def test_logits_are_bounded_as_the_layer_bounds_them() -> None:
    rows, asked = archive(6), queries()
    key, q = torch.tensor([row.keys[0] for row in rows]), at_their_places(asked[0])
    attend = Attend(TABLE, scale=SCALE, softcap=2.0, count=(0, HEADS))
    total = attend(q, key, counter(START), counter(0), torch.zeros(ASKED, HEADS * GROUP))
    logit = [
        2.0 * math.tanh(SCALE * sum(a * b for a, b in zip(asked[0][0][0], k, strict=True)) / 2.0)
        for k in (row.keys[0][0] for row in rows)
    ]  # of token 0, which stands at position 0
    wanted = math.log(math.fsum(map(math.exp, logit)))
    assert float(total[0, 0]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("protected", "newest"), [(0, 0), (0, 4), (6, 4), (30, 2)])
@pytest.mark.parametrize("floor", [None, 0.0, 0.95])
def test_the_best_sentences_come_back_whole(
    protected: int, newest: int, floor: float | None
) -> None:
    """Slots 0 .. 11 hold tokens 0 .. 5 and 40 .. 45; the others are in the archive only."""
    held, budget, sink = [*range(6), *range(40, 46)], 12, 2
    for seed in range(5):
        rows, g = archive(46, seed), torch.Generator().manual_seed(seed)
        paid, nll = torch.rand(46, generator=g), torch.rand(46, generator=g)
        nll[:3] = torch.tensor([1e30, 45.0, 30.0])
        for row, nats in zip(rows, nll.tolist(), strict=True):
            row.nll = nats
        module = Choose(Protection(sink_size=sink, recent_size=newest), floor)
        cache = torch.zeros(HEADS, 16, dtype=torch.int64)
        cache[:, :12] = torch.tensor(held)
        picked, count, first, total = module(
            paid,
            torch.tensor([row.position for row in rows]),
            torch.tensor([float(row.sentence) for row in rows]),
            torch.zeros(46),
            cache,
            counter(12),
            counter(12),
            counter(protected),
            counter(46, torch.int64),
            torch.arange(budget),
            *([] if floor is None else [nll]),
        )
        stays = min(max(protected, sink), 12)
        sizes = {"budget": budget, "stay": held[:stays], "newest": 46 - newest}
        wanted = choose(rows, paid.tolist(), **sizes, floor=floor or 0.0)
        assert int(first) == stays
        assert [rows[i].position for i in picked[: int(count)].tolist()] == wanted
        assert int(total) == stays + len(wanted)


def test_they_are_put_behind_what_stays_with_the_angles_of_their_slots() -> None:
    policy = make_policy(PolicyConfig(name="consensus"))
    g, slots, budget, first, count = torch.Generator().manual_seed(2), 16, 6, 3, 5
    given = {
        "key": torch.randn(1, HEADS, slots, SIZE, generator=g),
        "value": torch.randn(1, HEADS, slots, SIZE, generator=g),
        "token_position": torch.arange(slots).expand(HEADS, -1),
        "first": counter(first),
        "count": counter(count),
        "used": counter(9),
        "kept": counter(2),  # slot 2 was read since: its scores are in the logs
        "tokens_read": counter(90, torch.int64),
        "back_key": torch.randn(budget, HEADS, SIZE, generator=g),
        "back_value": torch.randn(budget, HEADS, SIZE, generator=g),
        "back_position": torch.arange(budget) + 20,
        "back_nll": torch.rand(budget, generator=g),
        "back_sentence": torch.rand(budget, generator=g),
        "agreed": torch.rand(slots, generator=g),
        "nll": torch.rand(slots, generator=g),
        "nll_kept": torch.rand(HEADS, slots, generator=g),
        "sentence": torch.rand(slots, generator=g),
        "sentence_kept": torch.rand(HEADS, slots, generator=g),
    }
    module = PutBack(policy, TABLE)
    key, value, position, nll, sentence = module(*(given[name] for name in module.names))
    assert (key[:, :, :first] == given["key"][:, :, :first]).all()
    assert (value[:, :, :first] == given["value"][:, :, :first]).all()
    assert position[:, :first].tolist() == [[0, 1, 83]] * HEADS
    assert (nll[:, 2] == given["nll"][2]).all()
    assert (nll[:, :2] == given["nll_kept"][:, :2]).all()
    for row in range(count):
        slot = first + row
        for head in range(HEADS):
            turned = rotate(given["back_key"][row, head].tolist(), slot, FREQUENCIES)
            torch.testing.assert_close(
                key[0, head, slot], torch.tensor(turned), rtol=1e-5, atol=1e-5
            )
            assert (value[0, head, slot] == given["back_value"][row, head]).all()
        assert position[:, slot].tolist() == [20 + row] * HEADS
        assert (nll[:, slot] == given["back_nll"][row]).all()
        assert (sentence[:, slot] == given["back_sentence"][row]).all()
