"""Samples put to a session, and how many it answers.

The text is read before the question is known, as in any use of a distilled context. What the
evictions look for meanwhile is the *view*, and results of different views do not compare:

    generic     the artifact's own catalyst: nothing is known of the question
    task        a sentence that names the kind of thing wanted, but not which one
    question    the question itself
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lcc.errors import ConfigError, LccError
from lcc.measure.evaluate.catalog import score, settled
from lcc.measure.evaluate.sample import Sample
from lcc.measure.evaluate.shared_beginning import SharedBeginning, measured
from lcc.measure.evaluate.turn import asked, user_turn

if TYPE_CHECKING:
    from lcc.runtime.session import Session
    from lcc.runtime.stats import Stats

View = Literal["generic", "task", "question"]
VIEWS: tuple[View, ...] = ("generic", "task", "question")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one sample.

    score           0 to 1, by the task's own measure
    answer          the model's words, without the prefix that was put into its mouth, until
                    nothing after them could change the score
    read_seconds    reading the text, cycles included
    cycle_seconds   of them, in cycles
    recalled        entries that the question called back; None = there was no recall
    recall_seconds  that it took
    """

    view: View
    depth: float | None
    tokens: int
    score: float
    answer: str
    wanted: tuple[str, ...]
    cycles: int
    read_seconds: float
    cycle_seconds: float
    recalled: int | None = None
    recall_seconds: float | None = None

    @property
    def found(self) -> bool:
        """Everything wanted is in the answer."""
        return self.score == 1

    def to_dict(self) -> dict:
        """Every field by name, for JSON."""
        return dataclasses.asdict(self) | {"found": self.found}


def ask(
    session: Session,
    sample: Sample,
    *,
    view: View = "generic",
    chat: bool = False,
    max_new_tokens: int | None = None,
    recall: bool = False,
    when_read: Callable[[], object] | None = None,
    when_asked: Callable[[], object] | None = None,
    shared: SharedBeginning | None = None,
    anew: bool = False,
) -> Outcome:
    """Read one sample's text in an empty session, ask, and score the answer.

    Args:
        session: is reset first; its catalyst is put back at the end.
        sample: what to read and to ask.
        view: what the evictions look for. A policy without catalyst has the generic view only. Of
            a question that is longer than the artifact's catalyst_size its end is used.
        chat: put text and question into the model's chat template. RULER does so for chat models;
            very small ones answer better without.
        max_new_tokens: length of the answer; None = what the sample says.
        recall: the question calls back what it asks for from the session's archive.
        when_read: called between the text and the question.
        when_asked: called behind the question.
        shared: of this session; reads what the text has in common with the one before only once.
        anew: as `SharedBeginning.read`.

    Raises:
        ConfigError: another view than the policy has.
        LccError: the archive does not have all of the text.
    """
    if view != "generic" and not session.reads_catalyst:
        raise ConfigError(
            f"view is {view!r}, but policy {session.manifest.policy.name!r} reads no catalyst; "
            "wanted generic"
        )
    from lcc.runtime.text.writing import GREEDY

    own = session.catalyst
    if view != "generic":
        session.catalyst = _shortened(session, sample.task if view == "task" else sample.question)
    try:
        before, after = user_turn(session, raw=not chat)
        text = before + sample.context
        if shared is not None:
            cost = shared.read(text, prefix=not before, depth=sample.depth, anew=anew)
        else:
            session.reset()
            cost = measured(session, lambda: session.feed(text, prefix=not before, last=True))
        question = asked(sample, after)
        if when_read is not None:
            when_read()
        limit = sample.max_new_tokens if max_new_tokens is None else max_new_tokens
        known = session.stats()
        said = session.generate(question, max_new_tokens=limit, recall=recall, **GREEDY)
        answer = next(said, "")
        if when_asked is not None:
            when_asked()
        while not settled(answer, sample) and (piece := next(said, "")):
            answer += piece
        back = _called_back(known, session.stats()) if recall else {}
    finally:
        if view != "generic":
            session.catalyst = own
    return Outcome(
        view=view,
        depth=sample.depth,
        tokens=sample.tokens,
        score=score(answer, sample),
        answer=answer,
        wanted=sample.answers,
        cycles=cost.cycles,
        read_seconds=cost.seconds,
        cycle_seconds=cost.cycle_seconds,
        **back,
    )


def _called_back(before: Stats, after: Stats) -> dict[str, Any]:
    """What a recall between these moments did; nothing where there was none."""
    if after.archive_stopped is not None:
        raise LccError(f"the archive lacks a part of the text: {after.archive_stopped}")
    if after.recalls == before.recalls:
        return {}
    seconds = after.recall_seconds - before.recall_seconds
    return {"recalled": after.recalled, "recall_seconds": seconds}


def _shortened(session: Session, catalyst: str) -> str | list[int]:
    ids, limit = session.encode(catalyst), session.manifest.cache.catalyst_size
    return catalyst if len(ids) <= limit else ids[-limit:]


def run(
    session: Session,
    samples: Iterable[Sample],
    *,
    view: View = "generic",
    chat: bool = False,
    max_new_tokens: int | None = None,
    progress: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Ask one sample after the other; `progress` gets each outcome as it comes."""
    outcomes = []
    for sample in samples:
        outcome = ask(session, sample, view=view, chat=chat, max_new_tokens=max_new_tokens)
        outcomes.append(outcome)
        if progress is not None:
            progress(outcome)
    return outcomes
