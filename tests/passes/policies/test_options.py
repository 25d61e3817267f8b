"""Options of policies: each knows its own, all others are errors; what a policy may ask for."""

import msgspec
import pytest

from lcc.config import PolicyConfig
from lcc.errors import ConfigError
from lcc.passes.policies import POLICIES, make_policy, options_in_force
from lcc.passes.policies.base import NoOptions
from lcc.passes.policies.entry_scores import (
    AGREED,
    ATTENTION,
    EXPECTED,
    NLL,
    NOISE,
    RETAINING,
    SENTENCE,
    EntryScore,
)


def make(name: str, *, with_heads: bool = False, **options: object):
    return make_policy(PolicyConfig(name=name, options=options), with_heads=with_heads)


def test_unknown_policy_lists_the_names() -> None:
    words = "policy is 'snapkw', wanted one of consensus, infinipot, "
    with pytest.raises(ConfigError, match=words):
        make("snapkw")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (
            "infinipot",
            {"beta": 1},
            "infinipot: unknown option 'beta'; it knows alpha, attention_span",
        ),
        ("consensus", {"alpha": 0.5}, "'alpha'; it knows nll_weight, catalyst"),
        ("snapkv", {"nll_span": 3}, "'nll_span'; it knows attention_span"),
        ("h2o", {"decay": 0.2}, "'decay'; it has no options"),
        ("keydiff", {"seed": 1}, "'seed'; it has no options"),
        ("infinipot", {"alpha": 1.5}, "policy infinipot: alpha is 1.5, wanted 0 to 1"),
        ("infinipot", {"alpha": -0.1}, "alpha is -0.1, wanted 0 to 1"),
        ("locret", {"alpha": 2}, "policy locret: alpha is 2.0, wanted 0 to 1"),
        ("consensus", {"nll_weight": 1.01}, "nll_weight is 1.01, wanted 0 to 1"),
        ("consensus", {"recall_floor": -0.1}, "recall_floor is -0.1, wanted 0 to 1"),
        ("infinipot", {"attention_span": 4}, "attention_span is 4, wanted an odd number"),
        ("infinipot", {"nll_span": -1}, "nll_span is -1, wanted an odd number"),
        ("snapkv", {"attention_span": 0}, "attention_span is 0, wanted an odd number"),
        ("locret", {"score_span": 2}, "score_span is 2, wanted an odd number"),
        ("locret", {"tail_size": -1}, "tail_size is -1, wanted 0 or more"),
        ("random", {"seed": -1}, "seed is -1, wanted 0 to 2147483647"),
        ("random", {"seed": 2**31}, "seed is 2147483648, wanted 0 to 2147483647"),
        ("random", {"seed": "x"}, r"policy random: Expected `int`, got `str` - at `\$.seed`"),
        ("infinipot", {"attention_span": 3.5}, "policy infinipot: Expected `int`"),
        ("infinipot", {"alpha": "half"}, "policy infinipot: Expected `float`"),
    ],
)
def test_options_that_a_policy_does_not_have(name: str, options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        make(name, **options)
    assert "\n" not in str(caught.value)


def test_every_policy_has_options_of_its_own() -> None:
    for name, policy in POLICIES.items():
        assert policy.name == name
        made = make(name)
        assert isinstance(made.options, policy.Options)
        assert policy.Options is NoOptions or policy.Options.__module__ == policy.__module__


@pytest.mark.parametrize(
    ("name", "options", "in_force"),
    [
        (
            "consensus",
            {},
            {"nll_weight": 0.25, "catalyst": "beginning", "recall_floor": 0.02},
        ),
        (
            "consensus",
            {"nll_weight": 0, "recall_floor": 0},
            {"nll_weight": 0.0, "catalyst": "beginning", "recall_floor": 0.0},
        ),
        ("snapkv", {}, {"attention_span": 41}),
        ("random", {"seed": 3}, {"seed": 3}),
        ("h2o", {}, {}),
        (
            "infinipot",
            {"alpha": 0.25, "catalyst": "What?"},
            {"alpha": 0.25, "attention_span": 41, "nll_span": 41, "catalyst": "What?"},
        ),
        ("locret", {}, {"alpha": 0.0, "score_span": 41, "nll_span": 41, "tail_size": 100}),
    ],
)
def test_the_manifest_has_all_of_them(name: str, options: dict, in_force: dict) -> None:
    made = make(name, **options)
    assert options_in_force(made) == in_force
    again = make_policy(PolicyConfig(name=name, options=options_in_force(made)))
    assert options_in_force(again) == in_force


# --- what a policy reads --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "scores", "queries"),
    [
        ("infinipot", {"alpha": 0.0}, {ATTENTION}, "catalyst"),
        ("infinipot", {}, {ATTENTION, NLL}, "catalyst"),
        ("infinipot", {"alpha": 1.0}, {NLL}, None),
        ("consensus", {"nll_weight": 0.0}, {AGREED, SENTENCE}, "catalyst"),
        ("consensus", {}, {AGREED, NLL, SENTENCE}, "catalyst"),
        ("consensus", {"nll_weight": 1.0}, {NLL, SENTENCE}, None),
        ("locret", {}, {RETAINING}, None),
        ("locret", {"alpha": 0.1}, {RETAINING, NLL}, None),
        ("snapkv", {}, {ATTENTION}, "newest"),
        ("h2o", {}, {ATTENTION}, "all"),
        ("random", {}, {NOISE}, None),
        ("sink_window", {}, set(), None),
        ("keydiff", {}, set(), None),
        ("knorm", {}, set(), None),
        ("none", {}, set(), None),
    ],
)
def test_a_policy_reads_only_what_it_needs(
    name: str, options: dict, scores: set, queries: str | None
) -> None:
    made = make(name, **options)
    assert (set(made.scores), made.queries) == (scores, queries)
    assert made.catalyst == (made.options.catalyst if queries == "catalyst" else None)


