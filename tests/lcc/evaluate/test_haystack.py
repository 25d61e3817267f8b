"""Texts of the user as sentences."""

import random
from pathlib import Path

import pytest

from lcc.errors import LccError
from lcc.evaluate.haystack import from_anywhere, read_haystack, split_sentences


def test_read_haystack(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("Third! Is it?\nYes. 3.5 is no end.")
    (tmp_path / "a.txt").write_text("First one.\n\n  Second\tone.")
    (tmp_path / "c.md").write_text("Not read.")
    expected = ["First one.", "Second one.", "Third!", "Is it?", "Yes.", "3.5 is no end."]
    assert read_haystack(tmp_path) == expected
    assert split_sentences(" One. ") == ["One."]


def test_no_text(tmp_path: Path) -> None:
    with pytest.raises(LccError, match="no text found"):
        read_haystack(tmp_path)


def test_from_anywhere() -> None:
    turned = from_anywhere(random.Random(3), ["a", "b", "c"])
    assert turned in (["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"])
    starts = {from_anywhere(random.Random(seed), ["a", "b", "c"])[0] for seed in range(9)}
    assert starts == {"a", "b", "c"}
