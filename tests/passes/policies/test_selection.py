"""Which slots survive: the tensor code against sorting, over made-up scores."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lcc.config import PolicyConfig
from lcc.errors import ConfigError
from lcc.passes.policies import POLICIES, Entries, make_policy, options_in_force
from lcc.passes.policies.base import top_mask
from lcc.passes.policies.entry_scores import NLL
from lcc.testing.selection import keep_slots

EVICTING = [name for name, policy in POLICIES.items() if policy.evicts]
INEXACT = ("keydiff", "consensus")  # quotients and logarithms: no exact ties
SCORES = ("attention", "agreed", "retaining", "nll", "noise")
SPANS = {
    "infinipot": {"attention_span": 5, "nll_span": 3},
    "locret": {"score_span": 5, "alpha": 0.3, "nll_span": 3},
    "snapkv": {"attention_span": 5},
}
GARBAGE = 77.0  # in empty slots, which nothing may look at


def policy_of(name: str, **options: object) -> PolicyConfig:
    return PolicyConfig(name=name, options=options)


def make_entries(key, scores, *, used, budget, prefix=0, recent=0):
    slot = torch.arange(key.shape[1])
    valid = slot < used
    protected = valid & ((slot < prefix) | (slot >= used - recent))
    return Entries(key, key, slot, valid, protected, budget, scores)


def select(policy, key, scores, **limits):
    return make_policy(policy).select(make_entries(key, scores, **limits)).tolist()


def oracle(policy, key, scores, *, used, **limits):
    own = PolicyConfig(name=policy.name, options=options_in_force(make_policy(policy)))
    return [
        keep_slots(
            own,
            {name: x[head, :used].tolist() for name, x in scores.items()},
            key[head, :used].tolist(),
            **limits,
        )
        for head in range(key.shape[0])
    ]


def draw_policy(draw: st.DrawFn) -> PolicyConfig:
    name = draw(st.sampled_from([n for n in EVICTING if n not in INEXACT]))
    span = st.sampled_from([1, 3, 7, 41])
    drawn = {
        "alpha": draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.75, 1.0])),
        "attention_span": draw(span),
        "score_span": draw(span),
        "nll_span": draw(span),
    }
    known = POLICIES[name].Options.__struct_fields__
    return policy_of(name, **{each: value for each, value in drawn.items() if each in known})


@st.composite
def cases(draw):
    """A cache of integers, many of them equal: exact in float32, and full of ties."""
    slots = draw(st.integers(3, 24))
    used = draw(st.integers(3, slots))
    budget = draw(st.integers(1, used - 1))
    prefix = draw(st.integers(0, budget))
    recent = draw(st.integers(0, budget - prefix))

    def tensor(*shape, low=0, high=4):
        count = torch.Size(shape).numel()
        numbers = draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
        return torch.tensor(numbers, dtype=torch.float32).reshape(shape)

    scores = {name: tensor(2, slots) for name in ("attention", "retaining", "nll", "noise")}
    scores["nll"][scores["nll"] == 4] = 1e30  # the first token's, wherever it is
    for x in scores.values():
        x[:, used:] = GARBAGE
    key = tensor(2, slots, 2, low=1)
    limits = {"used": used, "budget": budget, "prefix": prefix, "recent": recent}
    return draw_policy(draw), key, scores, limits


@given(cases())
@settings(max_examples=300, deadline=None)
def test_select_is_the_oracles(case):
    policy, key, scores, limits = case
    assert select(policy, key, scores, **limits) == oracle(policy, key, scores, **limits)


def random_scores(heads: int, slots: int, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(heads, slots, generator=g) for name in SCORES}
    scores["nll"][:, 10] = 1e30  # as of the first token of a text, in the second sentence
    sentence = torch.arange(slots).div(7, rounding_mode="floor").float()
    return scores | {"sentence": sentence.expand(heads, slots).clone()}


@pytest.mark.parametrize("name", EVICTING)
@pytest.mark.parametrize("limits", [{}, {"prefix": 4, "recent": 8}, {"prefix": 20, "recent": 19}])
def test_select_of_random_numbers(name, limits):
    g = torch.Generator().manual_seed(len(name))
    key = torch.randn(3, 100, 8, generator=g) + 1.0
    scores = random_scores(3, 100, len(name))
    for x in scores.values():
        x[:, 90:] = GARBAGE
    policy = policy_of(name, **SPANS.get(name, {}))
    limits = {"used": 90, "budget": 40, **limits}
    kept = select(policy, key, scores, **limits)
    assert kept == oracle(policy, key, scores, **limits)
    for row in kept:
        assert len(row) == 40
        assert row == sorted(set(row))
        assert set(range(limits.get("prefix", 0))) <= set(row)
        assert set(range(90 - limits.get("recent", 0), 90)) <= set(row)


def test_the_policies_choose_differently():
    key = torch.randn(1, 60, 8, generator=torch.Generator().manual_seed(0))
    scores, limits = random_scores(1, 60, 0), {"used": 60, "budget": 20}
    kept = {
        name: tuple(select(policy_of(name, **SPANS.get(name, {})), key, scores, **limits)[0])
        for name in EVICTING
    }
    assert len(set(kept.values())) == len(EVICTING)


def test_knorm_keeps_the_newest_of_keys_that_differ_by_rounding():
    """One word at many places, in the first layer: one length, rounded otherwise at each place."""
    angle = torch.arange(40) * 0.7
    key = 3 * torch.stack([angle.cos(), angle.sin()], -1)[None]
    squared = (key * key).sum(-1)
    assert squared.unique().numel() > 1  # or there is nothing to see here
    key[0, 5] *= 0.9  # a shorter one, of another word
    (kept,) = select(policy_of("knorm"), key, {}, used=40, budget=8)
    assert kept == [5, *range(33, 40)]


def test_consensus_keeps_what_says_something_and_then_the_newest():
    """Ten sentences of four tokens; the third and the sixth say something, the others repeat."""
    nll = torch.full((1, 40), 0.2)
    nll[0, 8:12], nll[0, 20:24] = 3.0, 2.5
    nll[0, 28:32] = 0.4  # twice as much as the others, and still nothing
    scores = {
        "nll": nll,
        "agreed": torch.linspace(1.0, 0.1, 40)[None],  # attention is for the old ones
        "sentence": torch.arange(40).div(4, rounding_mode="floor").float()[None],
    }
    key = torch.ones(1, 40, 2)
    (kept,) = select(policy_of("consensus"), key, scores, used=40, budget=16, prefix=2)
    assert kept == [0, 1, *range(8, 12), *range(20, 24), *range(34, 40)]


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_consensus_by_heads_ranks_by_what_they_expect(weight):
    """As by the catalyst, with another score in its place."""
    scores, key = random_scores(2, 60, 3), torch.ones(2, 60, 2)
    scores["nll"] = scores["nll"] * 2
    scores["expected"] = scores.pop("agreed")
    made = make_policy(policy_of("consensus", nll_weight=weight), with_heads=weight < 1)
    kept = made.select(make_entries(key, scores, used=60, budget=20)).tolist()
    assert kept == oracle(
        policy_of("consensus", nll_weight=weight), key, scores, used=60, budget=20
    )


def test_alpha_1_keeps_the_same_tokens_in_all_heads():
    g = torch.Generator().manual_seed(1)
    key = torch.randn(4, 50, 8, generator=g)
    scores = {
        "attention": torch.rand(4, 50, generator=g),
        "nll": torch.rand(50, generator=g).expand(4, 50),
    }

    def kept(alpha):
        policy = policy_of("infinipot", alpha=alpha, attention_span=1, nll_span=1)
        return {tuple(row) for row in select(policy, key, scores, used=50, budget=20)}

    assert len(kept(1.0)) == 1
    assert len(kept(0.0)) == 4  # else the case would show nothing


def test_infinipot_as_published_spelled_out():
    nll = torch.tensor([[1e30, 0.0, 7.0, 6.0, 0.0, 5.0, 0.0, 0.0]])
    attention = torch.tensor([[0.0, 4.0, 0.0, 0.0, 9.0, 3.0, 8.0, 0.0]])
    policy = policy_of("infinipot", alpha=0.5, attention_span=1, nll_span=1)
    scores = {"nll": nll, "attention": attention}
    kept = select(policy, torch.ones(1, 8, 2), scores, used=8, budget=5)
    assert kept == [[0, 1, 2, 4, 6]]  # 0 and 2 are unlikely, 1, 4 and 6 attended to


def test_the_first_token_ranks_first_and_lifts_no_neighbour():
    nll = torch.tensor([[1e30, 0.0, 0.0, 5.0, 6.0, 5.0, 0.0, 9.0]])
    policy = policy_of("infinipot", alpha=1.0, nll_span=3)
    kept = select(policy, torch.ones(1, 8, 2), {"nll": nll}, used=7, budget=4)
    assert kept == [[0, 3, 4, 5]]  # 9 is in an empty slot: it lifts none either


@given(
    st.lists(st.integers(-2, 2), min_size=1, max_size=30),
    st.data(),
)
@settings(max_examples=100, deadline=None)
def test_top_mask_counts_exactly(values, data):
    limit = data.draw(st.integers(1, len(values)))
    count = data.draw(st.integers(0, limit))
    rank = torch.tensor([values], dtype=torch.float32)
    best = sorted(range(len(values)), key=lambda i: (values[i], i))[len(values) - count :]
    expected = [i in best for i in range(len(values))]
    assert top_mask(rank, torch.tensor([count]), limit)[0].tolist() == expected
    if count == limit:
        assert top_mask(rank, limit, limit)[0].tolist() == expected


@pytest.mark.parametrize(
    ("rank", "gave"),
    [
        (lambda entries: entries.slot, r"\(10,\)"),
        (lambda entries: entries.key.norm(dim=-1).mean(1, keepdim=True), r"\(2, 1\)"),
        (lambda entries: entries.key, r"\(2, 10, 4\)"),
        (lambda entries: None, "NoneType"),
    ],
)
def test_a_rank_of_another_shape(rank, gave, monkeypatch):
    own = type("Own", (POLICIES["knorm"],), {"name": "own", "rank": lambda _, x: rank(x)})
    monkeypatch.setitem(POLICIES, "own", own)
    wanted = rf"policy own: rank\(\) gave {gave}, wanted a tensor \(2, 10\): a number for each"
    with pytest.raises(ConfigError, match=wanted):
        select(policy_of("own"), torch.ones(2, 10, 4), {}, used=9, budget=4)


def test_a_score_that_is_not_listed(monkeypatch):
    own = type("Own", (POLICIES["knorm"],), {"rank": lambda _, x: x.score(NLL)})
    monkeypatch.setitem(POLICIES, "own", own)
    with pytest.raises(ConfigError, match="reads nll, which `scores` does not list"):
        select(policy_of("own"), torch.ones(2, 10, 4), {}, used=9, budget=4)


def test_ranks_may_be_whole_numbers(monkeypatch):
    rank = {"name": "own", "rank": lambda _, entries: -entries.slot.expand(2, -1)}
    monkeypatch.setitem(POLICIES, "own", type("Own", (POLICIES["knorm"],), rank))
    limits = {"used": 9, "budget": 4, "recent": 1}
    kept = select(policy_of("own"), torch.ones(2, 10, 4), {}, **limits)
    assert kept == [[0, 1, 2, 8]] * 2


@pytest.mark.parametrize("odd", [-math.inf, math.inf, math.nan])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_rank_that_is_no_number(odd, share):
    """h2o's rank is the score itself; neither an empty slot nor a protected one gives way."""
    g = torch.Generator().manual_seed(3)
    paid = torch.rand(2, 30, generator=g)
    paid[torch.rand(2, 30, generator=g) < share] = odd

    def worth(row, slot):
        rank = row[slot].item()
        safe = slot < 2 or slot >= 25 - 3
        return safe, -math.inf if math.isnan(rank) else rank, slot

    expected = [
        sorted(sorted(range(25), key=lambda slot, row=row: worth(row, slot))[-16:]) for row in paid
    ]
    limits = {"used": 25, "budget": 16, "prefix": 2, "recent": 3}
    got = select(policy_of("h2o"), torch.ones(2, 30, 4), {"attention": paid}, **limits)
    assert got == expected
