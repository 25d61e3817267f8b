"""Many cycles of append, score and evict: the two programs against the cache of lists.

The keys of the programs are turned cycle by cycle, those of the oracle once; the programs' entries
move through buffers, the oracle's through lists.
"""

import pytest
import torch

from lcc.config import PolicyConfig
from lcc.passes.policies import POLICIES, make_policy
from lcc.passes.programs.cycle import Evict, Score
from lcc.passes.rotation import Rotation, rotate
from lcc.testing.oracles import OracleCache

# consensus reads a mean over layers, which only a whole model has: tests/end_to_end/test_cycles.py
EVICTING = [n for n, policy in POLICIES.items() if policy.evicts and n != "consensus"]
SLOTS, BUDGET, CHUNK, CATALYST = 40, 20, 6, 4
HEADS, GROUP, D = 2, 2, 8
FREQUENCIES = torch.tensor([1.0, 0.3, 0.1, 0.01], dtype=torch.float64)
LIMITS = {"prefix": 2, "recent": 3}


class Buffers:
    """One layer as the runtime drives it: static buffers and the two programs."""

    def __init__(self, policy, positions):
        rotation = Rotation.from_frequencies(FREQUENCIES, 1000)
        self.rotation, self.absolute = rotation, positions == "absolute"
        self.policy = policy
        self.score_program = Score(
            scale=0.5, query_pool=policy.query_pool, group_pool=policy.config.group_pool
        )
        self.evict_program = Evict(policy, None if self.absolute else rotation)
        self.key, self.value = torch.zeros(2, 1, HEADS, SLOTS, D)
        self.scalars = {n: torch.zeros(HEADS, SLOTS) for n in policy.scalars}
        self.tokens = torch.zeros(HEADS, SLOTS, dtype=torch.int64)
        self.used = self.next_token = 0

    def write(self, x):
        """Put tokens into the slots after `used`; returns the rotated queries [Hq, n, D]."""
        n = len(x["query"])
        places = torch.arange(n) + (self.next_token if self.absolute else self.used)
        cos, sin = self.rotation.cos[places], self.rotation.sin[places]
        rows = slice(self.used, self.used + n)
        self.key[0, :, rows] = rotate(x["key"].transpose(0, 1), cos, sin, False)
        self.value[0, :, rows] = x["value"].transpose(0, 1)
        return rotate(x["query"].transpose(0, 1), cos, sin, False)

    def advance(self, x):
        n = len(x["query"])
        rows = slice(self.used, self.used + n)
        for name, scalar in self.scalars.items():
            scalar[:, rows] = x[name] if name in x else 0.0
        self.tokens[:, rows] = torch.arange(n) + self.next_token
        self.used, self.next_token = self.used + n, self.next_token + n

    def remember(self, queries, start):
        new = self.score_program(queries, self.key, torch.tensor([start], dtype=torch.int32))
        self.scalars["attention"] = self.policy.memory * self.scalars["attention"] + new

    def evict(self):
        limits = {"used": self.used, **LIMITS}
        limits = {n: torch.tensor([x], dtype=torch.int32) for n, x in limits.items()}
        kept, key, value = self.evict_program(
            self.key, self.value, new_slots=torch.arange(BUDGET), **limits, **self.scalars
        )
        self.key[:, :, :BUDGET], self.value[:, :, :BUDGET] = key, value
        for x in (*self.scalars.values(), self.tokens):
            x[:, :BUDGET] = x.gather(1, kept)
        self.used = BUDGET
        return kept.tolist()


def text(n, g):
    """`n` made-up tokens of one layer, token first; noise is per entry, novelty per token."""
    return {
        "query": torch.randn(n, HEADS * GROUP, D, generator=g),
        "key": torch.randn(n, HEADS, D, generator=g),
        "value": torch.randn(n, HEADS, D, generator=g),
        "novelty": torch.rand(n, generator=g),
        "noise": torch.rand(HEADS, n, generator=g),
        "retaining": torch.randn(HEADS, n, generator=g),
    }


def append_to(oracle, x):
    for t in range(len(x["query"])):
        scalars = {n: x[n][:, t].tolist() for n in ("noise", "retaining")}
        scalars["novelty"] = x["novelty"][t].item()
        oracle.append(x["key"][t], x["value"][t], attention=0.0, **scalars)


def run(config, positions, chunks, after_cycle):
    """Feed chunks; calls `after_cycle(buffers, oracle, kept)` after each eviction."""
    policy = make_policy(config)
    g = torch.Generator().manual_seed(7)
    buffers = Buffers(policy, positions)
    oracle = OracleCache(
        kv_heads=HEADS, scale=0.5, frequencies=FREQUENCIES.tolist(), positions=positions
    )
    pools = {"query_pool": policy.query_pool, "group_pool": config.group_pool}
    for _ in range(chunks):
        if buffers.used + CHUNK + CATALYST > SLOTS:
            used = buffers.used
            if policy.queries == "catalyst":
                catalyst = text(CATALYST, g)
                buffers.remember(buffers.write(catalyst), used)
                append_to(oracle, catalyst)
                scores = oracle.score(catalyst["query"], start=used, **pools)
                oracle.drop(CATALYST)
                oracle.remember([row[:used] for row in scores], memory=policy.memory)
            elif policy.queries == "recent":
                buffers.remember(queries, used - CHUNK)  # noqa: F821 - of the chunk before
                scores = oracle.score(chunk["query"], start=used - CHUNK, **pools)  # noqa: F821
                oracle.remember(scores, memory=policy.memory)
            expected = oracle.evict(policy.config, budget=BUDGET, **LIMITS)
            after_cycle(buffers, oracle, buffers.evict(), expected)
        chunk, start = text(CHUNK, g), buffers.used
        queries = buffers.write(chunk)
        buffers.advance(chunk)
        append_to(oracle, chunk)
        if policy.queries == "all":
            buffers.remember(queries, start)
            scores = oracle.score(chunk["query"], start=start, **pools)
            oracle.remember(scores, memory=policy.memory)


@pytest.mark.parametrize("positions", ["contiguous", "absolute"])
@pytest.mark.parametrize(
    ("name", "merge"), [(name, None) for name in EVICTING] + [("knorm", 0.4), ("keydiff", -1.0)]
)
def test_cycles_are_the_oracles(name, merge, positions):
    config = PolicyConfig(name=name, attention_span=3, novelty_span=3, memory=0.25, merge=merge)
    seen = []

    def check(buffers, oracle, kept, expected):
        assert kept == expected
        assert buffers.tokens[:, :BUDGET].tolist() == oracle.tokens().tolist()
        for got, want in ((buffers.key, oracle.keys()), (buffers.value, oracle.values())):
            want = torch.from_numpy(want).float()
            torch.testing.assert_close(got[0, :, :BUDGET], want, rtol=1e-5, atol=1e-5)
        seen.append(oracle.tokens().tolist())

    run(config, positions, 17, check)
    assert len(seen) >= 6
    old = [token for token in seen[-1][0][2:] if token < 17 * CHUNK // 2]
    if name != "sink_window":
        assert old  # something that is not a sink has survived several cycles
        assert seen[-1][0] != seen[-1][1]  # and the heads differ
    assert seen[-1][0][:2] == [0, 1]
