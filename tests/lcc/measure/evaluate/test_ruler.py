"""RULER's tasks: wording, counts and structure as published."""

import math
import re
from collections import Counter

import pytest

from lcc.errors import LccError
from lcc.measure.evaluate.haystack import NOISE
from lcc.measure.evaluate.sample import Sample
from lcc.measure.evaluate.tasks import TASKS
from lcc.measure.evaluate.tasks.ruler_niah import DEPTHS
from lcc.measure.evaluate.tasks.words import distinct, word_list

NEEDLE = re.compile(r"One of the special magic (numbers|uuids) for (\S+) is: (\S+)\.")
UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def words(text: str) -> int:
    return len(text.split())


def make(name: str, haystack: list[str], length: int = 900, depth: float = 50) -> Sample:
    return TASKS[name].make(words, length, depth, 7, haystack)


def needles(sample: Sample) -> dict[str, list[str]]:
    """Key -> values, in the order of the text."""
    found: dict[str, list[str]] = {}
    for _, key, value in NEEDLE.findall(sample.context):
        found.setdefault(key, []).append(value)
    return found


def test_one_number_in_noise_by_hand() -> None:
    """Length 280: 128 to answer, 13 + 12 asked, so 127 of text: 23 + 10 + 4 lines of 19."""
    sample = make("niah_single_1", [], length=280, depth=75)
    ((key, (value,)),) = needles(sample).items()
    assert re.fullmatch("[1-9][0-9]{6}", value)
    adjective = next(a for a in word_list("adjective") if key.startswith(f"{a}-"))
    assert key.removeprefix(f"{adjective}-") in word_list("noun")
    assert sample.context.split("\n") == [
        "A special magic number is hidden within the following text. Make sure to memorize it. "
        "I will quiz you about the number afterwards.",
        NOISE,
        NOISE,
        NOISE,
        f"One of the special magic numbers for {key} is: {value}.",
        NOISE,
    ]
    assert sample.question == (
        f"What is the special magic number for {key} mentioned in the provided text?"
    )
    assert sample.task == "What is the special magic number mentioned in the provided text?"
    assert sample.answer_prefix == (
        f"The special magic number for {key} mentioned in the provided text is"
    )
    assert sample.asked == f"\n{sample.question} {sample.answer_prefix}"
    assert (sample.answers, sample.metric, sample.max_new_tokens) == ((value,), "all", 128)


def test_a_number_in_sentences(haystack: list[str]) -> None:
    sample = make("niah_single_2", haystack)
    ((key, (value,)),) = needles(sample).items()
    body = sample.context.partition("\n")[2]
    rest = body.replace(f"One of the special magic numbers for {key} is: {value}. ", "")
    first = haystack.index(next(s for s in haystack if rest.startswith(f"{s} ")))
    turned = " ".join(haystack[first:] + haystack[:first])
    assert rest.startswith(turned)
    assert first > 0, "somewhere in the haystack, by the seed"


def test_a_uuid(haystack: list[str]) -> None:
    sample = make("niah_single_3", haystack)
    ((key, (value,)),) = needles(sample).items()
    assert re.fullmatch(UUID, value)
    assert sample.context.startswith("A special magic uuid is hidden")
    assert f"special magic uuids for {key} is: {value}." in sample.context
    assert sample.question.startswith(f"What is the special magic uuid for {key} ")


def test_four_numbers_and_one_is_asked(haystack: list[str]) -> None:
    sample = make("niah_multikey_1", haystack, depth=33)
    found = needles(sample)
    assert len(found) == 4
    (asked,) = re.findall(r"number for (\S+) mentioned", sample.question)
    assert found[asked] == list(sample.answers)
    assert sample.depth == 33
    assert len(DEPTHS) == 40
    assert DEPTHS[:3] == [0, 3, 5]
    assert DEPTHS[-1] == 100


@pytest.mark.parametrize(
    ("name", "key"), [("niah_multikey_2", r"\S+-\S+"), ("niah_multikey_3", UUID)]
)
def test_nothing_but_needles(name: str, key: str) -> None:
    sample = make(name, [], length=2000)
    _, *lines = sample.context.split("\n")
    assert all(NEEDLE.fullmatch(line) for line in lines)
    assert len(lines) > 150
    found = needles(sample)
    assert all(re.fullmatch(key, each) for each in found)
    (asked,) = re.findall(r"for (\S+) mentioned", sample.question)
    assert found[asked] == list(sample.answers)
    assert lines.index(next(line for line in lines if asked in line)) == (len(lines) - 1) // 2


def test_four_values(haystack: list[str]) -> None:
    sample = make("niah_multivalue", haystack)
    ((key, values),) = needles(sample).items()
    assert sorted(values) == sorted(sample.answers)
    assert len(set(values)) == 4
    assert sample.context.startswith(
        "Some special magic numbers are hidden within the following text. Make sure to memorize "
        "it. I will quiz you about the numbers afterwards.\n"
    )
    assert sample.question == (
        f"What are all the special magic numbers for {key} mentioned in the provided text?"
    )
    assert sample.answer_prefix == (
        f"The special magic numbers for {key} mentioned in the provided text are"
    )
    assert sample.depth is None


