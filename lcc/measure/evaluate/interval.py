"""How far a mean of few samples can be trusted: 95 % confidence intervals.

Scores that are all 0 or 1 have Wilson's interval (E. B. Wilson, JASA 22, 1927), which stays within
0 and 1 and says something even where every sample was found. Anything else has Student's t interval
of the mean: graded scores, cut at 0 and 1, and the logarithm of perplexities. Values that are all
alike show no spread, which is not to say that there is none: they have no t interval.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Literal

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its interval.

    method      how they were found; "none" = graded samples that are one, or all alike, say
                nothing of their spread
    """

    mean: float
    low: float
    high: float
    method: Literal["wilson", "t", "none"]


def of_scores(scores: Sequence[float]) -> Interval:
    """The interval of the mean of scores between 0 and 1, at least one."""
    if all(score in (0, 1) for score in scores):
        return Interval(fmean(scores), *wilson(round(sum(scores)), len(scores)), "wilson")
    if not vary(scores):
        return Interval(fmean(scores), 0.0, 1.0, "none")
    low, high = student(scores)
    return Interval(fmean(scores), max(low, 0.0), min(high, 1.0), "t")


def of_perplexity(nats: Sequence[float]) -> Interval:
    """The interval of a perplexity, the exponential of the mean of [n] nats a token, one a text."""
    mean = math.exp(fmean(nats))
    if not vary(nats):
        return Interval(mean, 0.0, math.inf, "none")
    low, high = student(nats)
    return Interval(mean, math.exp(low), math.exp(high), "t")


def vary(values: Sequence[float]) -> bool:
    """Whether they differ, by more than rounding: only then their spread can be estimated."""
    return max(values) - min(values) > 1e-9


def wilson(found: int, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Ends of the score interval of a proportion, `found` of `count`."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = found / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / count / 4)
    # Rounding must not leave the ends that are exact by definition.
    low = 0.0 if found == 0 else middle - half
    return low, 1.0 if found == count else middle + half


def student(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Ends of the t interval of the mean of two values or more."""
    half = t_quantile((1 + confidence) / 2, len(values) - 1) * stdev(values) / len(values) ** 0.5
    return fmean(values) - half, fmean(values) + half


def t_quantile(p: float, degrees: int) -> float:
    """Quantile of Student's distribution for 0 < p < 1.

    Exact for 1 and 2 degrees of freedom; beyond that the expansion 26.7.5 of Abramowitz and Stegun,
    which at p = 0.975 is right to 0.2 %.
    """
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z, n = NormalDist().inv_cdf(p), degrees
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / n**power for power, term in enumerate(terms, start=1))
