"""Sets of code points, and what the tokenizer library takes for a letter, a digit, a space.

A set is a sorted array of the places where membership changes: [97, 123] is a to z. Which code
points are letters depends on the version of Unicode, so the library itself is asked: once a
process, with a text of all code points that could differ from their neighbours.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

LIMIT = 0x110000
Set = np.ndarray  # [changes] int64, ascending

CATEGORIES = (  # the most frequent ones first: they are tried in this order
    *("Lo", "Cn", "So", "Mn", "Ll", "Lu", "Nd", "Po", "No", "Sm", "Mc", "Lm", "Co", "Lt", "Me"),
    *("Nl", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Sc", "Sk", "Zs", "Zl", "Zp", "Cc", "Cf"),
)
# Blocks of one kind: probed at both ends of 16 places, and between two ends that differ.
_EVEN = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0xE000, 0xF900))
_EVEN_FAR = ((0x17000, 0x18800), (0x20000, 0x34000))
# Unassigned or private from end to end: one sample.
_FLAT = ((0x34000, 0xE0000), (0xE1000, 0xF0000), (0xF0000, 0xFFFFE), (0x100000, 0x10FFFE))
_SURROGATES = (0xD800, 0xE000)
# Names, in patterns of our own, for what a pre-tokenizer of the library splits off.
OWN_SETS = ("=Digits", "=Punctuation", "=WhitespaceSplit", "=Whitespace")

EMPTY: Set = np.zeros(0, np.int64)
EVERYTHING: Set = np.array([0], np.int64)


def of_ranges(ranges: Iterable[tuple[int, int]]) -> Set:
    """The set of code points in ranges, ends included."""
    found = EMPTY
    for low, high in ranges:
        found = union(found, np.array([low, high + 1], np.int64))
    return found


def of_characters(characters: Iterable[str]) -> Set:
    """The set of single characters."""
    return of_ranges((ord(each), ord(each)) for each in characters)


def holds(some: Set, points: np.ndarray | int) -> np.ndarray:
    """Whether each point is in the set."""
    return np.searchsorted(some, points, side="right") % 2 == 1


def complement(some: Set) -> Set:
    """What is not in the set."""
    return some[1:] if len(some) and some[0] == 0 else np.concatenate([EVERYTHING, some])


def union(one: Set, other: Set) -> Set:
    """What is in one of them."""
    return _combined(one, other, np.logical_or)


def intersection(one: Set, other: Set) -> Set:
    """What is in both."""
    return _combined(one, other, np.logical_and)


def _combined(one: Set, other: Set, both: Callable[..., np.ndarray]) -> Set:
    places = np.union1d(one, other)
    inside = both(holds(one, places), holds(other, places))
    before = np.concatenate([[False], inside[:-1]])
    return places[inside != before].astype(np.int64)


def first_points(some: Set, most: int) -> list[int] | None:
    """All code points of a set of at most so many, else None."""
    ends = np.append(some, LIMIT)[: 2 * ((len(some) + 1) // 2)].reshape(-1, 2)
    if int((ends[:, 1] - ends[:, 0]).sum()) > most:
        return None
    return [point for low, high in ends for point in range(low, high)]


def _spans() -> list[tuple[int, int]]:
    """Stretches of code points that one sample, their first, stands for."""
    found, place = list[tuple[int, int]](), 0
    areas = [(a, b, 16) for a, b in (*_EVEN, *_EVEN_FAR)] + [(a, b, b - a) for a, b in _FLAT]
    areas.append((*_SURROGATES, 0))
    for low, high, step in sorted(areas):
        found += [(i, i + 1) for i in range(place, low)]
        if step:
            for i in range(low, high, step):
                last = min(i + step, high) - 1
                found += [(i, last), (last, last + 1)]
        place = high
    return found + [(i, i + 1) for i in range(place, LIMIT)]


def _runs(samples: str, expression: str, behaviour: str) -> list[tuple[int, int]]:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(expression), behaviour)
    return [place for _, place in split.pre_tokenize_str(samples)]


def _matching(samples: str, expression: str) -> np.ndarray:
    """Of each sample, whether the library's expression of one character matches it."""
    found = np.ones(len(samples), bool)
    for a, b in _runs(samples, f"(?:{expression})+", "removed"):
        found[a:b] = False
    return found


@functools.cache
def _categories() -> tuple[list[tuple[int, int]], np.ndarray]:
    """Spans of code points, and the library's category of each, as an index."""
    spans = _spans()
    kinds = _category_of([low for low, _ in spans])
    uneven = list[tuple[int, int]]()
    for i in range(len(spans) - 1):  # a border inside a span of several
        low, high = spans[i]
        if 1 < high - low <= 16 and (kinds[i] != kinds[i + 1] or high != spans[i + 1][0]):
            uneven += [(point, point + 1) for point in range(low + 1, high)]
    finer = _category_of([low for low, _ in uneven])
    cut = {low - 1 for low, _ in uneven}
    spans = [(low, low + 1) if low in cut else (low, high) for low, high in spans]
    order = np.argsort([low for low, _ in [*spans, *uneven]], kind="stable")
    merged = [*spans, *uneven]
    return [merged[i] for i in order], np.concatenate([kinds, finer])[order]


