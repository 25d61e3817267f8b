"""Texts of pieces: as many pieces as a length allows, and facts at depths among them."""

import dataclasses
from collections.abc import Callable

from lcc.errors import LccError
from lcc.measure.evaluate.sample import Count, Sample

Pieces = Callable[[int], list[str]]  # number -> that many pieces; a larger one only adds some
Needle = tuple[str, float]  # a text, and its depth in per cent

_PROBE = 16  # pieces of the first guess


def fit(sample: Sample, build: Callable[[int], str], count: Count, length: int) -> Sample:
    """Give a sample the longest text with which it keeps within its length.

    Args:
        sample: all but `context` and `tokens`.
        build: number of pieces -> text; tokens grow with the number, more or less evenly.
        count: the model's tokenizer. It counts a whole text for every guess: the more alike pieces
            are in tokens, the fewer; with the tasks here, four to nine.
        length: tokens of text, question and answer together, at most.
    """
    rest = count(sample.asked) + sample.max_new_tokens
    room, shortest = length - rest, count(build(0))
    if shortest > room:
        raise LccError(
            f"length is {length} tokens, wanted {shortest + rest} or more: the sample takes "
            f"{shortest} without any filler, question and answer {rest}"
        )
    low, tokens = 0, shortest
    high, above = length + 1, 0  # too many, and their tokens; 0 = not known
    while high - low > 1:
        if above:
            pace = (above - tokens) / (high - low)
        else:
            pace = (tokens - shortest) / low if low else (room - shortest) / _PROBE
        number = min(max(low + int((room - tokens) / max(pace, 1e-9)), low + 1), high - 1)
        measured = count(build(number))
        if measured <= room:
            low, tokens = number, measured
        else:
            high, above = number, measured
    return dataclasses.replace(sample, context=build(low), tokens=tokens)


def repeated(pieces: list[str]) -> Pieces:
    """These pieces, again and again."""
    return lambda number: (pieces * -(-number // len(pieces)))[:number]


def drawn(draw: Callable[[], str]) -> Pieces:
    """Pieces that are drawn once, when they are wanted first."""
    known: list[str] = []

    def first(number: int) -> list[str]:
        known.extend(draw() for _ in range(number - len(known)))
        return known[:number]

    return first


def hide(needles: list[Needle], pieces: list[str]) -> list[str]:
    """Put needles among pieces, each after its share of them; those of equal depth in order."""
    for _, depth in needles:
        if not 0 <= depth <= 100:
            raise LccError(f"depth is {depth}, wanted 0 to 100 per cent")
    chosen = list(pieces)
    for needle, depth in sorted(reversed(needles), key=lambda each: -each[1]):
        chosen.insert(round(len(pieces) * depth / 100), needle)
    return chosen
