"""From rounds to cells: median, least and most, and ratios to the first engine."""

import statistics
from collections.abc import Sequence

from msgspec import Struct

from lcc.measure.bench.measure import Measurement

METRICS = (
    "prefill_tokens_per_second",
    "decode_tokens_per_second",
    "first_token_seconds",
    "load_seconds",
    "peak_rss_bytes",
    "kv_bytes",
    "cycles",
    "cores_used",
)


class Spread(Struct, frozen=True):
    """Of all rounds; `ratio` is the median of this / the first engine's, round by round.

    Rounds lie apart in time, and a machine is now faster, now slower: what is done in the same
    round compares, medians of their own do less.
    """

    median: float
    least: float
    most: float
    ratio: float | None = None


class Cell(Struct, frozen=True, kw_only=True):
    """An engine at a length.

    rounds      that gave numbers
    numbers     metric -> its spread; a metric is absent where nobody knows it
    same_ids    how many of the first ids it wrote are the first engine's, from the start on
    error       why there are no numbers, or fewer rounds
    """

    engine: str
    tokens: int
    rounds: int
    numbers: dict[str, Spread]
    first_ids: list[int]
    same_ids: int | None
    error: str | None = None


def summarize(measurements: Sequence[Measurement]) -> list[Cell]:
    """Cells by length, then by engine; ratios are to the engine measured first."""
    tokens = sorted({each.tokens for each in measurements})
    labels = list(dict.fromkeys(each.engine for each in measurements))
    by_cell: dict[tuple[str, int], list[Measurement]] = {}
    for each in measurements:
        by_cell.setdefault((each.engine, each.tokens), []).append(each)
    return [
        _cell(by_cell[label, length], by_cell.get((labels[0], length), []))
        for length in tokens
        for label in labels
        if (label, length) in by_cell
    ]


def _cell(own: list[Measurement], first: list[Measurement]) -> Cell:
    done = [each for each in own if each.error is None]
    errors = [each.error for each in own if each.error is not None]
    base = {each.round: each for each in first if each.error is None}
    numbers = {}
    for metric in METRICS:
        pairs = [(each.round, getattr(each, metric)) for each in done]
        values = [value for _, value in pairs if value is not None]
        if values:
            ratios = [
                value / other
                for number, value in pairs
                if value is not None and number in base
                if (other := getattr(base[number], metric))
            ]
            numbers[metric] = Spread(
                statistics.median(values),
                min(values),
                max(values),
                statistics.median(ratios) if ratios else None,
            )
    ids = done[0].first_ids if done else []
    wanted = next(iter(base.values())).first_ids if base else []
    return Cell(
        engine=own[0].engine,
        tokens=own[0].tokens,
        rounds=len(done),
        numbers=numbers,
        first_ids=ids,
        same_ids=_same(ids, wanted) if ids and wanted else None,
        error=errors[0] if errors else None,
    )


def _same(ids: Sequence[int], wanted: Sequence[int]) -> int:
    """How many ids are equal before the first that is not."""
    pairs = zip(ids, wanted, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(wanted)))
