"""A sample put to a compiled artifact in one of the two settings, as a line of the results.

    query-agnostic   the text is read before the question is known; evictions look for what the
                     artifact's own catalyst says
    query-aware      the question stands before the text, and is the catalyst where the policy
                     reads one

The two do not compare: what is known while reading decides what can survive.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lcc.measure.evaluate.grid import Setting
from lcc.measure.evaluate.kept import KeptWatch
from lcc.measure.evaluate.perplexity import by_position
from lcc.measure.evaluate.run import ask
from lcc.measure.evaluate.sample import Sample, question_first
from lcc.measure.evaluate.shared_beginning import SharedBeginning
from lcc.measure.evaluate.turn import user_turn

if TYPE_CHECKING:
    from lcc.runtime.session import Session

END = 512  # tokens whose perplexity is the score


class Asker(Protocol):
    """Whatever can be asked."""

    @property
    def window(self) -> int | None:
        """The longest text it was made for, in tokens; None = any length."""

    def encode(self, text: str) -> list[int]:
        """Token ids, without special ones."""

    def ask(
        self, sample: Sample, setting: Setting, *, chat: bool, kept_map: bool = False
    ) -> dict[str, Any]:
        """Score, answer and times of a sample."""

    def perplexity(self, ids: list[int]) -> dict[str, Any]:
        """Nats a token at the end of a text, and by position, with times."""


class SessionAsker:
    """Asks a session of the runtime."""

    window: int | None = None

    def __init__(self, session: Session) -> None:
        self.session = session
        self._shared = SharedBeginning(session)

    def encode(self, text: str) -> list[int]:
        """Token ids, without special ones."""
        return self.session.encode(text)

    def ask(
        self, sample: Sample, setting: Setting, *, chat: bool, kept_map: bool = False
    ) -> dict[str, Any]:
        """Read, ask and score; with `kept_map`, `kept` is the page of `evaluate.kept`."""
        aware = setting == "query-aware"
        if aware:
            sample = question_first(sample, lambda text: len(self.encode(text)))
        view: Any = "question" if aware and self.session.reads_catalyst else "generic"
        if not kept_map:
            outcome = ask(self.session, sample, view=view, chat=chat, shared=self._shared)
            return _line(outcome.to_dict())
        with KeptWatch(self.session) as watch:
            outcome = ask(self.session, sample, view=view, chat=chat, when_read=watch.end)
        before, _ = user_turn(self.session, raw=not chat)
        page = watch.page(before + sample.context, sample.answers)
        return _line(outcome.to_dict()) | {"kept": page}

    def perplexity(self, ids: list[int]) -> dict[str, Any]:
        """Read a text in an empty session, and note its negative log likelihood.

        The special tokens that begin a text are read, too, and do not count.
        """
        self.session.reset()
        prefix = self.session.manifest.text.prefix
        start = time.perf_counter()
        nats = self.session.nll([*prefix, *ids])[len(prefix) :]
        line = perplexity_line(nats, time.perf_counter() - start)
        return line | {"cycles": self.session.stats().cycles}


def perplexity_line(nats: np.ndarray, seconds: float) -> dict[str, Any]:
    """[n] float32, nats of each token of a text -> what a line of the results says of it."""
    end = nats[1:][-END:]
    return {
        "score": float(end.mean(dtype=np.float64)),
        "by_position": by_position(nats),
        "tokens": len(nats),
        "read_seconds": seconds,
    }


def _line(outcome: dict[str, Any]) -> dict[str, Any]:
    """The setting says what the view was."""
    return {name: value for name, value in outcome.items() if name not in ("view", "found")}


Opener = Callable[..., Asker]  # Subject -> what asks it
