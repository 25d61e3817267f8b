"""Which budget is chosen, over curves known beforehand."""

import pytest

from lcc.errors import LccError
from lcc.measure.evaluate.tune import Tried, choose, judge, search


def curve(threshold: int, asked: list[int]):
    """Right from `threshold` on; below it half of the samples are."""

    def measure(budget: int) -> list[float]:
        asked.append(budget)
        return [1.0] * 10 if budget >= threshold else [1.0, 0.0] * 5

    return measure


def tune(threshold: int, asked: list[int], **options: object) -> Tried | None:
    limits = {"compiled": 1024, "smallest": 69, "target": 0.95, "reference": None}
    return choose(search(curve(threshold, asked), **(limits | options)))  # type: ignore[arg-type]


@pytest.mark.parametrize("threshold", [100, 300, 512, 700, 1000])
def test_found_to_a_sixteenth(threshold: int) -> None:
    asked: list[int] = []
    best = tune(threshold, asked)
    assert best is not None
    assert threshold <= best.budget <= threshold + 64
    assert not best.sure, "10 of 10 may be as little as 0.72"
    assert len(asked) == len(set(asked)) <= 8, "each is measured once, and few are"


def test_ends() -> None:
    asked: list[int] = []
    assert tune(1, asked).budget == 69  # type: ignore[union-attr]
    assert asked == [1024, 512, 256, 128, 69]
    assert tune(2000, [], absolute=True) is None
    assert tune(2000, []).budget == 69, "relative to itself"  # type: ignore[union-attr]


def test_a_list_is_measured_whole() -> None:
    asked: list[int] = []
    assert tune(300, asked, budgets=[128, 512, 256]).budget == 512  # type: ignore[union-attr]
    assert asked == [1024, 512, 256, 128]


def test_luck_behind_a_miss_is_not_chosen() -> None:
    good = {1024: 1.0, 512: 0.9, 256: 0.2, 128: 0.9}
    tried = [Tried(budget, score, 0.85, sure=True) for budget, score in good.items()]
    assert choose(tried).budget == 512  # type: ignore[union-attr]


def test_pairs_decide_how_sure_it_is() -> None:
    reference = [1.0, 0.0] * 10
    other = judge(64, [0.0, 1.0] * 10, 0.95, reference)
    assert other.reaches
    assert not other.sure
    assert not judge(64, [0.0] + [1.0, 0.0] * 9 + [0.0], 0.95, reference).reaches


def test_sureness_where_no_sample_differs() -> None:
    """Up to 1 - n / (n + z^2) of all samples may: with 20 a share of 0.161, with 200 of 0.019."""
    for count, sure in ((20, False), (200, True)):
        half = [1.0, 0.0] * (count // 2)
        same = judge(64, half, 0.95, half)
        assert same.reaches
        assert same.sure is sure, "0.025 may be lost"
        assert judge(64, [1.0] * count, 0.95, None).sure is sure, "0.05 may be"
    assert not judge(64, [1.0], 0.5, None).sure
    assert not judge(64, [1.0] * 98 + [0.0] * 2, 0.95, None).sure, "Wilson's: 0.930 to 0.994"
    assert judge(64, [1.0] * 98 + [0.0] * 2, 0.92, None).sure
    assert not judge(64, [0.6] * 9, 0.5, None).sure, "graded: of its spread nothing is known"
    assert judge(64, [0.6, 0.7] * 9, 0.5, None).sure


def test_nothing_right() -> None:
    with pytest.raises(LccError, match="the reference answered nothing right"):
        search(lambda _: [0.0], compiled=64, smallest=9, target=0.9, reference=None)
