"""The steps before merging, on lists of pieces: part of the slow reader of `text.bin`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from lcc.sources.text_tables.forms import ALONE, BOUNDARY
from lcc.sources.text_tables.layout import Kind, Op
from lcc.sources.text_tables.steps import (
    BEHAVIOURS,
    FIRST_UNLESS_THERE,
    UNLESS_THERE,
)

_S, _L, _V, _T = 0xAC00, 0x1100, 0x1161, 0x11A7  # Hangul syllables, and what they are made of
_VS, _TS = 21, 28

Sections = Mapping[tuple[Kind, int], bytes]


class Steps:
    """A list of steps, each applied to every piece of the one before."""

    def __init__(self, sections: Sections, rows: Sequence[Sequence[int]]) -> None:
        """`rows`: five numbers a step."""
        self._sections, self._rows = sections, rows
        self._automata: dict[int, tuple] = {}
        self._forms = {row[1]: _Form(sections, row[1]) for row in rows if row[0] == Op.FORM}

    def run(self, pieces: list[str], *, first: bool) -> list[str]:
        """All pieces behind the last step; `first`: the first one begins the text."""
        for op, a, b, c, d in self._rows:
            content = self._sections[Kind.STRINGS, 0][c : c + d].decode(errors="ignore")
            found = list[str]()
            for place, piece in enumerate(filter(None, pieces)):
                if op == Op.SPLIT:
                    found += self._split(piece, a, BEHAVIOURS[b], invert=bool(c))
                elif op == Op.FORM:
                    found.append(self._forms[a].of(piece))
                elif op == Op.REPLACE_BYTE:
                    found.append(piece.replace(chr(a), content))
                elif op == Op.REPLACE:
                    parts = self._matches(piece, a)
                    found.append("".join(content if hit else part for part, hit in parts))
                elif op == Op.STRIP:
                    while a and piece and self._is_space(piece[0]):
                        piece = piece[1:]
                    while b and piece and self._is_space(piece[-1]):
                        piece = piece[:-1]
                    found.append(piece)
                else:
                    there = a >= UNLESS_THERE and piece.startswith(content)
                    late = a == FIRST_UNLESS_THERE and not (first and place == 0)
                    found.append(piece if there or late else content + piece)
            pieces = [piece for piece in found if piece]
        return pieces

    def _is_space(self, letter: str) -> bool:
        page = np.frombuffer(self._sections[Kind.SORT_PAGES, 0], np.uint16)[ord(letter) >> 8]
        return bool(self._sections[Kind.SORT_BLOCKS, 0][page * 256 + (ord(letter) & 255)] & 1)

    def _matches(self, text: str, automaton: int) -> list[tuple[str, bool]]:
        """Matches, and what lies between them."""
        parts, done, place = list[tuple[str, bool]](), 0, 0
        while place < len(text):
            end = self._end(text, place, automaton)
            if end is None:
                place += 1
                continue
            if done < place:
                parts.append((text[done:place], False))
            parts.append((text[place:end], True))
            done = place = end
        return [*parts, (text[done:], False)] if done < len(text) else parts

    def _end(self, text: str, place: int, automaton: int) -> int | None:
        """Where the match that begins at a place ends."""
        if automaton not in self._automata:
            pages = np.frombuffer(self._sections[Kind.CLASS_PAGES, automaton], np.uint16)
            blocks = self._sections[Kind.CLASS_BLOCKS, automaton]
            table = np.frombuffer(self._sections[Kind.TRANSITIONS, automaton], np.uint16)
            self._automata[automaton] = pages.tolist(), blocks, table.tolist(), max(blocks) + 2
        pages, blocks, table, width = self._automata[automaton]
        state, found = 1, None
        while True:
            if place < len(text):
                point = ord(text[place])
                kind = blocks[pages[point >> 8] * 256 + (point & 255)]
            else:
                kind = width - 1
            entry = table[state * width + kind]
            if entry & 0x8000:
                found = place
            state = entry & 0x7FFF
            if not state or place >= len(text):
                return found
            place += 1

    def _split(self, text: str, automaton: int, behaviour: str, *, invert: bool) -> list[str]:
        parts = [(part, hit != invert) for part, hit in self._matches(text, automaton)]
        if behaviour == "Removed":
            return [part for part, hit in parts if not hit]
        if behaviour == "Isolated":
            return [part for part, _ in parts]
        backward = behaviour == "MergedWithNext"
        found, before = list[str](), False
        for part, hit in reversed(parts) if backward else parts:
            joins = hit == before if behaviour == "Contiguous" else hit and not before
            if joins and found:
                found[-1] = part + found[-1] if backward else found[-1] + part
            else:
                found.append(part)
            before = hit
        return found[::-1] if backward else found


class _Form:
    """A normal form, of a whole text at once."""

    def __init__(self, sections: Sections, index: int) -> None:
        def numbers(kind: Kind, dtype: type = np.uint32) -> list[int]:
            return np.frombuffer(sections[kind, index], dtype).tolist()

        _, self._hangul, _, self._composes = numbers(Kind.FORM_HEAD)
        self._pages = numbers(Kind.FORM_PAGES, np.uint16)
        self._blocks = numbers(Kind.FORM_BLOCKS, np.uint16)
        self._records, self._letters = numbers(Kind.FORM_RECORDS), numbers(Kind.FORM_LETTERS)
        rows = numbers(Kind.FORM_PAIRS)
        self._pairs = {(rows[i], rows[i + 1]): rows[i + 2] for i in range(0, len(rows), 3)}

    def of(self, text: str) -> str:
        """The form of a text: from each boundary to the next one by itself."""
        starts = [i for i, letter in enumerate(text) if i == 0 or self._flags(letter) & BOUNDARY]
        parts = [text[a:b] for a, b in itertools.pairwise([*starts, len(text)])]
        return "".join(
            part if len(part) == 1 and self._flags(part) & ALONE else self._changed(part)
            for part in parts
        )

    def _flags(self, letter: str) -> int:
        if self._hangul and _S <= ord(letter) < _S + 11172:
            return BOUNDARY | ALONE if self._composes else BOUNDARY
        return self._record(ord(letter))[0]

    def _changed(self, text: str) -> str:
        points = [each for letter in text for each in self._apart(ord(letter))]
        start = 0
        for i in range(len(points) + 1):
            if i == len(points) or not self._order(points[i]):
                points[start:i] = sorted(points[start:i], key=self._order)
                start = i + 1
        return "".join(map(chr, self._together(points) if self._composes else points))

    def _record(self, point: int) -> tuple[int, int]:
        which = self._blocks[self._pages[point >> 8] * 256 + (point & 255)]
        return self._records[2 * which], self._records[2 * which + 1]

    def _order(self, point: int) -> int:
        return self._record(point)[0] >> 8 & 255

    def _apart(self, point: int) -> list[int]:
        if self._hangul and _S <= point < _S + 11172:
            s = point - _S
            parts = [_L + s // (_VS * _TS), _V + s % (_VS * _TS) // _TS, _T + s % _TS]
            return parts if s % _TS else parts[:2]
        flags, place = self._record(point)
        return self._letters[place : place + (flags >> 16)] or [point]

    def _together(self, points: Sequence[int]) -> list[int]:
        found, base, last = list[int](), None, 0
        for point in points:
            order = self._order(point)
            if base is not None and ((last == 0 and base == len(found) - 1) or 0 < last < order):
                joined = self._pair(found[base], point)
                if joined is not None:
                    found[base] = joined
                    continue
            found.append(point)
            last = order
            if order == 0:
                base = len(found) - 1
        return found

    def _pair(self, a: int, b: int) -> int | None:
        if 0 <= a - _L < 19 and 0 <= b - _V < _VS:
            return _S + ((a - _L) * _VS + b - _V) * _TS
        if 0 <= a - _S < 11172 and (a - _S) % _TS == 0 and 0 < b - _T < _TS:
            return a + b - _T
        return self._pairs.get((a, b))
