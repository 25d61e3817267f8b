"""Slow oracles: what the tensor code must mean, in loops over Python's own floats.

They are the definition. Written on purpose by other means than the code they judge: lists instead
of tensors, complex numbers instead of tables, sorting instead of thresholds, unrotated keys turned
when they are looked at instead of keys turned step by step.

A vector is a list of D floats; whatever has numbers in rows (array, tensor) is taken as well.
"""

import cmath
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from lcc.config import PolicyConfig, Positions
from lcc.ir.plan import BlockSparse, Sparse
from lcc.testing.selection import Vector, dot, keep_slots

TOLERANCE = {"float32": 1e-5, "float16": 1e-3}
"""Largest relative difference between two ways to compute the same thing, by dtype."""

Pool = Callable[[Sequence[float]], float]


def rotate(x: Vector, position: int, frequencies: Vector, *, interleaved: bool = False) -> Vector:
    """Turn the first len(frequencies) pairs of numbers by `position * frequency` radians."""
    half, y = len(frequencies), list(x)
    for i, frequency in enumerate(frequencies):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + half)
        turned = complex(x[a], x[b]) * cmath.exp(1j * position * frequency)
        y[a], y[b] = turned.real, turned.imag
    return y


def softmax(logits: Vector) -> Vector:
    """Shares that add up to 1."""
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    total = math.fsum(weights)
    return [w / total for w in weights]


def attention(
    query: Vector,
    keys: list[Vector],
    scale: float,
    window: int | None = None,
    *,
    sink: float | None = None,
    bias: Vector | None = None,
) -> Vector:
    """How much the query of the last entry attends to each; `window` counts that entry itself.

    sink    one more logit, which stands for no entry; `bias` is added to that of each entry
    """
    first = 0 if window is None else max(0, len(keys) - window)
    more = [0.0] * len(keys) if bias is None else bias
    logits = [scale * dot(query, key) + more[first + i] for i, key in enumerate(keys[first:])]
    shares = softmax(logits if sink is None else [*logits, sink])
    return [0.0] * first + shares[: len(logits)]


