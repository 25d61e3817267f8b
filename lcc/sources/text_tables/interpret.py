"""What the tables mean: a slow reader of `text.bin`, in lists and loops.

It holds a whole text at once and knows no short cut, so that it can be compared with the model's
own tokenizer, and a fast reader with both. The file is trusted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from lcc.sources.text_tables.interpret_steps import Steps
from lcc.sources.text_tables.layout import (
    NONE,
    Decode,
    Flag,
    Info,
    Kind,
    Model,
    read_sections,
)
from lcc.sources.text_tables.search_tree import LETTER, LSTRIP, RSTRIP, SINGLE_WORD, SPACE

_MASK = 0xFFFFFFFF


def _mixed(x: int) -> int:
    x ^= x >> 15
    x = x * 0x2C1B3C6D & _MASK
    x ^= x >> 12
    x = x * 0x297A2D39 & _MASK
    return x ^ x >> 15


class Interpreter:
    """Text to ids and back, by the tables alone."""

    def __init__(self, data: bytes) -> None:
        """`data`: the whole file."""
        sections = self._sections = read_sections(data)
        self._info = self._numbers(Kind.INFO)
        self._offsets, self._bytes = self._numbers(Kind.OFFSETS), sections[Kind.BYTES, 0]
        self._flags, self._words = sections[Kind.FLAGS, 0], self._numbers(Kind.WORDS)
        self._pairs, self._units = self._numbers(Kind.PAIRS), self._numbers(Kind.UNITS)
        self._added = self._numbers(Kind.ADDED)
        self._strings = sections[Kind.STRINGS, 0]
        self._trees = [self._tree(index) for index in (0, 1, 2)]
        self._ranks: dict[tuple[int, int], tuple[int, int] | None] = {}
        steps = [self._numbers(Kind.STEPS)[i : i + 5] for i in range(0, 5 * self._info[4], 5)]
        early = self._info[Info.NORMALIZER_STEPS]
        self._normalizer = Steps(sections, steps[:early])
        self._pre_tokenizer = Steps(sections, steps[early:])

    def _numbers(self, kind: Kind, index: int = 0) -> list[int]:
        return np.frombuffer(self._sections.get((kind, index), b""), np.uint32).tolist()

    @property
    def knows_kinds(self) -> bool:
        """Whether any step tells letters of one kind from others."""
        return self._info[Info.AUTOMATA] + self._info[Info.FORMS] > 0

    def token_bytes(self, token: int) -> bytes:
        """Bytes of a token as the file has them."""
        return self._bytes[self._offsets[token] : self._offsets[token + 1]]

    def encode(self, text: str, *, added: bool = True) -> list[int]:
        """The ids of a text; `added`: tokens are found in the text itself."""
        found = list[int]()
        for part, first in self._split(text, 0, begins=True, added=added):
            if isinstance(part, int):
                found.append(part)
                continue
            for normal in self._normalizer.run([part], first=first):
                for piece, begins in self._split(normal, 1, begins=first, added=added):
                    if isinstance(piece, int):
                        found.append(piece)
                        continue
                    for word in self._pre_tokenizer.run([piece], first=begins):
                        found += self._merged(word)
        return found

    def read_plain(self, text: str) -> list[int]:
        """The ids of a text whose control tokens are read as the letters they are written with."""
        data, found, done, place = text.encode(), list[int](), 0, 0
        while place < len(data):
            size, _ = self._longest(data, place, 2)
            if size:
                found += self.encode(data[done:place].decode())
                found += self.plain(data[place : place + size].decode())
                done = place + size
            place += size or 1
        return found + self.encode(data[done:].decode())

    def plain(self, text: str) -> list[int]:
        """The ids of a text as it is written inside another one, control tokens spelled out."""
        ids = self._behind_a_line(text)
        if any(self._flags[i] & Flag.ADDED for i in ids):
            ids = [i for letter in text for i in self._behind_a_line(letter)]
        return ids

    def _behind_a_line(self, text: str) -> list[int]:
        line = self.encode("\n", added=False)
        ids = self.encode(f"\n{text}", added=False)
        if ids[: len(line)] == line:
            return ids[len(line) :]
        return self.encode(text, added=False)

    def _split(
        self, text: str, tree: int, *, begins: bool, added: bool
    ) -> list[tuple[str | int, bool]]:
        """Added tokens, and what lies between them; whether it begins the text."""
        data, parts, done, place = text.encode(), list[tuple[str | int, bool]](), 0, 0
        firsts = self._trees[tree][0][0]
        while place < len(data) and added:
            if data[place] not in firsts:
                place += 1
                continue
            size, token = self._longest(data, place, tree)
            if not size:
                place += 1
                continue
            start, stop = place, place + size
            place = stop
            flags = self._added[2 * token + 1]
            before, behind = data[:start].decode(), data[stop:].decode()
            if flags & SINGLE_WORD and (
                (before and self._is(before[-1], LETTER))
                or (behind and self._is(behind[0], LETTER))
            ):
                continue
            if flags & LSTRIP:
                while before and self._is(before[-1], SPACE):
                    before = before[:-1]
                start = max(len(before.encode()), done)
            if flags & RSTRIP:
                while behind and self._is(behind[0], SPACE):
                    behind = behind[1:]
                stop = len(data) - len(behind.encode())
            if done < start:
                parts.append((data[done:start].decode(), begins and done == 0))
            parts.append((self._added[2 * token], False))
            done = stop
        if done < len(data):
            parts.append((data[done:].decode(), begins and done == 0))
        return parts

    def _tree(self, index: int) -> list[tuple[dict[int, int], int]]:
        """Of each node, the nodes below it by byte, and the number of its token + 1."""
        nodes, edges = self._numbers(Kind.TRIE_NODES, index), self._numbers(Kind.TRIE_EDGES, index)
        found = []
        for i in range(0, len(nodes), 3):
            first, count, token = nodes[i : i + 3]
            below = range(2 * first, 2 * (first + count), 2)
            found.append(({edges[k]: edges[k + 1] for k in below}, token))
        return found or [({}, 0)]

    def _longest(self, data: bytes, place: int, tree: int) -> tuple[int, int]:
        """Bytes of the longest added token that begins here, and its number."""
        node, found = 0, (0, 0)
        for size in range(1, len(data) - place + 1):
            node = self._trees[tree][node][0].get(data[place + size - 1], 0)
            if not node:
                break
            if token := self._trees[tree][node][1]:
                found = size, token - 1
        return found

    def _is(self, letter: str, sort: int) -> bool:
        page = np.frombuffer(self._sections[Kind.SORT_PAGES, 0], np.uint16)[ord(letter) >> 8]
        return bool(self._sections[Kind.SORT_BLOCKS, 0][page * 256 + (ord(letter) & 255)] & sort)

    def _merged(self, word: str) -> list[int]:
        """The tokens of a word: the whole of it, or its units, merged pair by pair."""
        whole = self._word(word.encode())
        if whole is not None and self._info[Info.MODEL] & Model.IGNORE_MERGES:
            return [whole]
        units = self._units_of(word)
        ranks = [self._rank(*pair) for pair in itertools.pairwise(units)]
        while ranks:
            best = min(ranks)
            if best[0] == NONE:
                break
            i = ranks.index(best)
            units[i : i + 2] = [best[1]]
            del ranks[i]
            for k in (i - 1, i):
                if 0 <= k < len(ranks):
                    ranks[k] = self._rank(units[k], units[k + 1])
        return units

    def _units_of(self, word: str) -> list[int]:
        mode, unknown = self._info[Info.MODEL], self._info[Info.UNKNOWN]
        found, last = list[int](), False  # last: the unit before was unknown
        for part in [bytes([b]) for b in word.encode()] if mode & Model.IN_BYTES else word:
            if isinstance(part, bytes):
                unit: int | None = self._units[part[0]]
            else:
                unit = self._word(part.encode())
            if unit is None and mode & Model.BYTE_FALLBACK and self._units[0] != NONE:
                assert isinstance(part, str)
                found += [self._units[byte] for byte in part.encode()]
                last = False
            elif unit is not None and unit != NONE:
                found.append(unit)
                last = False
            elif unknown != NONE:
                if not (last and mode & Model.FUSE_UNKNOWN):
                    found.append(unknown)
                last = True
        return found

    def _word(self, word: bytes) -> int | None:
        h = 2166136261
        for byte in word:
            h = (h ^ byte) * 16777619 & _MASK
        slots = len(self._words)
        slot = _mixed(h) * slots >> 32
        while (token := self._words[slot]) != NONE:
            if self.token_bytes(token) == word:
                return token
            slot = (slot + 1) % slots
        return None

    def _rank(self, left: int, right: int) -> tuple[int, int]:
        """Rank of a pair and what it becomes; NONE first where it is not merged."""
        if (left, right) not in self._ranks:
            self._ranks[left, right] = self._look_up(left, right)
        return self._ranks[left, right] or (NONE, NONE)

    def _look_up(self, left: int, right: int) -> tuple[int, int] | None:
        slots = len(self._pairs) // 4
        slot = _mixed((left * 0x9E3779B1 + right * 0x85EBCA77) & _MASK) * slots >> 32
        while (row := self._pairs[4 * slot : 4 * slot + 4])[0] != NONE:
            if row[:2] == [left, right]:
                return row[2], row[3]
            slot = (slot + 1) % slots
        return None

    def decode(self, ids: Sequence[int], *, special: bool) -> str:
        """The text of ids; `special`: special tokens are spelled out."""
        shown = [i for i in ids if special or not self._flags[i] & Flag.SPECIAL]
        shown = [i for i in shown if self._flags[i] & Flag.PRESENT]
        info = self._info
        if info[Info.DECODING] & Decode.IN_BYTES:
            return b"".join(map(self.token_bytes, shown)).decode("utf-8", "replace")
        old = self._string(info[Info.SHOWN_FROM], info[Info.SHOWN_FROM_SIZE])
        new = self._string(info[Info.SHOWN_AS], info[Info.SHOWN_AS_SIZE])
        text, run = "", b""
        for place, token in enumerate(shown):
            if self._flags[token] & Flag.BYTE:
                run += bytes([int(self.token_bytes(token)[3:5], 16)])
                continue
            text, run = text + _run_text(run), b""
            own = self.token_bytes(token).decode()
            dropped = place == 0 and info[Info.DECODING] & Decode.DROP_FIRST
            text += own.replace(old, "" if dropped else new) if old else own
        text += _run_text(run)
        for _ in range(info[Info.STRIP]):
            text = text.removeprefix(" ")
        return text

    def _string(self, place: int, size: int) -> str:
        return self._strings[place : place + size].decode()


def _run_text(run: bytes) -> str:
    """Bytes side by side: a text, or one U+FFFD for each of them."""
    try:
        return run.decode()
    except UnicodeDecodeError:
        return "\ufffd" * len(run)
