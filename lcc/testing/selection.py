"""Which entries of one KV head survive an eviction, in loops: the definition of the policies.

Sorting instead of thresholds, groups instead of sums over indices. A vector is a list of floats.
"""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from lcc.config import PolicyConfig

Vector = list[float]
Scores = dict[str, Vector]

FIRST_NLL = 1e30
"""Negative log likelihood of the first token of a text, which nothing predicts."""


def dot(x: Vector, y: Vector) -> float:
    """The inner product."""
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def span(values: list, slot: int, size: int) -> list:
    """The values of `size` slots around `slot`, fewer at the ends."""
    return values[max(0, slot - size // 2) : slot + size // 2 + 1]


def _span_max(values: Vector, size: int) -> Vector:
    return [max(span(values, slot, size)) for slot in range(len(values))]


def smooth_nll(nll: Vector, size: int) -> Vector:
    """The mean over the span; that of the first token stays, and lifts no neighbour."""
    smooth = []
    for slot, value in enumerate(nll):
        known = [x for x in span(nll, slot, size) if x < FIRST_NLL]
        smooth.append(math.fsum(known) / len(known) if value < FIRST_NLL else FIRST_NLL)
    return smooth


def _key_difference(options: dict[str, Any], scores: Scores, keys: list[Vector]) -> Vector:
    units = [[x / math.hypot(*key) for x in key] for key in keys]
    anchor = [math.fsum(column) for column in zip(*units, strict=True)]
    return [-dot(unit, anchor) / math.hypot(*anchor) for unit in units]


def _length_step(key: Vector) -> int:
    """Of lengths that differ by rounding alone, the same."""
    return round(1024 * math.log(max(dot(key, key), 1e-12)))


def _sentence_ranks(options: dict[str, Any], scores: Scores, keys: list[Vector]) -> Vector:
    """Policy consensus: one number per sentence; of a predictable one, age, below all others."""
    ranks: list[float] = []
    weight, attention = options["nll_weight"], scores.get("expected", scores.get("agreed", []))
    for _, group in itertools.groupby(range(len(keys)), lambda slot: scores["sentence"][slot]):
        slots, rank, total = list(group), 0.0, math.inf
        if weight > 0:
            known = [x for x in (scores["nll"][s] for s in slots) if x < FIRST_NLL]
            total = math.fsum(min(x, 30.0) for x in known)
            rank += weight * math.log(max(total / math.sqrt(len(slots)), 1e-12))
        if weight < 1:
            mean = math.fsum(attention[s] for s in slots) / len(slots)
            rank += (1 - weight) * math.log(max(mean, 1e-12))
        predictable = total / len(slots) < 0.5
        ranks += [slot - 1e6 if predictable else rank for slot in slots]
    return ranks


RANKS: dict[str, Callable[[dict[str, Any], Scores, list[Vector]], Vector]] = {
    "consensus": _sentence_ranks,
    "infinipot": lambda own, s, keys: _span_max(s["attention"], own["attention_span"]),
    "locret": lambda own, s, keys: _span_max(s["retaining"], own["score_span"]),
    "snapkv": lambda own, s, keys: _span_max(s["attention"], own["attention_span"]),
    "h2o": lambda own, s, keys: s["attention"],
    "sink_window": lambda own, s, keys: [float(slot) for slot in range(len(keys))],
    "keydiff": _key_difference,
    "knorm": lambda own, s, keys: [-_length_step(key) for key in keys],
    "random": lambda own, s, keys: s["noise"],
}


def keep_slots(
    policy: PolicyConfig,
    scores: Scores,
    keys: list[Vector],
    *,
    budget: int,
    prefix: int = 0,
    recent: int = 0,
) -> list[int]:
    """Which slots of one head survive, ascending; of entries that tie, the newer.

    policy    with all of its options
    scores    name -> one number per slot in use
    keys      one rotated key per slot in use
    prefix    leading slots that survive in any case
    recent    newest slots that survive in any case
    """
    used, own = len(keys), policy.options
    kept = {slot for slot in range(used) if slot < prefix or slot >= used - recent}

    def take(rank: Vector, count: int) -> None:
        rest = sorted((rank[slot], slot) for slot in range(used) if slot not in kept)
        kept.update(slot for _, slot in rest[len(rest) - count :])

    if own.get("alpha"):
        count = int(Fraction(str(own["alpha"])) * (budget - len(kept)))
        take(smooth_nll(scores["nll"], int(own["nll_span"])), count)
    if len(kept) < budget:
        take(RANKS[policy.name](own, scores, keys), budget - len(kept))
    return sorted(kept)
