"""The order of measurements, and going on after a stop."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from lcc.errors import LccError
from lcc.measure.bench.line_up import Contestant
from lcc.measure.bench.measure import Measurement
from lcc.measure.bench.process import Progress, ask
from lcc.measure.bench.store import Store
from lcc.measure.machine import load_average

Measure = Callable[[Contestant, list[int]], dict[str, Any]]


class Plan(Struct, frozen=True, kw_only=True):
    """What is measured how often."""

    contestants: Sequence[Contestant]
    lengths: Sequence[int]
    rounds: int


def order(plan: Plan) -> Iterator[tuple[int, int, Contestant]]:
    """Round (from 1), length, contestant: A B C at the first length, A B C at the next, again.

    What is compared lies next to each other in time, for the machine does not stay the same.
    """
    for number in range(1, plan.rounds + 1):
        for tokens in plan.lengths:
            for contestant in plan.contestants:
                yield number, tokens, contestant


def run(plan: Plan, ids: list[int], store: Store, measure: Measure, progress: Progress) -> None:
    """Measure whatever the store does not have.

    A contestant that failed at a length is not asked again there in later rounds.

    ids         of the longest prompt; shorter ones are its beginnings
    """
    steps, begun = list(order(plan)), 0
    for place, (number, tokens, contestant) in enumerate(steps):
        if store.find(contestant.label, tokens, number):
            continue
        if any(each.error for each in store.find(contestant.label, tokens)):
            continue
        if number != begun:
            begun = number
            store.round_begins(number, load_average())
        progress(f"{number}/{plan.rounds} {tokens:,} {contestant.label}", place / len(steps))
        where: dict[str, Any] = {
            "contestant": contestant.label,
            "tokens": tokens,
            "round": number,
        }
        try:
            numbers = measure(contestant, ids[:tokens])
        except LccError as error:
            numbers = {"error": str(error)}
        store.add(Measurement(**where, **numbers))
    progress("done", 1.0)


def in_process(new_tokens: int, threads: int, timeout: float | None) -> Measure:
    """A `Measure` that starts a fresh process each time."""

    def measure(contestant: Contestant, ids: list[int]) -> dict[str, Any]:
        page = {
            "do": "measure",
            "kind": contestant.kind,
            "source": contestant.source,
            "precision": contestant.precision,
            "options": contestant.options,
            "ids": ids,
            "new_tokens": new_tokens,
            "threads": threads,
        }
        result: dict[str, Any] = ask(page, timeout=timeout)["result"]
        return result

    return measure