def test_with_heads_consensus_runs_no_catalyst() -> None:
    made = make("consensus", with_heads=True)
    assert (set(made.scores), made.queries, made.catalyst) == ({EXPECTED, SENTENCE}, None, None)
    assert made.options.nll_weight == 0
    made = make("consensus", with_heads=True, nll_weight=0.5)
    assert set(made.scores) == {EXPECTED, NLL, SENTENCE}
    with pytest.raises(ConfigError, match="nll_weight is 1, which reads no heads"):
        make("consensus", with_heads=True, nll_weight=1.0)


def test_only_h2o_sums_over_the_whole_text() -> None:
    decays = {name: (make(name).decay, make(name).query_pool) for name in ("h2o", "snapkv")}
    assert decays == {"h2o": (1.0, "sum"), "snapkv": (0.0, "sum")}
    assert (make("consensus").query_pool, make("consensus").group_pool) == ("max", "max")


def test_none_evicts_nothing() -> None:
    assert not make("none").evicts
    assert all(make(name).evicts for name in POLICIES if name != "none")


# --- policies of one's own ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "queries", "words"),
    [
        (("position",), None, "score 'position', wanted one of lcc.passes.policies.entry_scores"),
        ((ATTENTION,), None, "score attention and no queries; wanted queries = 'catalyst'"),
        ((AGREED,), None, "score agreed and no queries"),
        ((RETAINING,), None, "reads retaining heads; wanted heads = 'must'"),
        ((EXPECTED,), None, "reads retaining heads"),
        ((NLL,), "catalyst", "wanted one of the scores attention and agreed, got none"),
        ((AGREED, ATTENTION), "all", "attention and agreed, got agreed, attention"),
        ((ATTENTION,), "last", "queries is 'last', wanted one of None, 'catalyst', 'newest'"),
        ((NOISE, NOISE), None, "scores noise, noise: one twice"),
    ],
)
def test_scores_that_nobody_would_make(
    scores: tuple[EntryScore, ...],
    queries: str | None,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = {"name": "own", "scores": scores, "queries": queries}
    monkeypatch.setitem(POLICIES, "own", type("Own", (POLICIES["knorm"],), fields))
    with pytest.raises(ConfigError, match=words):
        make("own")


def test_a_policy_of_ones_own_may_go_by_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"name": "own", "scores": (RETAINING,), "heads": "must"}
    monkeypatch.setitem(POLICIES, "own", type("Own", (POLICIES["knorm"],), fields))
    assert make("own").scores == (RETAINING,)


@pytest.mark.parametrize(("setting", "wanted"), [("query_pool", "sum"), ("group_pool", "mean")])
def test_pools_that_do_not_exist(
    setting: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(POLICIES, "own", type("Own", (POLICIES["h2o"],), {setting: "least"}))
    with pytest.raises(ConfigError, match=f"{setting} is 'least', wanted one of '{wanted}', 'max'"):
        make("own")


def test_an_option_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
        depth: int = 3

    fields = {"name": "own", "Options": Own}
    monkeypatch.setitem(POLICIES, "own", type("Own", (POLICIES["knorm"],), fields))
    assert make("own", depth=5).options.depth == 5
    with pytest.raises(ConfigError, match="unknown option 'width'; it knows depth"):
        make("own", width=5)
