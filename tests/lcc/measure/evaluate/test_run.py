"""Asking samples: what the session reads, in which view, and what is reported."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

import lcc.runtime
from lcc.errors import ConfigError
from lcc.measure.evaluate.run import ask, run
from lcc.measure.evaluate.sample import Sample
from lcc.measure.evaluate.turn import user_turn
from lcc.runtime import Session

SAMPLE = Sample(
    context="The key is 7. " * 40,
    question="What is the key?",
    task="What key?",
    answer_prefix="The key is",
    answers=("7",),
    depth=50,
    tokens=560,
)
OWN = list(b"What matters?")  # the artifact's own catalyst


@pytest.fixture
def session(tiny_artifact: Path) -> Session:
    return lcc.runtime.open(tiny_artifact)


def watch(session: Session, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """Record what the session is given to read, and the catalyst at that time."""
    seen: list[tuple[str, object]] = []
    feed = Session.feed

    def recorded(self: Session, text: str, **options: object) -> int:
        seen.append((text, self.catalyst))
        return feed(self, text, **options)

    monkeypatch.setattr(Session, "feed", recorded)
    return seen


@pytest.mark.parametrize(
    ("view", "catalyst"),
    [("generic", OWN), ("task", "What key?"), ("question", "What is the key?")],
)
def test_views(
    session: Session, monkeypatch: pytest.MonkeyPatch, view: str, catalyst: object
) -> None:
    seen = watch(session, monkeypatch)
    outcome = ask(session, SAMPLE, view=view)  # type: ignore[arg-type]
    assert seen[0] == (SAMPLE.context, catalyst)
    assert session.catalyst == OWN, "the artifact's own is put back"
    assert (outcome.view, outcome.depth, outcome.tokens) == (view, 50, 560)
    assert outcome.cycles > 5
    assert outcome.read_seconds > outcome.cycle_seconds > 0


def test_samples_are_apart(session: Session) -> None:
    first, second = run(session, [SAMPLE, SAMPLE])
    assert first.answer == second.answer
    assert first.cycles == second.cycles


def test_the_answer_is_greedy_whatever_the_model_says(session: Session) -> None:
    expected = ask(session, SAMPLE, max_new_tokens=8).answer
    says = {"do_sample": True, "temperature": 50.0, "repetition_penalty": 3.0}
    session.tokenizer.generation_config |= says
    assert ask(session, SAMPLE, max_new_tokens=8).answer == expected


def test_score(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def generate(self: Session, prompt: str, max_new_tokens: int, **how: float) -> Iterator[str]:
        assert how == {"temperature": 0, "repetition_penalty": 1, "recall": False}
        asked.append((prompt, max_new_tokens))
        return iter([" ", "7", "."])

    monkeypatch.setattr(Session, "generate", generate)
    told: list[object] = []
    (outcome,) = run(session, [SAMPLE], max_new_tokens=5, progress=told.append)
    assert asked == [("\nWhat is the key? The key is", 5)]
    assert (outcome.answer, outcome.score, outcome.found) == (" 7", 1, True), "no more is needed"
    assert told == [outcome]
    assert outcome.to_dict()["found"] is True
    by_words = dataclasses.replace(SAMPLE, metric="f1")
    assert ask(session, by_words).answer == " 7.", "the rest of it counts"


def test_question_without_a_prefix(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def generate(self: Session, prompt: str, max_new_tokens: int, **how: float) -> Iterator[str]:
        asked.append(prompt)
        return iter([])

    monkeypatch.setattr(Session, "generate", generate)
    bare = dataclasses.replace(SAMPLE, answer_prefix="")
    run(session, [bare])
    ask(session, bare, chat=True)
    after = "<|im_end|>\n<|im_start|>assistant\n"
    assert asked == [bare.asked, f"\nWhat is the key?{after}"]
    assert asked[0] == "\nWhat is the key?"


def test_chat_template(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch(session, monkeypatch)
    ask(session, SAMPLE, chat=True)
    assert seen[0][0] == f"<|im_start|>user\n{SAMPLE.context}"
    after = "<|im_end|>\n<|im_start|>assistant\n"
    assert user_turn(session) == ("<|im_start|>user\n", after)
    assert user_turn(session, raw=True) == ("", "")
    for template, found in ((None, ("", "\n")), ("{% for %}", None), ("nothing", None)):
        monkeypatch.setattr(session.tokenizer, "_template", template)
        if found is not None:
            assert user_turn(session) == found
            continue
        with pytest.raises(ConfigError, match="chat template: "):
            user_turn(session)


def test_view_needs_a_catalyst(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session._executor, "reads_catalyst", False)
    with pytest.raises(ConfigError, match="view is 'task', but policy 'consensus' reads no"):
        ask(session, SAMPLE, view="task")
