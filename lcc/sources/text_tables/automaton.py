"""Regular patterns as deterministic automata over classes of code points.

A state is an ordered list of places in the pattern, the preferred ones first, as a backtracking
matcher would try them; a match cuts off what is less preferred (Thompson's construction with
priorities). What looks ahead by one character is decided when that character is read: so a
transition says whether a match ends *before* its character. The class behind the last one is the
end of the text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lcc.sources.text_tables import code_points as cp
from lcc.sources.text_tables.pattern_nodes import Ahead, Choice, Node, One, Repeat, Sequence
from lcc.sources.text_tables.regular import parse
from lcc.sources.text_tables.unfit import Unfit

DEAD, START, MATCH = 0, 1, 0x8000  # MATCH: bit of a transition
MOST_PLACES, MOST_STATES, MOST_CLASSES = 20000, 4000, 255


@dataclass(frozen=True, eq=False)
class Automaton:
    """What decides where a match that begins at a given place ends.

    class_of    [0x110000] uint8: class of each code point
    next        [states, classes + 1] uint16: next state, and MATCH; the last column is the end
    """

    class_of: np.ndarray
    next: np.ndarray


def compile_pattern(pattern: str) -> Automaton:
    """The automaton of a pattern.

    Raises:
        Unfit: the pattern has a part that no automaton does, matches nothing at all, or is too
            large.
    """
    places = _Places(pattern)
    places.put(parse(pattern), follow=())
    places.code.append(("match",))
    class_of, representatives = _classes(places.sets)
    inside = [cp.holds(each, representatives) for each in places.sets]
    table = _states(places.code, inside, len(representatives), pattern)
    if (table[START] & MATCH).any():
        raise Unfit(f"pattern {pattern!r} matches the empty text")
    return Automaton(class_of, table)


def _classes(sets: list[cp.Set]) -> tuple[np.ndarray, np.ndarray]:
    """The class of each code point, and one code point of each class: no set tells them apart."""
    starts = np.unique(np.concatenate([np.array([0, cp.LIMIT], np.int64), *sets]))[:-1]
    inside = np.stack([cp.holds(each, starts) for each in sets])  # [sets, stretches]
    _, first, which = np.unique(inside, axis=1, return_index=True, return_inverse=True)
    if len(first) > MOST_CLASSES:
        raise Unfit(f"{len(first)} classes of characters in a pattern, wanted {MOST_CLASSES}")
    lengths = np.diff(np.append(starts, cp.LIMIT))
    return np.repeat(which.reshape(-1).astype(np.uint8), lengths), starts[first]


class _Places:
    """A pattern as a list of places: one, split, jump, ahead, match."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.code: list[tuple] = []
        self.sets: list[cp.Set] = []

    def put(self, node: Node, *, follow: tuple[Node, ...] | None) -> None:
        """Append a node; `follow`: what comes behind it, None = unknown."""
        if len(self.code) > MOST_PLACES:
            raise Unfit(f"pattern {self.pattern!r} has too many repetitions")
        if isinstance(node, One):
            self.code.append(("one", self._set(node.allowed)))
        elif isinstance(node, Ahead):
            self.code.append(("ahead", self._set(node.allowed), node.end))
        elif isinstance(node, Sequence):
            for i, part in enumerate(node.parts):
                self.put(part, follow=None if follow is None else (*node.parts[i + 1 :], *follow))
        elif isinstance(node, Choice):
            ends = []
            for branch in node.branches[:-1]:
                fork = self._reserve()
                self.put(branch, follow=follow)
                ends.append(self._reserve())
                self.code[fork] = ("split", fork + 1, len(self.code))
            self.put(node.branches[-1], follow=follow)
            for end in ends:
                self.code[end] = ("jump", len(self.code))
        else:
            self._repeat(node, follow)

    def _repeat(self, node: Repeat, follow: tuple[Node, ...] | None) -> None:
        if node.kind == "possessive":
            self._check_possessive(node, follow)
        greedy = node.kind != "lazy"
        for _ in range(node.least):
            self.put(node.body, follow=None)
        if node.most is None:
            if _nullable(node.body):
                raise Unfit(f"pattern {self.pattern!r} repeats what may be empty without end")
            fork = self._reserve()
            self.put(node.body, follow=None)
            self.code.append(("jump", fork))
            self.code[fork] = self._fork(fork + 1, len(self.code), greedy=greedy)
            return
        forks = []
        for _ in range(node.most - node.least):
            forks.append(self._reserve())
            self.put(node.body, follow=None)
        for fork in forks:
            self.code[fork] = self._fork(fork + 1, len(self.code), greedy=greedy)

    def _check_possessive(self, node: Repeat, follow: tuple[Node, ...] | None) -> None:
        """Giving back characters must be of no use: then it is as if it were greedy."""
        if follow is not None and isinstance(node.body, One):
            if all(_nullable(each) and not _looks(each) for each in follow):
                return
            first, empty = _first(Sequence(follow))
            shared = cp.intersection(first, node.body.allowed)
            if not empty and not len(shared) and not _looks(Sequence(follow)):
                return
        raise Unfit(f"pattern {self.pattern!r} has a possessive part that is not also greedy")

    def _fork(self, inside: int, behind: int, *, greedy: bool) -> tuple:
        return ("split", inside, behind) if greedy else ("split", behind, inside)

    def _reserve(self) -> int:
        self.code.append(())
        return len(self.code) - 1

    def _set(self, allowed: cp.Set) -> int:
        self.sets.append(allowed)
        return len(self.sets) - 1


