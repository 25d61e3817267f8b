"""The parts of a regular pattern."""

from __future__ import annotations

from dataclasses import dataclass

from lcc.sources.text_tables import code_points as cp


@dataclass(frozen=True, eq=False)
class One:
    """One character of a set."""

    allowed: cp.Set
    letter: str | None = None  # where it was one letter, and case does not count


@dataclass(frozen=True)
class Sequence:
    """Parts one after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Choice:
    """The first of the branches that leads to a match."""

    branches: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """From `least` to `most` times (None = without end).

    kind    greedy, lazy, or possessive (gives nothing back)
    """

    body: Node
    least: int
    most: int | None
    kind: str


@dataclass(frozen=True, eq=False)
class Ahead:
    """The next character is one of a set, or, where `end`, the text ends here; takes nothing."""

    allowed: cp.Set
    end: bool


Node = One | Sequence | Choice | Repeat | Ahead