def sees(kind: Sparse, query: int, key: int, head: int = 0) -> bool:
    """Whether a token of a text sees another one, in a KV head of a layer of this kind."""
    if key > query:
        return False
    blocks = range(query // kind.block + 1)
    if isinstance(kind, BlockSparse):
        first = -(kind.offset + head * kind.shift) % kind.stride
        older = set(blocks[first :: kind.stride]) & set(blocks[::-1][: kind.reach])
        return key // kind.block in {*blocks[: kind.sink], *older, *blocks[::-1][: kind.local]}
    return key < kind.sink or key // kind.block in blocks[-(kind.window // kind.block) :]


def retaining_score(features: Vector, first: list[Vector], second: list[Vector]) -> Vector:
    """What retaining heads with SiLU say of one token: one number per KV head.

    features    query, key and value of the token before rotation, all heads one after the other
    first       [w][F]
    second      [Hkv][w]
    """
    hidden = [dot(row, features) for row in first]
    hidden = [x / (1.0 + math.exp(-x)) for x in hidden]
    return [dot(row, hidden) for row in second]


@dataclass
class Entry:
    """One token in one KV head: `token` is its place in the text, `key` is not rotated."""

    token: int
    key: Vector
    value: Vector
    scores: dict[str, float]


def _rows(x: ArrayLike) -> list:
    return np.asarray(x, np.float64).tolist()


class OracleCache:
    """One attention layer over any number of tokens and cycles.

        for token in text:
            out = cache.step(query, key, value, nll=2.5)          # appends, then attends
        for token in catalyst:
            cache.step(...)                                       # its entries, to score with
        cache.remember(cache.score(catalyst_queries, start=used))
        cache.drop(len(catalyst))
        kept = cache.evict(policy, budget=..., prefix=..., recent=...)

    frequencies   radians per position of each rotated pair; [] = no rotary embedding
    positions     contiguous: an entry's position is its slot now; absolute: its place in the text
    window        newest entries that a query sees, itself included; None = all
    kind          what a query sees otherwise, of a layer that no policy evicts; under contiguous
                  positions an entry's position is then its place among those that are seen; for
                  block_sparse its slot, and `free` is what closes the ranks
    heads         [Hkv] lists of entries in token order; an entry's slot is its index
    """

    def __init__(
        self,
        *,
        kv_heads: int,
        scale: float,
        frequencies: Sequence[float] = (),
        interleaved: bool = False,
        positions: Positions = "contiguous",
        window: int | None = None,
        kind: Sparse | None = None,
    ) -> None:
        self.heads: list[list[Entry]] = [[] for _ in range(kv_heads)]
        self.scale, self.window, self.positions, self.kind = scale, window, positions, kind
        self.frequencies, self.interleaved = list(map(float, frequencies)), interleaved
        self.next_token = 0

    @property
    def used(self) -> int:
        """Slots in use, the same in all heads."""
        return len(self.heads[0])

    def append(self, key: ArrayLike, value: ArrayLike, **scores: float | Sequence[float]) -> None:
        """One token: `key`, `value` [Hkv, D]; each score one number, or one per head."""
        key, value = _rows(key), _rows(value)
        for h, entries in enumerate(self.heads):
            own = {n: float(np.broadcast_to(x, len(self.heads))[h]) for n, x in scores.items()}
            entries.append(Entry(self.next_token, key[h], value[h], own))
        self.next_token += 1

    def attend(self, query: ArrayLike, slot: int = -1) -> list[Vector]:
        """Outputs [Hq][D] of the unrotated `query` [Hq, D] of the token in `slot`."""
        outputs = []
        for h, weights in self._attention(query, slot):
            values = [entry.value for entry in self.heads[h][: len(weights)]]
            outputs.append([dot(weights, list(column)) for column in zip(*values, strict=True)])
        return outputs

    def step(
        self,
        query: ArrayLike,
        key: ArrayLike,
        value: ArrayLike,
        **scores: float | Sequence[float],
    ) -> list[Vector]:
        """Append one token and attend from it."""
        self.append(key, value, **scores)
        return self.attend(query)

    def score(
        self,
        queries: ArrayLike,
        *,
        start: int,
        query_pool: Literal["sum", "max"] = "sum",
        group_pool: Literal["mean", "max"] = "mean",
    ) -> list[Vector]:
        """Attention [Hkv][used] of the unrotated `queries` [n, Hq, D] of slots start, start+1, ...

        Pooled over the queries, then over the query heads of one KV head.
        """
        mean: Pool = lambda x: math.fsum(x) / len(x)  # noqa: E731
        pools: dict[str, Pool] = {"sum": math.fsum, "max": max, "mean": mean}
        seen: list[list[Vector]] = []  # [n][Hq][used]
        for j, query in enumerate(_rows(queries)):
            rows = [weights for _, weights in self._attention(query, start + j)]
            seen.append([row + [0.0] * (self.used - len(row)) for row in rows])
        group = len(seen[0]) // len(self.heads)
        scores = []
        for h in range(len(self.heads)):
            own = range(h * group, (h + 1) * group)
            scores.append(
                [
                    pools[group_pool]([pools[query_pool]([q[g][s] for q in seen]) for g in own])
                    for s in range(self.used)
                ]
            )
        return scores

    def remember(self, scores: Sequence[Vector], *, decay: float = 0.0) -> None:
        """Set each entry's attention to `decay` times its old one plus the new one."""
        for entries, row in zip(self.heads, scores, strict=True):
            for entry, new in zip(entries, row, strict=True):
                entry.scores["attention"] = decay * entry.scores.get("attention", 0.0) + new

    def drop(self, count: int) -> None:
        """Take back the last `count` tokens, as if they had not been read."""
        self.heads = [entries[: len(entries) - count] for entries in self.heads]
        self.next_token -= count

    def evict(
        self, policy: PolicyConfig, *, budget: int, prefix: int = 0, recent: int = 0
    ) -> list[list[int]]:
        """Keep `budget` entries of each head, in order; returns their old slots [Hkv][budget].

        policy      with all of its options
        """
        kept = []
        for h, entries in enumerate(self.heads):
            names = entries[0].scores
            scores = {name: [entry.scores[name] for entry in entries] for name in names}
            limits = {"budget": budget, "prefix": prefix, "recent": recent}
            kept.append(keep_slots(policy, scores, self._keys(h), **limits))
        self.heads = [
            [entries[slot] for slot in slots]
            for entries, slots in zip(self.heads, kept, strict=True)
        ]
        return kept

    def free(self, lag: int = 1) -> None:
        """Forget what no later query of a block_sparse layer sees, nor any of the last `lag`.

        All heads keep as many entries: those that see fewer, of the others the newest.
        """
        kind, last = self.kind, max(0, self.next_token - lag)
        assert isinstance(kind, BlockSparse)
        ranks = [
            sorted((e.token > last or sees(kind, last, e.token, h), e.token) for e in entries)
            for h, entries in enumerate(self.heads)
        ]
        count = max(sum(seen for seen, _ in rank) for rank in ranks)
        kept = [{token for _, token in rank[len(rank) - count :]} for rank in ranks]
        self.heads = [
            [entry for entry in entries if entry.token in tokens]
            for entries, tokens in zip(self.heads, kept, strict=True)
        ]

    def keys(self) -> np.ndarray:
        """Rotated keys [Hkv, used, D]."""
        return np.array([self._keys(h) for h in range(len(self.heads))])

    def values(self) -> np.ndarray:
        """Values [Hkv, used, D]."""
        return np.array([[entry.value for entry in entries] for entries in self.heads])

    def tokens(self) -> np.ndarray:
        """Places in the text [Hkv, used]."""
        return np.array([[entry.token for entry in entries] for entries in self.heads])

    def _rotated(self, x: Vector, head: int, slot: int) -> Vector:
        position = slot if self.positions == "contiguous" else self.heads[head][slot].token
        return rotate(x, position, self.frequencies, interleaved=self.interleaved)

    def _keys(self, head: int) -> list[Vector]:
        return [self._rotated(e.key, head, slot) for slot, e in enumerate(self.heads[head])]

    def _attention(self, query: ArrayLike, slot: int) -> list[tuple[int, Vector]]:
        """KV head and weights over slots 0 .. slot, for each query head."""
        rows, slot = _rows(query), range(self.used)[slot]
        if self.kind is not None:
            return [(h, self._seen_by(self.kind, row, h, slot)) for h, row in self._heads_of(rows)]
        keys = [self._keys(h)[: slot + 1] for h in range(len(self.heads))]
        seen = []
        for h, row in self._heads_of(rows):
            turned = self._rotated(row, h, slot)
            seen.append((h, attention(turned, keys[h], self.scale, self.window)))
        return seen

    def _heads_of(self, rows: list[Vector]) -> list[tuple[int, Vector]]:
        """Each query with its KV head."""
        return [(g * len(self.heads) // len(rows), row) for g, row in enumerate(rows)]

    def _seen_by(self, kind: Sparse, query: Vector, head: int, slot: int) -> Vector:
        """Weights over slots 0 .. slot, 0 where nothing is seen."""
        entries = self.heads[head][: slot + 1]
        tokens = [entry.token for entry in entries]
        seen = [s for s, token in enumerate(tokens) if sees(kind, tokens[-1], token, head)]
        places: Sequence[int] = [tokens[s] for s in seen]
        if self.positions == "contiguous":
            places = seen if isinstance(kind, BlockSparse) else range(len(seen))

        def turn(x: Vector, place: int) -> Vector:
            return rotate(x, place, self.frequencies, interleaved=self.interleaved)

        keys = [turn(entries[s].key, p) for s, p in zip(seen, places, strict=True)]
        weights = dict(zip(seen, attention(turn(query, places[-1]), keys, self.scale), strict=True))
        return [weights.get(s, 0.0) for s in range(slot + 1)]