def _nullable(node: Node) -> bool:
    if isinstance(node, Sequence):
        return all(map(_nullable, node.parts))
    if isinstance(node, Choice):
        return any(map(_nullable, node.branches))
    if isinstance(node, Repeat):
        return node.least == 0 or _nullable(node.body)
    return isinstance(node, Ahead)


def _looks(node: Node) -> bool:
    if isinstance(node, Sequence):
        return any(map(_looks, node.parts))
    if isinstance(node, Choice):
        return any(map(_looks, node.branches))
    return isinstance(node, Ahead) or (isinstance(node, Repeat) and _looks(node.body))


def _first(node: Node) -> tuple[cp.Set, bool]:
    """Characters that a node may begin with, and whether it may be empty."""
    if isinstance(node, One):
        return node.allowed, False
    if isinstance(node, Repeat):
        found, empty = _first(node.body)
        return found, empty or node.least == 0
    found = cp.EMPTY
    if isinstance(node, Choice):
        parts = [_first(each) for each in node.branches]
        for each, _ in parts:
            found = cp.union(found, each)
        return found, any(empty for _, empty in parts)
    if isinstance(node, Sequence):
        for part in node.parts:
            each, empty = _first(part)
            found = cp.union(found, each)
            if not empty:
                return found, False
    return found, True


def _states(code: list[tuple], inside: list[np.ndarray], classes: int, pattern: str) -> np.ndarray:
    """All states that are reached, row by row."""
    known: dict[tuple[int, ...], int] = {(): DEAD, (0,): START}
    rows, pending = [[0] * (classes + 1)], list[tuple[int, ...]]([(0,)])
    sets = [each.tolist() for each in inside]
    while pending:
        places = pending.pop(0)
        row = []
        for kind in range(classes + 1):
            following, match = _step(code, places, sets, kind, classes)
            if following not in known:
                known[following] = len(known)
                pending.append(following)
                if len(known) > MOST_STATES:
                    raise Unfit(f"pattern {pattern!r} has more than {MOST_STATES} states")
            row.append(known[following] | (MATCH if match else 0))
        rows.append(row)
    return np.array(rows, np.uint16)


def _step(
    code: list[tuple], places: tuple[int, ...], sets: list[list[bool]], kind: int, classes: int
) -> tuple[tuple[int, ...], bool]:
    """Where a character of a class leads, and whether a match ends before it."""
    ends = kind == classes
    following: dict[int, None] = {}
    seen = set[int]()
    stack = list(reversed(places))
    while stack:
        place = stack.pop()
        if place in seen:
            continue
        seen.add(place)
        what, *rest = code[place]
        if what == "match":
            return tuple(following), True
        if what == "jump":
            stack.append(rest[0])
        elif what == "split":
            stack += [rest[1], rest[0]]
        elif what == "ahead":
            if rest[1] if ends else sets[rest[0]][kind]:
                stack.append(place + 1)
        elif not ends and sets[rest[0]][kind]:
            following[place + 1] = None
    return tuple(following), False


def match_end(automaton: Automaton, text: str, start: int) -> int | None:
    """Where the match that begins at a place ends; None = there is none."""
    state, found = START, None
    for place in range(start, len(text) + 1):
        kind = automaton.next.shape[1] - 1
        if place < len(text):
            kind = int(automaton.class_of[ord(text[place])])
        entry = int(automaton.next[state, kind])
        if entry & MATCH:
            found = place
        state = entry & ~MATCH
        if state == DEAD:
            break
    return found
