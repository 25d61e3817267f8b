"""The smallest budget that answers well enough.

Accuracy need not grow with the budget: samples are few, and evictions chaotic. So a budget counts
only if every larger one that was tried reaches the target, too; a small one that does well behind a
larger one that does not is luck. A budget reaches the target by the mean of its samples. Whether
more samples could overturn that is said apart: they are the same samples at every budget, so the
interval is that of the differences, sample by sample, which is narrower than that of either mean.
Where no sample differs from the reference, Wilson's interval says how many others still may.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from lcc.errors import LccError
from lcc.measure.evaluate.interval import of_scores, student, vary, wilson

Measure = Callable[[int], Sequence[float]]  # budget -> scores, the same samples in the same order


@dataclass(frozen=True)
class Tried:
    """One budget.

    score       mean over all samples
    wanted      what it had to be
    sure        the 95 % interval of the mean difference from what was wanted lies above 0, or,
                where nothing is compared, that of the score above what was wanted; never so of
                graded scores that all differ alike, whose spread is unknown
    """

    budget: int
    score: float
    wanted: float
    sure: bool

    @property
    def reaches(self) -> bool:
        """The mean is what was wanted, or more."""
        return self.score >= self.wanted - 1e-9


def judge(
    budget: int, scores: Sequence[float], target: float, reference: Sequence[float] | None
) -> Tried:
    """Compare [n] scores with `target` times those of the reference; None = with the target."""
    if reference is None:
        return Tried(budget, fmean(scores), target, of_scores(scores).low >= target)
    wanted = [target * each for each in reference]
    low = -1.0
    if vary([a - b for a, b in zip(scores, reference, strict=True)]):
        low = student([a - b for a, b in zip(scores, wanted, strict=True)])[0]
    elif all(score in (0, 1) for score in scores):
        others = 1 - wilson(len(scores), len(scores))[0]  # may yet differ, and each lose 1
        low = fmean(scores) - others - fmean(wanted)
    return Tried(budget, fmean(scores), fmean(wanted), low >= 0)


def choose(tried: Sequence[Tried]) -> Tried | None:
    """The smallest budget that reaches the target and has no larger one that does not."""
    best = None
    for each in sorted(tried, key=lambda each: -each.budget):
        if not each.reaches:
            break
        best = each
    return best


def search(
    measure: Measure,
    *,
    compiled: int,
    smallest: int,
    target: float,
    reference: Sequence[float] | None,
    absolute: bool = False,
    budgets: Sequence[int] = (),
) -> list[Tried]:
    """Measure budgets until the smallest good one is known; returns them from large to small.

    Args:
        measure: asked once for each budget.
        compiled: the largest budget there is; it is always measured.
        smallest: the least one that an eviction can work with.
        target: share of the reference's accuracy, or the accuracy itself.
        reference: scores of the full cache; None = those of the compiled budget.
        absolute: the target is the accuracy itself.
        budgets: measure these; none = halve until the target is missed, then halve the gap, down to
            a sixteenth of the compiled budget.

    Raises:
        LccError: nothing is right at the reference itself.
    """
    top = measure(compiled)
    against = None if absolute else list(reference or top)
    if against is not None and not sum(against):
        raise LccError(
            "the reference answered nothing right, so no budget can be chosen; "
            "take shorter --lengths, other --tasks, or a larger model"
        )
    tried = {compiled: judge(compiled, top, target, against)}

    def reaches(budget: int) -> bool:
        if budget not in tried:
            tried[budget] = judge(budget, measure(budget), target, against)
        return tried[budget].reaches

    for budget in sorted(budgets, reverse=True):
        reaches(budget)
    if not budgets and tried[compiled].reaches:
        step, good, bad = max(compiled // 16, 1), compiled, None
        while bad is None and good > smallest:
            half = max(good // 2, smallest)
            good, bad = (half, None) if reaches(half) else (good, half)
        while bad is not None and good - bad > step:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if reaches(middle) else (good, middle)
    return sorted(tried.values(), key=lambda each: -each.budget)
