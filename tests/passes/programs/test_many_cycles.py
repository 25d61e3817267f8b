"""Many cycles of append, score and evict: the two programs against the cache of lists.

The keys of the programs are turned cycle by cycle, those of the oracle once; the programs' entries
move through buffers, the oracle's through lists.
"""

import pytest
import torch
from torch import Tensor

from lcc.config import PolicyConfig, Positions
from lcc.passes.policies import POLICIES, EvictionPolicy, make_policy, options_in_force
from lcc.passes.programs.evict import Evict, Protection, stored_name, stored_scores
from lcc.passes.programs.score import Score
from lcc.passes.rotation import Rotation, rotate
from lcc.testing.oracles import OracleCache

EVICTING = [name for name, policy in POLICIES.items() if policy.evicts]
SLOTS, BUDGET, CHUNK, CATALYST, CHUNKS = 40, 20, 6, 4, 17
HEADS, GROUP, D = 2, 2, 8
FREQUENCIES = torch.tensor([1.0, 0.3, 0.1, 0.01], dtype=torch.float64)
ROTATION = Rotation.from_frequencies(FREQUENCIES, 1000)
LAYER, SEED = 3, 7
OPTIONS = {
    "infinipot": {"attention_span": 3, "nll_span": 3},
    "locret": {"score_span": 3, "nll_span": 3, "alpha": 0.25},
    "snapkv": {"attention_span": 3},
}


def drawn(position: int, head: int) -> float:
    """The random number of a token, in Python's integers."""
    x = (position + (LAYER * 1009 + head + SEED * 7919) * 104729) % (2**31 - 1)
    for factor, summand in ((48271, 11), (69621, 1013904223), (39373, 12345)):
        x = (x * x + factor * x + summand) % (2**31 - 1)
    return x / (2**31 - 1)


def text(n: int, first: int, g: torch.Generator) -> dict[str, Tensor]:
    """`n` made-up tokens of one layer, token first; sentences of five tokens."""
    return {
        "query": torch.randn(n, HEADS * GROUP, D, generator=g),
        "key": torch.randn(n, HEADS, D, generator=g),
        "value": torch.randn(n, HEADS, D, generator=g),
        "nll": torch.rand(n, generator=g) * 4,
        "retaining": torch.randn(n, HEADS, generator=g),
        "sentence": torch.arange(first, first + n).div(5, rounding_mode="floor").float() * 5,
    }


class Layer:
    """One layer as a runtime drives it: buffers and the two programs; nothing is computed here."""

    def __init__(self, policy: EvictionPolicy, positions: Positions) -> None:
        self.policy, self.absolute = policy, positions == "absolute"
        self.for_all = any(each.for_all for each in policy.scores)
        self.score = Score(
            scale=0.5,
            query_pool=policy.query_pool,
            group_pool=policy.group_pool,
            decay=policy.decay,
            for_all=(LAYER, HEADS) if self.for_all else None,
        )
        turn = None if self.absolute else ROTATION
        self.evict = Evict(policy, Protection(sink_size=2, recent_size=3), turn)
        garbage = torch.full((HEADS, SLOTS), 99.0)
        self.buffers = {
            "key": torch.zeros(1, HEADS, SLOTS, D),
            "value": torch.zeros(1, HEADS, SLOTS, D),
            "token_position": garbage.long(),
            "new_slots": torch.arange(BUDGET),
        }
        for each in policy.scores:
            self.buffers[each.name] = garbage.clone()
            if each.made_by == "log":
                self.buffers |= {each.name: garbage[0].clone(), f"{each.name}_kept": garbage}
            if each.made_by == "step" or each.for_all:
                self.buffers[each.name] = garbage[0] if each.for_all else garbage.T.clone()
        self.used = self.kept = self.read = 0

    def write(self, x: dict[str, Tensor], *, stay: bool) -> Tensor:
        """Put tokens into the slots after `used`; returns the rotated queries [n, Hq, D]."""
        n = len(x["query"])
        places = torch.arange(n) + (self.read if self.absolute else self.used)
        cos, sin = ROTATION.cos[places][:, None], ROTATION.sin[places][:, None]
        rows = slice(self.used, self.used + n)
        self.buffers["key"][0, :, rows] = rotate(x["key"], cos, sin, False).transpose(0, 1)
        self.buffers["value"][0, :, rows] = x["value"].transpose(0, 1)
        if stay:
            for name in ("nll", "sentence", "retaining"):
                if name in self.buffers:
                    self.buffers[name][rows] = x[name]
            self.used, self.read = self.used + n, self.read + n
        return rotate(x["query"], cos, sin, False)

    def pay(self, queries: Tensor, start: int, known: int) -> None:
        (name,) = [each.name for each in self.policy.scores if each.made_by == "queries"]
        one = [torch.tensor([x], dtype=torch.int32) for x in (start, known, LAYER)]
        paid = self.buffers[name]
        self.buffers[name] = self.score(queries, self.buffers["key"], *one, paid)

    def cycle(self) -> None:
        numbers = {"used": self.used, "kept": self.kept, "layer": LAYER, "seed": SEED}
        numbers |= {"left": -1, "protected": 0}
        given = {n: torch.tensor([x], dtype=torch.int32) for n, x in numbers.items()}
        given |= {"tokens_read": torch.tensor([self.read]), **self.buffers}
        results = self.evict(*(given[name] for name in self.evict.names))
        names = ["key", "value", "token_position"]
        names += [stored_name(each) for each in stored_scores(self.policy)]
        self.buffers |= dict(zip(names, results, strict=True))
        self.used = self.kept = BUDGET


