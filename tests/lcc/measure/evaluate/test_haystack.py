"""Texts of the user as sentences."""

import random
from pathlib import Path

import pytest

from lcc.errors import LccError
from lcc.measure.evaluate.haystack import (
    LONGEST,
    from_anywhere,
    joined,
    read_haystack,
    split_sentences,
)


def test_read_haystack(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("Third! Is it?\nYes. 3.5 is no end.")
    (tmp_path / "a.txt").write_text("First one.\n\n  Second\tone.")
    (tmp_path / "c.md").write_text("Not read.")
    expected = ["First one.", "Second one.", "Third!", "Is it?", "Yes.", "3.5 is no end."]
    assert read_haystack(tmp_path) == expected
    assert split_sentences(" One. ") == ["One."]


def test_sentences_without_spaces_between_them() -> None:
    assert split_sentences("第一句。第二句！ 第三句？") == ["第一句。", "第二句！", "第三句？"]
    text = "他说：“你好。”她笑了。真的？！是的。。。好！"
    assert split_sentences(text) == ["他说：“你好。”她笑了。", "真的？！", "是的。。。", "好！"]
    assert joined(split_sentences(text)) == text
    assert joined(["One.", "Two."]) == "One. Two. "


def test_what_has_no_sentences_is_cut_between_words() -> None:
    log = " ".join(f"2026-11-27 12:{minute % 60} read {minute} rows" for minute in range(500))
    pieces = split_sentences(f"It begins. {log}\nIt ends!")
    assert pieces[0] == "It begins."
    assert all(LONGEST - 40 < len(piece) <= LONGEST for piece in pieces[1:-1])
    assert " ".join(pieces) == f"It begins. {log} It ends!"
    assert [len(piece) for piece in split_sentences("x" * 2500)] == [1000, 1000, 500]


def test_no_text(tmp_path: Path) -> None:
    with pytest.raises(LccError, match="no text found"):
        read_haystack(tmp_path)


def test_from_anywhere() -> None:
    turned = from_anywhere(random.Random(3), ["a", "b", "c"])
    assert turned in (["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"])
    starts = {from_anywhere(random.Random(seed), ["a", "b", "c"])[0] for seed in range(9)}
    assert starts == {"a", "b", "c"}
