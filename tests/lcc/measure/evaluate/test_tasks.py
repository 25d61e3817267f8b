"""What holds for every task: its length, its seeds, its depth, and that the answer is in it."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lcc.errors import LccError
from lcc.measure.evaluate.metrics import METRICS
from lcc.measure.evaluate.sample import Sample, evenly, question_first
from lcc.measure.evaluate.tasks import TASKS
from lcc.measure.evaluate.tasks.fit import drawn, fit, hide, repeated

PLACED = {  # the tasks that ask for one fact, whose depth is given
    *("niah_single_1", "niah_single_2", "niah_single_3"),
    *("niah_multikey_1", "niah_multikey_2", "niah_multikey_3"),
    *("passkey", "number_string", "kv_retrieval", "niah_kamradt"),
}
COUNTED = {"cwe", "fwe"}  # what is asked for occurs often


def words(text: str) -> int:
    return len(text.split())


def make(name: str, haystack: list[str], length: int = 3000, depth: float = 50, seed: int = 1):
    return TASKS[name].make(words, length, depth, seed, haystack)


@pytest.mark.parametrize("name", TASKS)
def test_length_is_the_longest_that_fits(
    name: str, haystack: list[str], bpe: Callable[[str], int]
) -> None:
    for length in (1500, 5000, 8192):
        calls = 0

        def count(text: str) -> int:
            nonlocal calls
            calls += 1
            return bpe(text)

        sample = TASKS[name].make(count, length, 40, 3, haystack)
        assert calls < 16
        assert sample.tokens == bpe(sample.context)
        whole = sample.tokens + bpe(sample.asked) + sample.max_new_tokens
        assert length - 130 < whole <= length, "as near as one line of the longest, two UUIDs"


@pytest.mark.parametrize("name", TASKS)
def test_same_seed_same_sample(name: str, haystack: list[str]) -> None:
    first, same, other = (make(name, haystack, seed=seed) for seed in (1, 1, 2))
    assert first == same
    assert first.context != other.context
    assert name == "niah_kamradt" or first.question + str(first.answers) != other.question + str(
        other.answers
    )


@pytest.mark.parametrize("name", TASKS)
def test_depth(name: str, haystack: list[str]) -> None:
    for depth in (0, 25, 100):
        sample = make(name, haystack, depth=depth)
        if name not in PLACED:
            assert sample.depth is None
            continue
        assert sample.depth == depth
        place = sample.context.index(sample.answers[0]) / len(sample.context)
        assert place == pytest.approx(depth / 100, abs=0.03)


@pytest.mark.parametrize("name", TASKS)
def test_right_answer_scores_and_is_not_given_away(name: str, haystack: list[str]) -> None:
    task = TASKS[name]
    assert task.about
    assert len(task.about) < 80
    for seed in range(5):
        sample = make(name, haystack, seed=seed)
        metric = METRICS[sample.metric]
        right = sample.answers[:1] if sample.metric == "label" else sample.answers
        assert metric(f" {' '.join(right)}", sample.answers) == 1
        assert metric("I do not know", sample.answers) == 0
        assert metric("", sample.answers) == 0
        if not name.startswith("babi_qa"):
            assert not any(answer in sample.asked + sample.task for answer in right)
        if name not in COUNTED and not name.startswith("babi_qa"):
            assert all(0 < sample.context.count(answer) <= 2 for answer in right)


@pytest.mark.parametrize("name", [name for name in TASKS if TASKS[name].haystack])
def test_haystack(name: str, haystack: list[str]) -> None:
    """A short one begins again; without one, the error says what is missing."""
    assert make(name, haystack, length=3000).context.count(haystack[3]) > 1
    with pytest.raises(LccError, match="hides facts in sentences and has none; give --haystack"):
        make(name, [])


def test_tasks_without_haystack_read_none() -> None:
    names = [name for name in TASKS if not TASKS[name].haystack]
    assert len(names) == 9
    assert all(make(name, []).tokens > 2000 for name in names)


def test_refusals(haystack: list[str]) -> None:
    with pytest.raises(LccError, match="length is 20 tokens, wanted 53 or more: the sample takes"):
        make("passkey", haystack, length=20)
    with pytest.raises(LccError, match="depth is 101, wanted 0 to 100 per cent"):
        make("passkey", haystack, depth=101)


def test_fit_by_hand() -> None:
    """Three words asked, four to answer: 13 are left of 20, six pieces of two words."""
    blank = Sample(
        context="",
        question="Who is",
        task="",
        answer_prefix="It's",
        answers=("x",),
        depth=None,
        tokens=0,
        max_new_tokens=4,
    )
    sample = fit(blank, lambda number: "a b " * number, words, 20)
    assert (sample.context, sample.tokens) == ("a b " * 6, 12)
    assert fit(blank, lambda number: "a b " * number, words, 7).tokens == 0
    with pytest.raises(LccError, match="length is 6 tokens, wanted 7 or more"):
        fit(blank, lambda number: "a b " * number, words, 6)


def test_pieces() -> None:
    assert repeated(["a", "b"])(5) == ["a", "b", "a", "b", "a"]
    draw = random.Random(1)
    others = drawn(lambda: str(draw.random()))
    assert others(3) == others(5)[:3]
    assert hide([("x", 50), ("y", 0), ("z", 100)], ["1", "2"]) == ["y", "1", "x", "2", "z"]
    assert hide([("x", 49), ("y", 51)], ["1", "2"]) == ["1", "x", "y", "2"], "in order"
    assert hide([("x", 50), ("y", 50)], ["1", "2"]) == ["1", "x", "y", "2"], "in order"


def test_documentation_knows_every_task() -> None:
    text = Path(__file__).parents[4].joinpath("docs/evaluate.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    named = {name: row for row in rows for name in TASKS if f"`{name}`" in row[0]}
    named |= {name: named["babi_qa1"] for name in TASKS if name.startswith("babi_qa")}
    assert set(named) == set(TASKS)
    for name, row in named.items():
        assert (row[2] == "yes") == TASKS[name].haystack, name
        assert (row[3] == "yes") == (name in PLACED), name


def test_evenly() -> None:
    assert list(evenly(1)) == [50]
    assert list(evenly(4)) == [5, 35, 65, 95]


def test_question_first(haystack: list[str]) -> None:
    sample = make("niah_multikey_2", haystack)
    first = question_first(sample, words)
    assert first.context == f"{sample.question}\n{sample.context}"
    assert first.answers == sample.answers
    assert first.tokens == words(first.context)