def append_to(oracle: OracleCache, x: dict[str, Tensor]) -> None:
    for t in range(len(x["query"])):
        noise = [drawn(oracle.next_token, head) for head in range(HEADS)]
        scores = {"nll": x["nll"][t].item(), "sentence": x["sentence"][t].item(), "noise": noise}
        own = {"retaining": x["retaining"][t].tolist(), "attention": 0.0, "agreed": 0.0}
        oracle.append(x["key"][t], x["value"][t], **scores, **own)


def pay(oracle: OracleCache, policy: EvictionPolicy, queries: Tensor, start: int) -> None:
    pools = {"query_pool": policy.query_pool, "group_pool": policy.group_pool}
    oracle.remember(oracle.score(queries, start=start, **pools), decay=policy.decay)  # type: ignore[arg-type]
    for entries in zip(*oracle.heads, strict=True):
        mean = sum(entry.scores["attention"] for entry in entries) / HEADS
        for entry in entries:
            entry.scores["agreed"] = mean


def run(name: str, positions: Positions) -> list[list[list[int]]]:
    """Read chunks; compares after each cycle, and gives the token positions kept by each."""
    policy = make_policy(PolicyConfig(name=name, options=OPTIONS.get(name, {})))
    config = PolicyConfig(name=name, options=options_in_force(policy))
    g = torch.Generator().manual_seed(7)
    layer, seen = Layer(policy, positions), []
    oracle = OracleCache(
        kv_heads=HEADS, scale=0.5, frequencies=FREQUENCIES.tolist(), positions=positions
    )
    chunk, queries = text(0, 0, g), torch.zeros(0)
    for _ in range(CHUNKS):
        start = layer.used
        if start + CHUNK + CATALYST > SLOTS:
            if policy.queries == "catalyst":
                catalyst = text(CATALYST, 0, g)
                layer.pay(layer.write(catalyst, stay=False), start, layer.kept)
                append_to(oracle, catalyst)
                pay(oracle, policy, catalyst["query"], start)
                oracle.drop(CATALYST)
            elif policy.queries == "newest":  # those of the chunk before
                layer.pay(queries, start - CHUNK, layer.kept)
                pay(oracle, policy, chunk["query"], start - CHUNK)
            layer.cycle()
            oracle.evict(config, budget=BUDGET, prefix=2, recent=3)
            compare(layer, oracle)
            seen.append(oracle.tokens().tolist())
        start, chunk = layer.used, text(CHUNK, layer.read, g)
        queries = layer.write(chunk, stay=True)
        append_to(oracle, chunk)
        if policy.queries == "all":
            layer.pay(queries, start, start)
            pay(oracle, policy, chunk["query"], start)
    return seen


def compare(layer: Layer, oracle: OracleCache) -> None:
    got = layer.buffers
    assert got["token_position"][:, :BUDGET].tolist() == oracle.tokens().tolist()
    for name, want in (("key", oracle.keys()), ("value", oracle.values())):
        wanted = torch.from_numpy(want).float()
        torch.testing.assert_close(got[name][0, :, :BUDGET], wanted, rtol=1e-5, atol=1e-5)
    for each in stored_scores(layer.policy):
        moved = got[stored_name(each)]
        rows = (moved.T if each.made_by == "step" else moved)[:, :BUDGET]
        kept = [[entry.scores[each.name] for entry in entries] for entries in oracle.heads]
        torch.testing.assert_close(rows, torch.tensor(kept), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("positions", ["contiguous", "absolute"])
@pytest.mark.parametrize("name", EVICTING)
def test_cycles_are_the_oracles(name: str, positions: Positions) -> None:
    seen = run(name, positions)
    assert len(seen) >= 5
    last = seen[-1]
    assert all(row[:2] == [0, 1] for row in last)
    old = [token for token in last[0][2:] if token < CHUNKS * CHUNK // 2]
    if name != "sink_window":
        assert old  # something that is not a sink has survived several cycles
    assert (last[0] == last[1]) == (name in ("sink_window", "consensus"))
