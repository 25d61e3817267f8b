"""What texts have in common is read once, and nothing else changes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import lcc.runtime
from lcc.measure.evaluate import shared_beginning
from lcc.measure.evaluate.run import Outcome, ask
from lcc.measure.evaluate.sample import Sample, evenly
from lcc.measure.evaluate.shared_beginning import SharedBeginning
from lcc.runtime import Session
from lcc.runtime.core.executor import Cycle

NOISE = "The grass is green. The sky is blue. "


def sample(depth: float, noise: str = NOISE, count: int = 40) -> Sample:
    sentences = [f"{number} {noise}" for number in range(count)]
    sentences.insert(round(count * depth / 100), f"The key is {depth:.0f}. ")
    return Sample(
        context="".join(sentences),
        question="What is the key?",
        task="What key?",
        answer_prefix="The key is",
        answers=(f"{depth:.0f}",),
        depth=depth,
        tokens=0,
        max_new_tokens=6,
    )


@pytest.fixture
def session(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.setattr(shared_beginning, "WORTH", 100)
    monkeypatch.setattr(shared_beginning, "ALIKE", 40)
    return lcc.runtime.open(tiny_artifact)


def count_tokens(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each step reads from now on."""
    counts: list[int] = []
    read = session._executor.read

    def counted(ids: list[int]) -> None:
        counts.append(len(ids))
        read(ids)

    monkeypatch.setattr(session._executor, "read", counted)
    return counts


def held(session: Session, outcome: Outcome) -> list[np.ndarray]:
    """All that a text and its question left in the session, and what was reported, but times."""
    fields = dataclasses.asdict(outcome)
    told = [str(fields[name]) for name in ("answer", "cycles", "score", "depth", "view")]
    entries = [session.kept_tokens(i) for i in range(2)]
    return [np.array(told), *entries, session.next_logits().copy()]


@pytest.mark.parametrize("view", ["generic", "question"])
@pytest.mark.parametrize("archive", [False, True])
def test_the_same_is_held_as_of_a_text_read_whole(
    session: Session, monkeypatch: pytest.MonkeyPatch, view: str, archive: bool
) -> None:
    samples = [sample(depth) for depth in evenly(5)]
    samples.insert(3, sample(50, "Other noise, and more of it. "))
    whole = [held(session, ask(session, each, view=view)) for each in samples]  # type: ignore[arg-type]
    session.reset()
    shared, read = SharedBeginning(session, archive=archive), []
    counts = count_tokens(session, monkeypatch)
    for each, wanted in zip(samples, whole, strict=True):
        counts.clear()
        outcome = ask(session, each, view=view, shared=shared)  # type: ignore[arg-type]
        read.append(sum(counts) / len(each.context))
        for got, want in zip(held(session, outcome), wanted, strict=True):
            np.testing.assert_array_equal(got, want)
        assert outcome.read_seconds > outcome.cycle_seconds > 0
    # An archive is of one text: after another one, what was kept of it is of no use.
    last = [True, True] if archive else [False, False]
    assert [share > 0.99 for share in read] == [True, True, False, True, *last]
    assert min(read) < (0.8 if archive else 0.6)


def test_no_state_is_kept_behind_the_last_cycle(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at the end of its text, which is not that of the next."""
    executor, evict = session._executor, session._executor.evict

    def other_where_it_is_the_last(catalyst: list[int], left: int = -1) -> Cycle:
        executor.protected = 0 if left < 0 else 30
        return evict(catalyst, left)

    monkeypatch.setattr(executor, "evict", other_where_it_is_the_last)
    monkeypatch.setattr(shared_beginning, "MARGIN", 0)
    # Its last cycle is behind 576 tokens of 607; up to 592, 19 sentences begin as 15 do.
    short, longer = (
        dataclasses.replace(each, context=f"# {each.context}")
        for each in (sample(98, count=15), sample(98, count=19))
    )
    wanted = held(session, ask(session, longer))
    shared = SharedBeginning(session)
    for _ in range(2):
        ask(session, short, shared=shared)
    for got, want in zip(held(session, ask(session, longer, shared=shared)), wanted, strict=True):
        np.testing.assert_array_equal(got, want)


def test_another_catalyst_is_another_state(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What evictions look for decides what is left of the text that is shared."""
    shared, samples = SharedBeginning(session), [sample(depth) for depth in (60, 70, 80)]
    for each in samples[:2]:
        ask(session, each, shared=shared)
    counts = count_tokens(session, monkeypatch)
    ask(session, samples[2], view="question", shared=shared)
    assert sum(counts) > len(samples[2].context)
