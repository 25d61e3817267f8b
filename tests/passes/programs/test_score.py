"""The program `score`: attention by the oracle, added to what was paid before."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from lcc.config import PolicyConfig
from lcc.passes.policies import make_policy
from lcc.passes.programs.score import Score, score_program
from lcc.targets import find_target
from lcc.testing.oracles import OracleCache, attention

HEADS, GROUP, D = 2, 3, 8
SIZES = {"query_heads": HEADS * GROUP, "kv_heads": HEADS, "head_size": D}


def one(number: int) -> Tensor:
    return torch.tensor([number], dtype=torch.int32)


def case(slots: int, n: int, start: int, *, seed: int = 3) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "queries": torch.randn(n, HEADS * GROUP, D, generator=g),
        "key": torch.randn(1, HEADS, slots, D, generator=g),
        "start": one(start),
        "known": one(0),
        "layer": one(0),
        "paid": torch.rand(HEADS, slots, generator=g),
    }


def loops(given: dict[str, Tensor], query_pool: str = "sum", group_pool: str = "mean") -> Tensor:
    """What the queries pay, [Hkv, S]; 0 where none sees."""
    start, n, slots = int(given["start"]), len(given["queries"]), given["key"].shape[2]
    cache = OracleCache(kv_heads=HEADS, scale=0.4)
    for slot in range(min(start + n, slots)):
        cache.append(given["key"][0, :, slot], given["key"][0, :, slot])
    pools = {"query_pool": query_pool, "group_pool": group_pool}
    rows = cache.score(given["queries"], start=start, **pools)  # type: ignore[arg-type]
    return torch.tensor([row + [0.0] * (slots - len(row)) for row in rows])


@pytest.mark.parametrize("query_pool", ["sum", "max"])
@pytest.mark.parametrize("group_pool", ["mean", "max"])
def test_score_is_the_oracles(query_pool: str, group_pool: str) -> None:
    """Without decay nothing is left of what was paid before."""
    pools = {"query_pool": query_pool, "group_pool": group_pool}
    given = case(slots=12, n=4, start=6)
    got = Score(scale=0.4, **pools)(**given)  # type: ignore[arg-type]
    torch.testing.assert_close(got, loops(given, **pools), rtol=1e-5, atol=1e-7)
    assert (got[:, 10:] == 0).all()


def test_score_bounds_the_logits_as_the_layer_does() -> None:
    key = torch.tensor([[[[1.0], [0.0]]]])
    score = Score(scale=3.0, softcap=2.0)
    got = score(torch.ones(1, 1, 1), key, one(1), one(0), one(0), torch.zeros(1, 2))
    first = math.exp(2 * math.tanh(3 / 2))
    assert got.tolist() == [pytest.approx([first / (first + 1), 1 / (first + 1)])]


@pytest.mark.parametrize("more", ["sinks", "bias"])
def test_sinks_and_a_bias_take_their_share(more: str) -> None:
    """Of a layer that has them, as its attention does; head by head against the oracle."""
    given = case(slots=12, n=4, start=6)
    g = torch.Generator().manual_seed(5)
    sinks = torch.randn(HEADS * GROUP, generator=g) + 1 if more == "sinks" else None
    bias = torch.randn(HEADS * GROUP, 15, generator=g) if more == "bias" else None
    got = Score(scale=0.4, sinks=sinks, bias=bias)(**given)
    wanted = torch.zeros(HEADS, 12)
    for query, head in itertools.product(range(4), range(HEADS * GROUP)):
        keys = given["key"][0, head // GROUP, : 7 + query]
        shares = attention(
            given["queries"][query, head].tolist(),
            keys.tolist(),
            0.4,
            sink=None if sinks is None else float(sinks[head]),
            bias=None if bias is None else bias[head].tolist(),
        )
        wanted[head // GROUP, : len(keys)] += torch.tensor(shares) / GROUP
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    plain = Score(scale=0.4)(**given)
    assert (plain - got).abs().max() > 0.01


@pytest.mark.parametrize("decay", [0.25, 1.0])
def test_what_was_paid_before_decays_and_is_added_to(decay: float) -> None:
    """Slots behind `known` hold what other entries were paid, long ago: nothing of it counts."""
    given = case(slots=12, n=4, start=6) | {"known": one(6)}
    got = Score(scale=0.4, decay=decay)(**given)
    new = loops(given)
    for head in range(HEADS):
        for slot in range(12):
            before = decay * float(given["paid"][head, slot]) if slot < 6 else 0.0
            assert float(got[head, slot]) == pytest.approx(
                before + float(new[head, slot]), rel=1e-5
            )


def test_many_steps_add_up_to_the_oracles_sum() -> None:
    """H2O: every step scores its own tokens; an entry's score begins with its own step."""
    g = torch.Generator().manual_seed(1)
    score, cache = Score(scale=0.4, decay=1.0), OracleCache(kv_heads=HEADS, scale=0.4)
    key, paid = torch.zeros(1, HEADS, 20, D), torch.full((HEADS, 20), 77.0)
    used = 0
    for count in (3, 1, 5, 2, 6):
        queries = torch.randn(count, HEADS * GROUP, D, generator=g)
        rows = torch.randn(HEADS, count, D, generator=g)
        key[0, :, used : used + count] = rows
        for token in range(count):
            cache.append(rows[:, token], rows[:, token], attention=0.0)
        cache.remember(cache.score(queries, start=used), decay=1.0)
        paid = score(queries, key, one(used), one(used), one(0), paid)
        used += count
    wanted = [[entry.scores["attention"] for entry in entries] for entries in cache.heads]
    torch.testing.assert_close(paid[:, :used], torch.tensor(wanted), rtol=1e-5, atol=1e-6)
    assert (paid[:, used:] == 0).all()


