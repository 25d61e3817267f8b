"""A sample put to a compiled artifact in one of three settings, as a line of the results.

    query-agnostic   the text is read before the question is known; evictions look for what the
                     artifact's own catalyst says
    recall           the same reading; evictions write to an archive what they drop, and the
                     question calls back from there what it asks for
    query-aware      the question stands before the text, and is the catalyst where the policy
                     reads one

The last one does not compare with the others: what is known while reading decides what can survive.
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

    def __init__(self, session: Session, *, archive: bool = False) -> None:
        """`archive`: setting recall will be asked for, where the artifact can."""
        self.session, self._archive = session, archive and bool(session.manifest.archive)
        self._shared = SharedBeginning(session, archive=self._archive)

    def encode(self, text: str) -> list[int]:
        """Token ids, without special ones."""
        return self.session.encode(text)

    def ask(
        self, sample: Sample, setting: Setting, *, chat: bool, kept_map: bool = False
    ) -> dict[str, Any]:
        """Read, ask and score; with `kept_map`, `kept` is the page of `evaluate.kept`."""
        aware, recall = setting == "query-aware", setting == "recall"
        if recall and not self._archive:
            self.session.reset()
            self._shared = SharedBeginning(self.session, archive=True)  # or says why not
            self._archive = True
        if aware:
            sample = question_first(sample, lambda text: len(self.encode(text)))
        how: dict[str, Any] = {"chat": chat, "recall": recall, "shared": self._shared}
        how["view"] = "question" if aware and self.session.reads_catalyst else "generic"
        if not kept_map:
            return _line(ask(self.session, sample, **how).to_dict())
        watch = KeptWatch(self.session)
        if recall:  # before and after it; the cycles are those of the other map
            how |= {"when_read": watch.look, "when_asked": watch.look_back}
            outcome = ask(self.session, sample, **how)
        else:
            with watch:
                outcome = ask(self.session, sample, when_read=watch.end, anew=True, **how)
        before, _ = user_turn(self.session, raw=not chat)
        page = watch.page(before + sample.context, sample.answers) | {"recall": recall}
        return _line(outcome.to_dict()) | {"kept": page}

    def perplexity(self, ids: list[int]) -> dict[str, Any]:
        """Read a text in an empty session, and note its negative log likelihood.

        The special tokens that begin a text are read, too, and do not count.
        """
        self._shared.forget()
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
    """The setting says what the view was; where there was no recall, nothing is said of it."""
    silent = {"view", "found"} | {
        name for name in ("recalled", "recall_seconds") if outcome[name] is None
    }
    return {name: value for name, value in outcome.items() if name not in silent}


Opener = Callable[..., Asker]  # Subject -> what asks it
