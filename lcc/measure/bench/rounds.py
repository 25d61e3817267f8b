"""The order of measurements, and going on after a stop."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from lcc.errors import LccError
from lcc.measure.bench.line_up import Engine
from lcc.measure.bench.measure import Measurement
from lcc.measure.bench.process import Progress, ask
from lcc.measure.bench.store import Store
from lcc.measure.machine import load_average

Measure = Callable[[Engine, list[int]], dict[str, Any]]


class Plan(Struct, frozen=True, kw_only=True):
    """What is measured how often."""

    engines: Sequence[Engine]
    lengths: Sequence[int]
    rounds: int


def order(plan: Plan) -> Iterator[tuple[int, int, Engine]]:
    """Round (from 1), length, engine: A B C at the first length, A B C at the next, again.

    What is compared lies next to each other in time, for the machine does not stay the same.
    """
    for number in range(1, plan.rounds + 1):
        for tokens in plan.lengths:
            for engine in plan.engines:
                yield number, tokens, engine


def run(plan: Plan, ids: list[int], store: Store, measure: Measure, progress: Progress) -> None:
    """Measure whatever the store does not have.

    An engine that failed at a length is not asked again there in later rounds.

    ids         of the longest prompt; shorter ones are its beginnings
    """
    steps, begun = list(order(plan)), 0
    for place, (number, tokens, engine) in enumerate(steps):
        if store.find(engine.label, tokens, number):
            continue
        if any(each.error for each in store.find(engine.label, tokens)):
            continue
        if number != begun:
            begun = number
            store.round_begins(number, load_average())
        progress(f"{number}/{plan.rounds} {tokens:,} {engine.label}", place / len(steps))
        where: dict[str, Any] = {
            "engine": engine.label,
            "tokens": tokens,
            "round": number,
        }
        try:
            numbers = measure(engine, ids[:tokens])
        except LccError as error:
            numbers = {"error": str(error)}
        store.add(Measurement(**where, **numbers))
    progress("done", 1.0)


def in_process(new_tokens: int, threads: int, timeout: float | None) -> Measure:
    """A `Measure` that starts a fresh process each time."""

    def measure(engine: Engine, ids: list[int]) -> dict[str, Any]:
        page = {
            "do": "measure",
            "kind": engine.kind,
            "source": engine.source,
            "precision": engine.precision,
            "options": engine.options,
            "ids": ids,
            "new_tokens": new_tokens,
            "threads": threads,
        }
        result: dict[str, Any] = ask(page, timeout=timeout)["result"]
        return result

    return measure
