"""Confidence intervals, against numbers worked by hand or found in tables."""

import math

import pytest

from lcc.measure.evaluate.interval import of_perplexity, of_scores, t_quantile, wilson


def test_wilson_by_hand() -> None:
    # z = 1.959964, z^2 = 3.841459. 8 of 10: (0.8 + 0.192073) / 1.3841459 = 0.716740, and
    # 1.959964 / 1.3841459 * sqrt(0.016 + 0.00960365) = 0.226577
    assert wilson(8, 10) == pytest.approx((0.490163, 0.943317), abs=1e-5)
    # 0 of 3: 0 to z^2 / (3 + z^2)
    assert wilson(0, 3) == pytest.approx((0, 3.841459 / 6.841459), abs=1e-6)
    assert wilson(3, 3)[1] == 1
    assert wilson(3, 3)[0] == pytest.approx(3 / 6.841459, abs=1e-6)


@pytest.mark.parametrize(
    ("degrees", "table"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042)]
)
def test_t_quantile_is_that_of_tables(degrees: int, table: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(table, rel=2e-3)


def test_which_interval() -> None:
    all_or_nothing, graded = of_scores([1, 0, 1.0]), of_scores([0.25, 0.75, 0.5])
    assert (all_or_nothing.method, graded.method) == ("wilson", "t")
    assert all_or_nothing.mean == pytest.approx(2 / 3)
    # standard deviation 0.25, half = 4.303 * 0.25 / sqrt(3) = 0.621: cut at 0 and 1
    assert (graded.mean, graded.low, graded.high) == (0.5, 0, 1)
    narrow = of_scores([0.5, 0.5, 0.6])  # deviation 0.057735, half 0.143422
    assert (narrow.low, narrow.high) == pytest.approx((0.389911, 0.676756), abs=1e-4)
    assert of_scores([0.3]).method == "none"


def test_no_spread_is_no_certainty() -> None:
    alike = of_scores([0.1 + 0.2, 0.3, 0.3])
    assert (alike.mean, alike.low, alike.high) == (pytest.approx(0.3), 0, 1)
    assert alike.method == "none"
    assert of_scores([1.0] * 10).low == pytest.approx(0.7225, abs=1e-4)
    assert of_perplexity([1.5, 1.5]).method == "none"


def test_perplexity() -> None:
    found = of_perplexity([1.0, 2.0])  # deviation 0.707107, half = 12.7062 * 0.5
    assert found.mean == pytest.approx(math.exp(1.5))
    assert (found.low, found.high) == pytest.approx((math.exp(-4.8531), math.exp(7.8531)), rel=1e-3)
    assert of_perplexity([1.0]).high == math.inf
