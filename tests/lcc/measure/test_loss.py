"""Divergence and perplexity by hand."""

import math

import numpy as np
import pytest

from lcc.measure.loss import divergence, perplexity

EVEN = np.log(np.array([[0.5, 0.5], [0.5, 0.5]]))
UNEVEN = np.log(np.array([[0.5, 0.5], [0.25, 0.75]]))


def test_divergence() -> None:
    """The first rows agree; the second: (ln(0.5 / 0.25) + ln(0.5 / 0.75)) / 2."""
    second = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    assert divergence(UNEVEN, EVEN) == pytest.approx(second / 2)
    assert divergence(UNEVEN + 7, UNEVEN) == pytest.approx(0, abs=1e-12)


def test_perplexity() -> None:
    """The first token is given; of those that follow, one had a quarter and one a half."""
    logits = np.concatenate([UNEVEN[::-1], EVEN[:1]])
    assert perplexity(logits, [1, 0, 1]) == pytest.approx((0.25 * 0.5) ** -0.5)
