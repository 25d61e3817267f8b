"""InfiniteBench's retrieval, Kamradt's needle, and facts after bAbI."""

import json
import random
import re
from collections.abc import Callable

import pytest

from lcc.measure.evaluate.haystack import NOISE
from lcc.measure.evaluate.tasks import TASKS
from lcc.measure.evaluate.tasks.worlds import OPPOSITE, STORIES, Story


def words(text: str) -> int:
    return len(text.split())


def test_passkey_by_hand() -> None:
    """Length 100: 6 to answer, 5 + 4 asked, so 85 of text: 26 + 12 + 2 lines of 19."""
    sample = TASKS["passkey"].make(words, 100, 50, 4, [])
    (key,) = sample.answers
    assert re.fullmatch("[0-9]{5}", key)
    assert sample.context == (
        "There is an important info hidden inside a lot of irrelevant text. Find it and memorize "
        "them. I will quiz you about the important information there.\n\n"
        f"{NOISE}\nThe pass key is {key}. Remember it. {key} is the pass key.\n{NOISE}\n\n"
    )
    assert sample.asked == "\nWhat is the pass key? The pass key is"
    assert (sample.metric, sample.max_new_tokens) == ("first_integer", 6)


def test_number_string() -> None:
    """Five digits drawn, five times one of them doubled: runs of equal digits, ten in all."""
    for seed in range(20):
        sample = TASKS["number_string"].make(words, 300, 50, seed, [])
        (value,) = sample.answers
        assert re.fullmatch("[0-9]{10}", value)
        assert len(re.findall(r"(.)\1*", value)) <= 5
        assert (
            f"The sequence of digits is {value}. Remember it. {value} is the sequence of digits."
            in sample.context
        )
    assert sample.asked == "\nWhat is the sequence of digits? The sequence of digits is"
    assert sample.max_new_tokens == 12


def test_kv_retrieval() -> None:
    sample = TASKS["kv_retrieval"].make(words, 300, 25, 4, [])
    instruction, data = sample.context.split("\n\nJSON data:\n")
    assert instruction == (
        "Extract the value corresponding to the specified key in the JSON object below."
    )
    pairs = json.loads(data)
    assert len(pairs) > 90
    (key,) = re.findall('Key: "(.*)"', sample.question)
    assert pairs[key] == sample.answers[0]
    assert list(pairs).index(key) == round((len(pairs) - 1) / 4)
    assert sample.asked == (f'\nKey: "{key}" The value associated with the specified key is:')
    assert (sample.metric, sample.max_new_tokens) == ("word", 50)


def test_kamradt(haystack: list[str]) -> None:
    sample = TASKS["niah_kamradt"].make(words, 400, 100, 4, haystack)
    assert sample.context.startswith(
        "You are a helpful AI bot that answers questions for a user. "
        "Keep your response short and direct\n\nSentence "
    )
    assert sample.context.endswith(
        "much. \nThe best thing to do in San Francisco is eat a sandwich and sit in Dolores Park "
        "on a sunny day.\n"
    )
    assert sample.question.startswith("What is the best thing to do in San Francisco? Don't give")
    assert sample.answers == ("eat a sandwich", "Dolores Park", "sunny day")


def test_facts_are_in_order(haystack: list[str]) -> None:
    sample = TASKS["babi_qa1"].make(words, 900, 50, 4, haystack)
    assert sample.context.startswith("The following text hides facts about where people are. ")
    text = re.search(r"<context>\n(.*)\n</context>\n$", sample.context)[1]
    facts = re.findall(r"\w+ (?:moved|went|journeyed|travelled)[a-z ]* the \w+\.", text)
    assert len(facts) in (2, 4, 6, 8, 10)
    story = Story(facts, sample.question.removeprefix("Question: "), sample.answers[0])
    assert oracle(story) == story.answer
    assert sample.asked == f"\n{sample.question} Answer:"
    assert len(sample.answers) == 6, "the right place and the wrong ones"


def oracle(story: Story) -> str:
    """Answer by other means: read the sentences, line by line."""
    place: dict[str, str] = {}
    holder: dict[str, str] = {}
    been: dict[str, list[str]] = {}
    gifts, sides = [], {}
    for fact in story.facts:
        if side := re.fullmatch(r"The (\w+) is (\w+) of the (\w+)\.", fact):
            sides[side[2], side[3]] = side[1]
            sides[OPPOSITE[side[2]], side[1]] = side[3]
            continue
        person, *_ = fact.split()
        last = fact.split()[-1].rstrip(".")
        if gift := re.search(r"(?:gave|handed|passed) the (\w+) to (\w+)", fact):
            assert holder[gift[1]] == person, "only the one who has it can give it"
            holder[gift[1]] = gift[2]
            gifts.append((person, gift[1], gift[2]))
        elif fact.endswith("there."):
            last = fact.split()[-2]
            assert last not in holder
            assert last not in been or been[last][-1] == place[person], "it is where they are"
            holder[last] = person
            been.setdefault(last, [place[person]])
        elif re.search("dropped|left|discarded|put down", fact):
            assert holder.pop(last) == person
        else:
            assert place.get(person) != last
            place[person] = last
            for thing, who in holder.items():
                if who == person:
                    been[thing].append(last)
    asked = story.question
    if found := re.fullmatch(r"Where is (\w+)\?", asked):
        return place[found[1]]
    if found := re.fullmatch(r"Where is the (\w+)\?", asked):
        return been[found[1]][-1]
    if found := re.fullmatch(r"Where was the (\w+) before the (\w+)\?", asked):
        at = [i for i, where in enumerate(been[found[1]]) if where == found[2]]
        assert len(at) == 1
        return been[found[1]][at[0] - 1]
    if found := re.fullmatch(r"What is (\w+) of the (\w+)\?", asked):
        return sides[found[1], found[2]]
    if found := re.fullmatch(r"What is the (\w+) (\w+) of\?", asked):
        return sides[OPPOSITE[found[2]], found[1]]
    given = {
        r"Who gave the (?P<thing>\w+) to (?P<taker>\w+)\?": "giver",
        r"Who did (?P<giver>\w+) give the (?P<thing>\w+) to\?": "taker",
        r"What did (?P<giver>\w+) give to (?P<taker>\w+)\?": "thing",
    }
    for pattern, wanted in given.items():
        if found := re.fullmatch(pattern, asked):
            named = [dict(zip(("giver", "thing", "taker"), gift, strict=True)) for gift in gifts]
            (only,) = [g for g in named if found.groupdict().items() <= g.items()]
            return only[wanted]
    raise AssertionError(asked)


@pytest.mark.parametrize("kind", STORIES)
def test_worlds(kind: str) -> None:
    make: Callable[[random.Random], Story] = STORIES[kind]
    stories = [make(random.Random(seed)) for seed in range(200)]
    assert all(oracle(story) == story.answer for story in stories)
    assert all(story.answer not in story.question for story in stories)
    assert len({story.answer for story in stories}) >= 6
    assert len({" ".join(story.facts) for story in stories}) > 100
