"""Samples: the fact is where it should be, the length is what was asked, the wording is RULER's."""

import re
from pathlib import Path

import pytest

from lcc.errors import LccError
from lcc.evaluate.needle import (
    NOISE,
    evenly,
    key_value,
    magic_number,
    multikey,
    passkey,
    question_first,
    read_haystack,
    split_sentences,
    string_match,
)

HAYSTACK = [f"Sentence {number} says {'so ' * (number % 7)}much." for number in range(90)]


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("length", [*range(60, 100), 500, 20_000])
@pytest.mark.parametrize("depth", [0, 37.5, 100])
def test_length_is_the_longest_that_fits(length: int, depth: float) -> None:
    noise = passkey(words, length, depth, seed=1)
    text = magic_number(words, length, depth, 1, HAYSTACK)
    for sample, longest in ((noise, words(NOISE)), (text, max(map(words, HAYSTACK)))):
        assert sample.tokens == words(sample.context) <= length
        assert sample.tokens > length - longest


@pytest.mark.parametrize("depth", [5, 50, 95])
def test_depth(depth: float) -> None:
    for sample in (
        passkey(words, 5000, depth, seed=2),
        magic_number(words, 5000, depth, 2, HAYSTACK),
    ):
        place = sample.context.index(sample.answers[0]) / len(sample.context)
        assert place == pytest.approx(depth / 100, abs=0.02)
        assert sample.depth == depth


def test_the_ends_are_the_ends() -> None:
    first, last = (magic_number(words, 900, depth, 2, HAYSTACK) for depth in (0, 100))
    assert first.context.split("\n")[1].startswith("One of the special magic numbers for ")
    assert last.context.endswith(f"is: {last.answers[0]}.")


def test_wording_of_ruler() -> None:
    sample = magic_number(words, 300, 50, 7, HAYSTACK)
    (value,) = sample.answers
    assert re.fullmatch("[1-9][0-9]{6}", value)
    (key,) = re.findall(
        rf"One of the special magic numbers for (\S+) is: {value}\.", sample.context
    )
    assert re.fullmatch("[^-].*-.*[^-]", key)
    assert sample.context.startswith(
        "A special magic number is hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the number afterwards.\n"
    )
    assert sample.question == (
        f"What is the special magic number for {key} mentioned in the provided text?"
    )
    assert sample.answer_prefix == (
        f"The special magic number for {key} mentioned in the provided text is"
    )
    assert key not in sample.task


def test_answer_occurs_only_in_the_needle() -> None:
    for seed in range(20):
        sample = magic_number(words, 400, 50, seed, HAYSTACK)
        assert sample.context.count(sample.answers[0]) == 1
        assert sample.answers[0] not in sample.question + sample.task + sample.answer_prefix


def test_seeds() -> None:
    first, same, other = (magic_number(words, 400, 50, seed, HAYSTACK) for seed in (1, 1, 2))
    assert first == same
    assert first.answers != other.answers
    assert first.context.split("\n")[1][:20] != other.context.split("\n")[1][:20]
    assert passkey(words, 400, 50, 1) != passkey(words, 400, 50, 2)


def test_haystack_begins_again_where_it_is_too_short() -> None:
    sample = magic_number(words, 5000, 50, 1, HAYSTACK)
    assert sample.context.count(HAYSTACK[3]) > 1


def test_read_haystack(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("Third! Is it?\nYes. 3.5 is no end.")
    (tmp_path / "a.txt").write_text("First one.\n\n  Second\tone.")
    (tmp_path / "c.md").write_text("Not read.")
    expected = ["First one.", "Second one.", "Third!", "Is it?", "Yes.", "3.5 is no end."]
    assert read_haystack(tmp_path) == expected
    assert split_sentences(" One. ") == ["One."]


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(LccError, match="no text found"):
        read_haystack(tmp_path)
    with pytest.raises(LccError, match="depth is 101"):
        passkey(words, 400, 101, 1)
    with pytest.raises(LccError, match="length is 20 tokens, the needle alone takes 38"):
        passkey(words, 20, 50, 1)


def test_string_match() -> None:
    assert string_match("It is ABC-1, I think", ("abc-1",)) == 1
    assert string_match("It is 12 and 34", ("12", "56")) == 0.5
    assert string_match("1 2 3", ("123",)) == 0


def test_evenly() -> None:
    assert list(evenly(1)) == [50]
    assert list(evenly(4)) == [5, 35, 65, 95]


def test_several_numbers_and_one_is_asked() -> None:
    sample = multikey(words, 900, 50, 7, HAYSTACK)
    needles = re.findall(
        r"One of the special magic numbers for (\S+) is: (\d{7})\.", sample.context
    )
    assert len(dict(needles)) == 4
    (asked,) = re.findall(r"number for (\S+) mentioned", sample.question)
    assert dict(needles)[asked] == sample.answers[0]
    assert sample.context.index(sample.answers[0]) / len(sample.context) == pytest.approx(
        0.5, abs=0.05
    )
    assert sample.tokens == words(sample.context) <= 900


def test_nothing_but_numbers() -> None:
    sample = key_value(words, 900, 25, 3)
    assert 890 <= sample.tokens == words(sample.context) <= 900
    body = sample.context.partition("\n")[2]
    needles = re.findall(r"One of the special magic numbers for (\S+) is: (\d{7})\.", body)
    assert len(needles) == body.count("One of the special") > 70
    (asked,) = re.findall(r"number for (\S+) mentioned", sample.question)
    assert [value for key, value in needles if key == asked] == list(sample.answers)
    first = question_first(sample, words)
    assert first.context == f"{sample.question}\n{sample.context}"
    assert first.answers == sample.answers
    assert first.tokens == words(first.context)


def test_samples_are_the_published_ones() -> None:
    """The figures in docs/fidelity.md are of these samples."""
    sample = magic_number(words, 300, 50, 7, HAYSTACK)
    assert sample.answers == ("2919557",)
    assert sample.context.split("\n")[1].startswith("Sentence 26 says so so")