def test_four_queries(haystack: list[str]) -> None:
    sample = make("niah_multiquery", haystack)
    found = needles(sample)
    assert len(found) == 4
    (query,) = re.findall("numbers for (.*) mentioned", sample.question)
    a, b, c, d = query.replace(", and ", ", ").split(", ")
    assert query == f"{a}, {b}, {c}, and {d}"
    assert sample.answers == tuple(found[key][0] for key in (a, b, c, d))


def test_variables() -> None:
    sample = make("vt", [], length=1500)
    example, rest = sample.context.split("\n\nMemorize")
    assert example.startswith(
        "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
    )
    for text, letters, asked in ((example, 3, example), (rest, 5, sample.asked)):
        (first, value), *_ = re.findall(r"^VAR ([A-Z]+) = (\d{5})$", text, re.M)
        chain = [first]
        for name, before in re.findall(r"^VAR ([A-Z]+) = VAR ([A-Z]+) $", text, re.M):
            assert before == chain[-1], "each from the one before, in order"
            chain.append(name)
        assert [len(name) for name in chain] == [letters] * 5
        assert (
            f"Question: Find all variables that are assigned the value {value} in the text above. "
            "Answer: According to the chain(s) of variable assignment in the text above, "
            f"5 variables are assigned the value {value}, they are: " in asked
        )
        if text is example:
            assert example.endswith(f"they are:  {' '.join(chain)}\n"[:-1])
    assert sample.answers == tuple(chain)
    assert words(example) <= 500 + 5
    assert {line for line in rest.split("\n")[2:] if not line.startswith("VAR")} == {NOISE}
    assert sample.max_new_tokens == 30


@pytest.mark.parametrize(("length", "often", "seldom", "few"), [(2000, 6, 1, 3), (6000, 30, 3, 10)])
def test_common_words(length: int, often: int, seldom: int, few: int) -> None:
    sample = make("cwe", [], length=length)
    example, listed = sample.context.split("\nBelow is a numbered list of words.")
    said = " ".join(listed.split("\n")[1:])
    numbered = re.findall(r"(\d+)\. (.*?)(?= \d+\. |$)", said)
    assert [int(place) for place, _ in numbered] == list(range(1, len(numbered) + 1))
    counted = Counter(word for _, word in numbered)
    assert sorted(set(counted.values())) == [seldom, often]
    assert sorted(sample.answers) == sorted(w for w, n in counted.items() if n == often)
    assert len(sample.answers) == 10
    assert listed.startswith(
        " In these words, some appear more often than others. "
        "Memorize the ones that appear most often.\n1. "
    )
    asked = (
        "Question: What are the 10 most common words in the above list? "
        "Answer: The top 10 words that appear most often in the list are:"
    )
    assert sample.asked == f"\n{asked}"
    shown, solved = example.split(f"\n{asked} ")
    first = re.match(r"1\. (.*?) 2\. ", solved)[1]
    assert len(re.findall(rf"\d+\. {re.escape(first)}(?= \d|$)", shown)) == few
    assert sample.max_new_tokens == 120


def test_common_words_go_on_where_the_list_ends() -> None:
    """A word three times is six here, of which two are its number and itself."""
    known = word_list("noun", "adjective", "verb")
    for more in (-100, 100):
        sample = make("cwe", [], length=6 * len(known) + 6 * more + 1200)
        listed = sample.context.split("\n")[-1]
        counted = Counter(re.findall(r"\d+\. (.*?)(?= \d+\. |$)", listed))
        assert set(counted.values()) == {3, 30}
        assert abs(len(counted) - len(known) - more) < 90
        assert (counted.keys() <= set(known)) == (more < 0), "pairs only where words do not suffice"


def test_frequent_words() -> None:
    """Length 5050 is (5050 - 50) // 50 = 100 words; the k-th a share of 6 / (pi k)^2."""
    sample = make("fwe", [], length=5050)
    assert sample.context.startswith(
        "Read the following coded text and track the frequency of each coded word. "
        "Find the three most frequently appeared coded words. "
    )
    coded = sample.context.split("coded words. ")[1].split(" ")
    counted = Counter(coded).most_common()
    assert counted[0][0] == "..."
    assert tuple(word for word, _ in counted[1:4]) == sample.answers
    assert all(re.fullmatch("[a-z]{6}", word) for word, _ in counted[1:])
    for rank, (_, times) in enumerate(counted, start=1):
        assert times == pytest.approx(len(coded) * 6 / (math.pi * rank) ** 2, rel=0.05, abs=1)
    assert sample.asked == (
        "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the "
        "three most frequently appeared words in the above coded text? Answer: According to the "
        "coded text above, the three most frequently appeared words are:"
    )


def test_frequent_words_of_a_short_text_have_no_ties() -> None:
    for length in range(170, 700, 7):
        sample = make("fwe", [], length=length)
        counted = Counter(sample.context.split("coded words. ")[1].split(" ")).most_common()
        assert {word for word, _ in counted[1:4]} == set(sample.answers), length
        assert counted[3][1] > counted[4][1], length
    with pytest.raises(LccError, match="wanted"):
        make("fwe", [], length=150)


def test_distinct() -> None:
    letters = iter("abacbad")
    assert distinct(lambda: next(letters), 3, unlike=("a",)) == ["b", "c", "d"]
