"""Medians and ratios, by hand."""

from lcc.cli.bench import _table, remarks
from lcc.measure.bench.measure import Measurement
from lcc.measure.bench.store import csv_text
from lcc.measure.bench.summary import Spread, summarize


def measured(engine: str, number: int, rate: float, **more: object) -> Measurement:
    return Measurement(
        engine=engine, tokens=8, round=number, prefill_tokens_per_second=rate, **more
    )


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    first = [measured("a", i, rate) for i, rate in enumerate([100.0, 200.0, 400.0], 1)]
    other = [measured("b", i, rate) for i, rate in enumerate([90.0, 100.0, 400.0], 1)]
    a, b = summarize([*first, *other])
    assert a.numbers == {"prefill_tokens_per_second": Spread(200, 100, 400, 1)}
    # 0.9, 0.5, 1.0; the ratio of the medians would be 0.5
    assert b.numbers == {"prefill_tokens_per_second": Spread(100, 90, 400, 0.9)}
    assert (b.rounds, b.error) == (3, None)


def test_a_round_without_the_first_engine_has_no_ratio() -> None:
    failed = Measurement(engine="a", tokens=8, round=1, error="no memory")
    a, b = summarize([failed, measured("b", 1, 5.0), measured("b", 2, 7.0)])
    assert (a.rounds, a.numbers, a.error) == (0, {}, "no memory")
    assert b.numbers["prefill_tokens_per_second"] == Spread(6, 5, 7, None)


def test_nothing_evicted_is_a_number_and_no_ratio() -> None:
    (cell,) = summarize([measured("a", 1, 5.0, cycles=0)])
    assert cell.numbers["cycles"] == Spread(0, 0, 0, None)


def test_ids_are_compared_from_the_start_on() -> None:
    first = measured("a", 1, 5.0, first_ids=[1, 2, 3, 4])
    a, b = summarize([first, measured("b", 1, 5.0, first_ids=[1, 2, 9, 4])])
    assert (a.same_ids, b.same_ids) == (4, 2)
    rows = _table([a, b]).splitlines()
    assert rows[1].endswith("4 of 4")
    assert rows[2].endswith("2 of 4")


def test_table_says_why() -> None:
    failed = Measurement(engine="b", tokens=8, round=2, error="killed")
    cells = summarize([measured("a", 1, 5.0), measured("b", 1, 6.0), failed])
    assert _table(cells).splitlines()[2].endswith("1 rounds, then: killed")
    alone = summarize([measured("a", 1, 5.0), failed])
    assert _table(alone).splitlines()[2].split()[-1] == "killed"


def test_more_cores_than_threads_are_told() -> None:
    cells = summarize([measured("a", 1, 5.0, cores_used=1.09)])
    assert remarks(cells, threads=1) == []
    cells = summarize([measured("a", 1, 5.0, cores_used=1.9)])
    assert remarks(cells, threads=1) == ["a at 8 used 1.9 cores; 1 threads were asked for"]


def test_csv() -> None:
    rows = csv_text([measured("a, b", 1, 5.0, first_ids=[1, 2]), measured("c", 2, 6.5)]).split("\n")
    assert rows[0].startswith("engine,tokens,round,load_seconds,first_token_seconds,")
    assert rows[1] == '"a, b",8,1,,,5.0,,,,,,1 2,'
    assert rows[2:] == ["c,8,2,,,6.5,,,,,,,", ""]