def _category_of(points: Sequence[int]) -> np.ndarray:
    samples = "".join(map(chr, points))
    runs = _runs(samples, "|".join(rf"\p{{{each}}}+" for each in CATEGORIES), "isolated")
    firsts = [samples[a] for a, _ in runs]
    known = np.full(len(runs), -1)
    guesses = np.array([_guess(each) for each in firsts], dtype=int)
    for kind, name in enumerate(CATEGORIES):
        which = np.flatnonzero(guesses == kind)
        if len(which):
            right = _matching("".join(firsts[i] for i in which), rf"\p{{{name}}}")
            known[which[right]] = kind
    for kind, name in enumerate(CATEGORIES):
        which = np.flatnonzero(known < 0)
        if len(which):
            right = _matching("".join(firsts[i] for i in which), rf"\p{{{name}}}")
            known[which[right]] = kind
    kinds = np.empty(len(samples), int)
    for (a, b), kind in zip(runs, known, strict=True):
        kinds[a:b] = kind
    return kinds


def _guess(character: str) -> int:
    name = unicodedata.category(character)
    return CATEGORIES.index(name) if name in CATEGORIES else -1


@functools.cache
def borders() -> list[int]:
    """The first and the last code point of each run of one category, but for surrogates."""
    spans, kinds = _categories()
    lows, highs = np.array(spans).T
    first = np.flatnonzero(np.diff(kinds, prepend=-1))
    last = np.append(first[1:], len(kinds)) - 1
    found = np.unique(np.concatenate([lows[first], highs[last] - 1]))
    return [int(i) for i in found if not _SURROGATES[0] <= i < _SURROGATES[1]]


@functools.cache
def category(name: str) -> Set:
    """The set of a general category: Lu, or L for all that begin with it."""
    spans, kinds = _categories()
    wanted = [i for i, each in enumerate(CATEGORIES) if each.startswith(name)]
    return _of_samples(spans, np.isin(kinds, wanted))


@functools.cache
def named(expression: str) -> Set:
    r"""The set of a library expression of one character: \\s, \\w, \\p{Han}."""
    spans, _ = _categories()
    return _of_samples(spans, _matching("".join(chr(low) for low, _ in spans), expression))


@functools.cache
def split_off(name: str) -> Set:
    """What a pre-tokenizer of the library parts from a letter: it has a Unicode of its own."""
    from tokenizers import pre_tokenizers

    spans, kinds = _categories()
    if name == "Digits":
        spans = [spans[i] for i in np.flatnonzero(np.isin(kinds, _numbers_or_none()))]
    options = {"individual_digits": True} if name == "Digits" else {}
    text = "a" + "".join(f"{chr(low)}a" for low, _ in spans)
    beside = np.zeros(len(text), bool)  # whether it is in one piece with what is before it
    for _, (start, end) in getattr(pre_tokenizers, name)(**options).pre_tokenize_str(text):
        beside[start + 1 : end] = True
    if name != "Digits":
        return _of_samples(spans, ~beside[1::2])
    return of_ranges(
        (low, high - 1) for (low, high), off in zip(spans, ~beside[1::2], strict=True) if off
    )


def _numbers_or_none() -> list[int]:
    return [i for i, each in enumerate(CATEGORIES) if each[0] == "N" or each == "Cn"]


@functools.cache
def spaces() -> Set:
    r"""What \\s matches: among separators and controls."""
    spans, kinds = _categories()
    wanted = [i for i, each in enumerate(CATEGORIES) if each[0] in "ZC" and each not in ("Co",)]
    few = np.flatnonzero(np.isin(kinds, wanted) & (np.arange(len(kinds)) < 0x10000))
    found = _matching("".join(chr(spans[i][0]) for i in few), r"\s")
    return of_characters(chr(spans[i][0]) for i in few[found])


def _of_samples(spans: Sequence[tuple[int, int]], inside: np.ndarray) -> Set:
    before = np.concatenate([[False], inside[:-1]])
    lows = np.array([low for low, _ in spans])
    return lows[inside != before].astype(np.int64)


@functools.cache
def _cased() -> str:
    """Characters that have a case, or a fold."""
    points = [*range(0xD800), *range(0xF900, 0x11000), *range(0x11800, 0x11900)]
    points += [*range(0x16E00, 0x16F00), *range(0x1E900, 0x1E960)]
    letters = map(chr, points)
    return "".join(x for x in letters if x != x.casefold() or x != x.upper() or x != x.lower())


@functools.cache
def folds(character: str) -> Set:
    """What a character matches where case does not count."""
    escaped = f"\\x{{{ord(character):x}}}"
    samples = "".join(dict.fromkeys(character + _cased()))
    inside = _matching(samples, f"(?i:{escaped})")
    return of_characters(x for x, is_in in zip(samples, inside, strict=True) if is_in)


@functools.cache
def fold_pairs() -> frozenset[str]:
    """The first two characters of every fold of one character into several."""
    return frozenset(x.casefold()[:2] for x in _cased() if len(x.casefold()) > 1)
