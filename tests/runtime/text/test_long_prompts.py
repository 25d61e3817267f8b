"""A prompt with a text in it: what its reading evicts comes back for the question at its end."""

from pathlib import Path

import numpy as np

import lcc.runtime
from lcc.runtime import Session
from lcc.runtime.text.writing import GREEDY

TEXT = "".join(f"Sentence {n} says {'so ' * (n % 7)}much. " for n in range(30))
QUESTION = "What does sentence 3 say?"


def answer(session: Session, prompt: list[int] | None, **options: int) -> list[int]:
    how = {"eos": [], "max_new_tokens": 1, **GREEDY} | options
    return list(session.generate_ids(prompt, **how))  # type: ignore[arg-type]


def test_a_long_prompt_is_a_text_and_a_question(tiny_artifact: Path, tmp_path: Path) -> None:
    sessions = [lcc.runtime.open(tiny_artifact, archive=tmp_path / name) for name in "ab"]
    ids = sessions[0].encode(TEXT + QUESTION)
    room = 128 - 32 - 64  # slots behind the budget that are not the catalyst's
    sessions[0].feed(ids[:-room], prefix=False)
    wanted = answer(sessions[0], ids[-room:])
    assert answer(sessions[1], ids) == wanted
    first, second = (session.stats() for session in sessions)
    assert first.recalls == second.recalls == 1
    assert first.recalled == second.recalled != 0
    assert second.prefill_tokens == first.prefill_tokens == len(ids)
    kept = [session.kept_tokens(1) for session in sessions]
    np.testing.assert_array_equal(*kept)
    assert kept[1][0, -room:].tolist() == [*range(len(ids) - room, len(ids))], "all of its end"
    assert answer(sessions[0], None, max_new_tokens=6) == answer(
        sessions[1], None, max_new_tokens=6
    )


def test_a_short_prompt_is_read_whole_behind_its_recall(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    session = lcc.runtime.open(tiny_artifact, archive=tmp_path / "a")
    session.feed(TEXT)
    before, question = session.tokens, session.encode("And 3?")
    answer(session, question)
    assert session.stats().recalls == 1
    assert session.kept_tokens(1)[0, -6:].tolist() == [*range(before, before + 6)]
    session.reset()
    session.feed(TEXT)
    answer(session, session.encode(TEXT), recall=False)
    assert session.stats().recalls == 0
