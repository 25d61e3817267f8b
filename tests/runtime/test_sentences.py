"""Sentences told from token ids, and the beginning of a text as its own catalyst."""

import numpy as np
import pytest

from lcc.runtime.sentences import LONGEST, Sentences
from lcc.testing.tiny import VOCAB_SIZE, tiny_tokenizer


class Bytes:
    """As much of a tokenizer as `Sentences` asks for: token id = byte."""

    def vocabulary(self, size: int) -> list[str]:
        return [tiny_tokenizer().decode([i], skip_special_tokens=False) for i in range(size)]


@pytest.fixture(scope="module")
def sentences() -> Sentences:
    return Sentences(Bytes(), VOCAB_SIZE)


def test_a_sentence_ends_after_its_mark(sentences: Sentences) -> None:
    starts = sentences.starts(list(b"Hi. You?\nNo"), first=10, previous=None, start=0)
    assert starts.tolist() == [10] * 3 + [13] * 5 + [18] + [19] * 2


def test_parts_of_any_size_give_the_same(sentences: Sentences) -> None:
    ids = list(b"One two. Three! And then a long one without any mark" * 4)
    whole = sentences.starts(ids, 0, None, 0)
    parts, start, previous = [], 0, None
    for i in range(0, len(ids), 7):
        part = sentences.starts(ids[i : i + 7], i, previous, start)
        parts.append(part)
        start, previous = int(part[-1]), ids[i : i + 7][-1]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_text_without_marks_is_cut(sentences: Sentences) -> None:
    starts = sentences.starts([65] * 200, 0, None, 0)
    assert sorted({int(s) for s in starts}) == [0, LONGEST, 2 * LONGEST, 3 * LONGEST]


def test_the_beginning_is_the_catalyst(make_session) -> None:
    session = make_session(queries="catalyst")
    session.catalyst = "beginning"
    asked = []
    evict = session._executor.evict
    session._executor.evict = lambda ids, left: (asked.append(list(ids)), evict(ids, left))[1]
    session.feed([7, 8, 9] + [5] * 60)
    limit = session._executor.config.catalyst_size
    wanted = (session.encode("\n\n") + session._executor.beginning)[:limit]
    assert asked
    assert all(ids == wanted for ids in asked)
    assert session._executor.beginning[:3] == [7, 8, 9]
    assert len(session._executor.beginning) == 32
