"""Texts that begin alike are read from where they part; the same text is read once.

The texts of a task in noise are the same up to their needles, which lie deeper and deeper. So the
state of the session before a needle is kept in a file, and the next text that begins so goes on
from there. It holds what reading all of it would: the state is exact, a reading is stopped only
between two steps, and what a last cycle decided, which looks at the end of its text, is not kept.

Of a session with an archive the state behind a whole text is kept as well: one reading serves the
answers with and without recall.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lcc.runtime.session import Session

WORTH = 1024  # tokens: reading fewer costs less than a state that is written and read
ALIKE = 128  # tokens: more than an instruction that stands before texts of all kinds
MARGIN = 0.02  # of a text, before its needle: where that begins is known by about a sentence


@dataclass(frozen=True)
class Cost:
    """What reading a text took, in seconds and cycles; of what was shared, what it took then.

    seconds         cycles included
    cycle_seconds   of them, in cycles
    """

    seconds: float = 0.0
    cycles: int = 0
    cycle_seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.cycles + other.cycles,
            self.cycle_seconds + other.cycle_seconds,
        )


def measured(session: Session, feed: Callable[[], object]) -> Cost:
    """What it took this session to be fed."""
    before, start = session.stats(), time.perf_counter()
    feed()
    seconds, after = time.perf_counter() - start, session.stats()
    return Cost(seconds, after.cycles - before.cycles, after.cycle_seconds - before.cycle_seconds)


@dataclass(frozen=True)
class _Kept:
    """A state in a file: the ids read so far, what evictions looked for, what it took."""

    ids: list[int]
    catalyst: str | list[int]
    cost: Cost

    def is_of(self, session: Session, ids: list[int], *, whole: bool = False) -> bool:
        """Whether a text begins so, or, `whole`, is this and no more."""
        same = ids if whole else ids[: len(self.ids)]
        return self.catalyst == session.catalyst and self.ids == same


class SharedBeginning:
    """Reads one text after the other with one session; keeps states, in temporary files."""

    def __init__(self, session: Session, *, archive: bool = False) -> None:
        """`archive`: let the session have one, in a temporary file; it must hold no text."""
        self._session, self._archive = session, archive
        self._folder = tempfile.TemporaryDirectory(prefix="lcc-")
        self._state = Path(self._folder.name, "beginning.lccstate")
        self._whole_state = Path(self._folder.name, "whole.lccstate")
        self._kept: _Kept | None = None
        self._whole: _Kept | None = None
        self._last: list[int] = []
        if archive:
            session.attach(Path(self._folder.name, "text.lccarchive"))

    def read(self, text: str, *, prefix: bool, depth: float | None, anew: bool = False) -> Cost:
        """Leave in the session what `reset()` and `feed(text, prefix=prefix, last=True)` do.

        prefix      begin with the special tokens that the tokenizer puts there
        depth       per cent of the text that its like have in common; None = not known
        anew        read all of it, though a state is kept: somebody watches
        """
        session, start = self._session, time.perf_counter()
        ids = [*(session.manifest.text.prefix if prefix else ()), *session.encode(text)]
        cost = Cost(time.perf_counter() - start)
        if self._whole and not anew and self._whole.is_of(session, ids, whole=True):
            session.load(self._whole_state)
            return self._whole.cost
        cost += self._begin(ids, anew=anew)
        alike, self._last = common_length(ids, self._last), ids
        if depth is not None and alike >= ALIKE:  # so will the next be
            cost += self._keep(ids, depth, cost)
        rest = ids[session.tokens :]
        cost += measured(session, lambda: session.feed(rest, last=True))
        if self._archive:
            session.save(self._whole_state)
            self._whole = _Kept(ids, session.catalyst, cost)
        return cost

    def forget(self) -> None:
        """Forget what was read; without its archive a state is of no use."""
        self._session.reset()
        self._whole, self._kept = None, None if self._archive else self._kept

    def _begin(self, ids: list[int], *, anew: bool) -> Cost:
        """Go on from the state that is kept, where it belongs to this text."""
        kept, session = self._kept, self._session
        if kept and not anew and kept.is_of(session, ids):
            session.load(self._state)
            return kept.cost
        self.forget()
        return Cost()

    def _keep(self, ids: list[int], depth: float, before: Cost) -> Cost:
        """Read up to the last step that ends before the needle, and keep the state."""
        session = self._session
        # Behind it are more tokens than there are slots: no cycle so far was the text's last one.
        end = min(len(ids) * (depth / 100 - MARGIN), len(ids) - session.capacity - 1)
        end -= session.manifest.cache.chunk_size
        if end - session.tokens < WORTH:
            return Cost()
        rest = ids[session.tokens :]
        cost = measured(
            session, lambda: session.feed(rest, last=True, stop=lambda: session.tokens > end)
        )
        session.save(self._state)
        self._kept = _Kept(ids[: session.tokens], session.catalyst, before + cost)
        return cost


def common_length(a: list[int], b: list[int]) -> int:
    """How many ids two texts have in common at their beginning."""
    pairs = zip(a, b, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
