"""Which slots survive: the tensor code against sorting, over made-up scalars."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcc.config import PolicyConfig
from lcc.errors import ConfigError
from lcc.passes.policies import POLICIES, Entries, make_policy
from lcc.passes.policies.base import top_mask
from lcc.testing.oracles import keep_slots

EVICTING = [name for name, policy in POLICIES.items() if policy.evicts]
INEXACT = ("keydiff", "consensus")  # quotients and logarithms: no exact ties
SCALARS = ("attention", "consensus", "retaining", "novelty", "noise")
GARBAGE = 77.0  # in empty slots, which nothing may look at


def make_entries(key, scalars, *, used, budget, prefix=0, recent=0):
    slot = torch.arange(key.shape[1])
    valid = slot < used
    protected = valid & ((slot < prefix) | (slot >= used - recent))
    return Entries(key, key, slot, valid, protected, budget, scalars)


def select(config, key, scalars, **limits):
    return make_policy(config).select(make_entries(key, scalars, **limits)).tolist()


def oracle(config, key, scalars, *, used, **limits):
    own = make_policy(config).config  # with the policy's own alpha where none is given
    return [
        keep_slots(
            own,
            {name: x[head, :used].tolist() for name, x in scalars.items()},
            key[head, :used].tolist(),
            **limits,
        )
        for head in range(key.shape[0])
    ]


@st.composite
def cases(draw):
    """A cache of integers, many of them equal: exact in float32, and full of ties."""
    slots = draw(st.integers(3, 24))
    used = draw(st.integers(3, slots))
    budget = draw(st.integers(1, used - 1))
    prefix = draw(st.integers(0, budget))
    recent = draw(st.integers(0, budget - prefix))
    config = PolicyConfig(
        name=draw(st.sampled_from([n for n in EVICTING if n not in INEXACT])),
        alpha=draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.75, 1.0])),
        attention_span=draw(st.sampled_from([1, 3, 7, 41])),
        novelty_span=draw(st.sampled_from([1, 3, 7, 41])),
    )

    def tensor(*shape, low=0, high=4):
        count = torch.Size(shape).numel()
        numbers = draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
        return torch.tensor(numbers, dtype=torch.float32).reshape(shape)

    scalars = {name: tensor(2, slots) for name in ("attention", "retaining", "novelty", "noise")}
    scalars["novelty"][scalars["novelty"] == 4] = 1e30  # the first token's, wherever it is
    for x in scalars.values():
        x[:, used:] = GARBAGE
    key = tensor(2, slots, 2, low=1)
    limits = {"used": used, "budget": budget, "prefix": prefix, "recent": recent}
    return config, key, scalars, limits


@given(cases())
@settings(max_examples=300, deadline=None)
def test_select_is_the_oracles(case):
    config, key, scalars, limits = case
    assert select(config, key, scalars, **limits) == oracle(config, key, scalars, **limits)


@pytest.mark.parametrize("name", EVICTING)
@pytest.mark.parametrize("limits", [{}, {"prefix": 4, "recent": 8}, {"prefix": 20, "recent": 19}])
def test_select_of_random_numbers(name, limits):
    g = torch.Generator().manual_seed(len(name))
    key = torch.randn(3, 100, 8, generator=g) + 1.0
    scalars = {n: torch.rand(3, 100, generator=g) for n in SCALARS}
    scalars["sentence"] = (
        torch.arange(100).div(7, rounding_mode="floor").expand(3, 100).float().clone()
    )
    for x in scalars.values():
        x[:, 90:] = GARBAGE
    config = PolicyConfig(name=name, attention_span=5, novelty_span=3)
    limits = {"used": 90, "budget": 40, **limits}
    kept = select(config, key, scalars, **limits)
    assert kept == oracle(config, key, scalars, **limits)
    for row in kept:
        assert len(row) == 40
        assert row == sorted(set(row))
        assert set(range(limits.get("prefix", 0))) <= set(row)
        assert set(range(90 - limits.get("recent", 0), 90)) <= set(row)


def test_the_policies_choose_differently():
    g = torch.Generator().manual_seed(0)
    key = torch.randn(1, 60, 8, generator=g)
    scalars = {n: torch.rand(1, 60, generator=g) for n in SCALARS}
    scalars["sentence"] = torch.arange(60).div(7, rounding_mode="floor").float()[None]
    options = {"attention_span": 3, "novelty_span": 3}
    kept = {
        name: tuple(select(PolicyConfig(name=name, **options), key, scalars, used=60, budget=20)[0])
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
    (kept,) = select(PolicyConfig(name="knorm"), key, {}, used=40, budget=8)
    assert kept == [5, *range(33, 40)]


def test_consensus_keeps_what_says_something_and_then_the_newest():
    """Ten sentences of four tokens; the third and the sixth say something, the others repeat."""
    novelty = torch.full((1, 40), 0.2)
    novelty[0, 8:12], novelty[0, 20:24] = 3.0, 2.5
    novelty[0, 28:32] = 0.4  # twice as much as the others, and still nothing
    scalars = {
        "novelty": novelty,
        "consensus": torch.linspace(1.0, 0.1, 40)[None],  # attention is for the old ones
        "sentence": torch.arange(40).div(4, rounding_mode="floor").float()[None],
    }
    key = torch.ones(1, 40, 2)
    config = PolicyConfig(name="consensus")
    (kept,) = select(config, key, scalars, used=40, budget=16, prefix=2)
    assert kept == [0, 1, *range(8, 12), *range(20, 24), *range(34, 40)]


def test_alpha_1_keeps_the_same_tokens_in_all_heads():
    g = torch.Generator().manual_seed(1)
    key = torch.randn(4, 50, 8, generator=g)
    scalars = {
        "attention": torch.rand(4, 50, generator=g),
        "novelty": torch.rand(50, generator=g).expand(4, 50),
    }

    def kept(alpha):
        config = PolicyConfig(name="infinipot", alpha=alpha, attention_span=1, novelty_span=1)
        return {tuple(row) for row in select(config, key, scalars, used=50, budget=20)}

    assert len(kept(1.0)) == 1
    assert len(kept(0.0)) == 4  # else the case would show nothing


def test_infinipot_as_published_spelled_out():
    novelty = torch.tensor([[1e30, 0.0, 7.0, 6.0, 0.0, 5.0, 0.0, 0.0]])
    attention = torch.tensor([[0.0, 4.0, 0.0, 0.0, 9.0, 3.0, 8.0, 0.0]])
    config = PolicyConfig(name="infinipot", alpha=0.5, attention_span=1, novelty_span=1)
    scalars = {"novelty": novelty, "attention": attention}
    kept = select(config, torch.ones(1, 8, 2), scalars, used=8, budget=5)
    assert kept == [[0, 1, 2, 4, 6]]  # 0 and 2 are novel, 1, 4 and 6 attended to


def test_an_unknown_novelty_ranks_first_and_lifts_no_neighbour():
    novelty = torch.tensor([[1e30, 0.0, 0.0, 5.0, 6.0, 5.0, 0.0, 9.0]])
    config = PolicyConfig(name="infinipot", alpha=1.0, novelty_span=3)
    kept = select(config, torch.ones(1, 8, 2), {"novelty": novelty}, used=7, budget=4)
    assert kept == [[0, 3, 4, 5]]  # 9 is in an empty slot: it lifts none either


def test_infinipot_reads_only_what_it_needs():
    needs = {
        alpha: (policy.scalars, policy.queries)
        for alpha in (0.0, 0.5, 1.0)
        for policy in [make_policy(PolicyConfig(name="infinipot", alpha=alpha))]
    }
    assert needs == {
        0.0: (("attention",), "catalyst"),
        0.5: (("attention", "novelty"), "catalyst"),
        1.0: (("novelty",), None),
    }


def test_h2o_sums_all_attention_whatever_the_options():
    policy = make_policy(PolicyConfig(name="h2o", memory=0.2, query_pool="max"))
    assert (policy.memory, policy.query_pool, policy.queries) == (1.0, "sum", "all")
    policy = make_policy(PolicyConfig(name="snapkv", memory=0.2, query_pool="max"))
    assert (policy.memory, policy.query_pool, policy.queries) == (0.2, "max", "recent")


@pytest.mark.parametrize(
    ("name", "pools", "memory"),
    [
        ("consensus", ("max", "max"), 0.2),
        ("h2o", ("sum", "mean"), 1.0),
        ("snapkv", ("max", "mean"), 0.2),
    ],
)
def test_configuration_says_what_the_programs_do(name, pools, memory):
    own = make_policy(PolicyConfig(name=name, memory=0.2, query_pool="max")).config
    assert ((own.query_pool, own.group_pool), own.memory) == (pools, memory)


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


def test_unknown_policy_lists_the_names():
    with pytest.raises(
        ConfigError, match="policy is 'snapkw', wanted one of consensus, infinipot, "
    ):
        make_policy(PolicyConfig(name="snapkw"))


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
        select(PolicyConfig(name="own"), torch.ones(2, 10, 4), {}, used=9, budget=4)


@pytest.mark.parametrize(("setting", "wanted"), [("query_pool", "sum"), ("group_pool", "mean")])
def test_pools_that_do_not_exist(setting, wanted, monkeypatch):
    monkeypatch.setitem(POLICIES, "own", type("Own", (POLICIES["h2o"],), {setting: "least"}))
    with pytest.raises(ConfigError, match=f"{setting} is 'least', wanted one of '{wanted}', 'max'"):
        make_policy(PolicyConfig(name="own"))


def test_a_scalar_that_is_not_listed(monkeypatch):
    own = type("Own", (POLICIES["knorm"],), {"rank": lambda _, x: x.scalar("novelty")})
    monkeypatch.setitem(POLICIES, "own", own)
    with pytest.raises(ConfigError, match="reads novelty but does not list it in `scalars`"):
        select(PolicyConfig(name="own"), torch.ones(2, 10, 4), {}, used=9, budget=4)


def test_ranks_may_be_whole_numbers(monkeypatch):
    rank = {"name": "own", "rank": lambda _, entries: -entries.slot.expand(2, -1)}
    monkeypatch.setitem(POLICIES, "own", type("Own", (POLICIES["knorm"],), rank))
    limits = {"used": 9, "budget": 4, "recent": 1}
    kept = select(PolicyConfig(name="own"), torch.ones(2, 10, 4), {}, **limits)
    assert kept == [[0, 1, 2, 8]] * 2


def test_none_evicts_nothing():
    policy = make_policy(PolicyConfig(name="none"))
    assert not policy.evicts
    assert (policy.scalars, policy.queries) == ((), None)
