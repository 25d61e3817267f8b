"""Rows of a comparison: what was held against what, how far they are apart, how far they may be."""

from dataclasses import dataclass

import msgspec

TOLERANCE = {"float32": 1e-4, "float16": 5e-2}  # absolute, of logits, keys and scores, by cache
# Of the largest logit, for one layer: some hundred times what one sum in this type is rounded by.
# Errors of layers add up as errors of chance do, with the root of their number.
SHARE = {"float32": 1e-5, "float16": 5e-3}


class Row(msgspec.Struct, frozen=True):
    """One comparison.

    max_error   largest absolute difference; of tokens and kept entries, how many differ; of a
                perplexity, the share by which it is more; of a divergence, nats a token
    """

    what: str
    against: str
    max_error: float
    tolerance: float
    ok: bool


@dataclass(frozen=True)
class Report:
    """All comparisons of an artifact.

    exact       the same numbers are wanted; else, numbers that lose no more than they may
    """

    rows: tuple[Row, ...]
    exact: bool = True

    @property
    def ok(self) -> bool:
        """Nothing differs by more than it may."""
        return all(row.ok for row in self.rows)


def logits_tolerance(dtype: str, largest: float, layers: int) -> float:
    """How far logits may be apart that are right, and rounded in another order.

    dtype       of the cache
    largest     absolute value among the logits
    layers      of the model
    """
    share: float = SHARE[dtype] * layers**0.5
    return max(TOLERANCE[dtype], share * largest)


def compared(what: str, against: str, error: float, tolerance: float) -> Row:
    """A row; an error that is no number is too large."""
    return Row(what, against, float(error), tolerance, bool(error <= tolerance))