def test_one_score_for_all_is_the_mean_over_layers_and_heads() -> None:
    """Layers 2 and 5 are scored; the first of them begins anew, whatever lies there."""
    score = Score(scale=0.4, query_pool="max", group_pool="max", for_all=(2, 2 * HEADS))
    paid, every = torch.full((12,), 77.0), []
    for layer in (2, 5):
        given = case(slots=12, n=4, start=6, seed=layer)
        every.append(loops(given, "max", "max"))
        paid = score(**{**given, "layer": one(layer), "paid": paid})
    assert paid.shape == (12,)
    torch.testing.assert_close(paid, torch.cat(every).mean(0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "paid"), [("h2o", "attention"), ("consensus", "agreed")])
def test_score_in_onnx_of_any_size(
    name: str, paid: str, tmp_path: Path, call: Callable[..., dict[str, Tensor]]
) -> None:
    policy = make_policy(PolicyConfig(name=name))
    for_all = (0, 2 * HEADS) if name == "consensus" else None
    score = Score(scale=0.4, decay=policy.decay, for_all=for_all)
    program = score_program("score_0", score, policy, **SIZES, capacity=24, queries=5)
    assert program.input_names == ["queries", "key", "start", "known", "layer", paid]
    assert program.updates == {f"{paid}_out": paid}
    files = find_target("onnxruntime:cpu").build([program], tmp_path)
    onnx = onnxruntime.InferenceSession(tmp_path / files["score_0"])
    for slots, n, start in ((24, 5, 10), (50, 1, 49), (8, 7, 0)):
        given = case(slots, n, start) | {"known": one(start), "layer": one(1)}
        if for_all is not None:
            given["paid"] = given["paid"][0]
        expected = score(**given)
        feeds = {paid if key == "paid" else key: value for key, value in given.items()}
        assert torch.equal(call(program, **feeds)[f"{paid}_out"], expected)
        (got,) = onnx.run(None, {key: value.numpy() for key, value in feeds.items()})
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
