"""Texts with a fact hidden in them, of any length, from a seed: passkey in noise, RULER's needles.

The wording of the needle, the instruction and the question is RULER's (arXiv 2404.06654,
niah_single_1, niah_single_2, niah_multikey_1 and niah_multikey_2), so that results compare. Two
things differ, on purpose: the depth is asked for instead of drawn, and every sample begins at its
own place of the haystack, so that ten samples are ten texts.
"""

import dataclasses
import random
import re
from collections.abc import Iterator
from pathlib import Path

from lcc.env import needs_extra
from lcc.errors import LccError
from lcc.evaluate.sample import Count, Sample, Task

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
PASSKEY_INTRODUCTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
    "I will quiz you about the important information there."
)
PASSKEY = "The pass key is {value}. Remember it. {value} is the pass key."
PASSKEY_QUESTION = "What is the pass key?"
PASSKEY_PREFIX = "The pass key is"

INTRODUCTION = (
    "A special magic number is hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the number afterwards."
)
NEEDLE = "One of the special magic numbers for {key} is: {value}."
QUESTION = "What is the special magic number for {key} mentioned in the provided text?"
ANSWER_PREFIX = "The special magic number for {key} mentioned in the provided text is"


def passkey(count: Count, length: int, depth: float, seed: int) -> Sample:
    """Hide a five-digit pass key in repeated sentences.

    Args:
        count: the model's tokenizer.
        length: tokens of the context, at most; it comes as near as one sentence.
        depth: 0 to 100.
        seed: same seed, same sample.
    """
    value = str(random.Random(f"passkey {seed}").randint(10_000, 99_999))
    context, tokens = _hide(
        [(PASSKEY.format(value=value), depth)], PASSKEY_INTRODUCTION, [NOISE], count, length
    )
    return Sample(
        context=context,
        question=PASSKEY_QUESTION,
        task=PASSKEY_QUESTION,
        answer_prefix=PASSKEY_PREFIX,
        answers=(value,),
        depth=depth,
        tokens=tokens,
    )


def magic_number(count: Count, length: int, depth: float, seed: int, haystack: list[str]) -> Sample:
    """Hide one seven-digit number in real text: RULER's niah_single_2 where that is its essays.

    Args:
        count: the model's tokenizer.
        length: tokens of the context, at most; it comes as near as one sentence.
        depth: 0 to 100.
        seed: same seed, same sample.
        haystack: sentences, from `read_haystack`; they begin again where they do not suffice.
    """
    draw = random.Random(f"magic number {seed}")
    asked = _needle(draw)
    return _about_a_number(asked, [], _from_anywhere(draw, haystack), count, length, depth)


def multikey(
    count: Count, length: int, depth: float, seed: int, haystack: list[str], others: int = 3
) -> Sample:
    """As `magic_number`, with the numbers of `others` keys anywhere in the text: only one is asked.

    RULER's niah_multikey_1.
    """
    draw = random.Random(f"multikey {seed}")
    asked = _needle(draw)
    distractors = [(_needle(draw)[0], draw.uniform(0, 100)) for _ in range(others)]
    sentences = _from_anywhere(draw, haystack)
    return _about_a_number(asked, distractors, sentences, count, length, depth)


def key_value(count: Count, length: int, depth: float, seed: int) -> Sample:
    """The number of one key among as many others as fit: RULER's niah_multikey_2."""
    draw = random.Random(f"key value {seed}")
    asked, few = _needle(draw), [_needle(draw)[0] for _ in range(20)]
    needed = 20 * length // count(" ".join(few)) + 20
    sentences = few + [_needle(draw)[0] for _ in range(needed)]
    return _about_a_number(asked, [], sentences, count, length, depth)


TASKS = {
    "passkey": Task(
        "a five-digit key in repeated noise",
        lambda count, length, depth, seed, _: passkey(count, length, depth, seed),
    ),
    "number": Task("one seven-digit number in a haystack", magic_number, haystack=True),
    "multikey": Task("likewise, with three other numbers beside it", multikey, haystack=True),
    "keyvalue": Task(
        "one number among hundreds, nothing else in the text",
        lambda count, length, depth, seed, _: key_value(count, length, depth, seed),
    ),
}
"""What `lcc evaluate` asks for, by name."""


def question_first(sample: Sample, count: Count) -> Sample:
    """The same, with the question before the text: what is read can then be seen in its light."""
    context = f"{sample.question}\n{sample.context}"
    return dataclasses.replace(sample, context=context, tokens=count(context))


def _needle(draw: random.Random) -> tuple[str, str, str]:
    """Draw a sentence, its key and its value."""
    key, value = _key(draw), str(draw.randint(1_000_000, 9_999_999))
    return NEEDLE.format(key=key, value=value), key, value


def _from_anywhere(draw: random.Random, haystack: list[str]) -> list[str]:
    start = draw.randrange(len(haystack))
    return haystack[start:] + haystack[:start]


def _about_a_number(
    asked: tuple[str, str, str],
    others: list[tuple[str, float]],
    sentences: list[str],
    count: Count,
    length: int,
    depth: float,
) -> Sample:
    needle, key, value = asked
    context, tokens = _hide([(needle, depth), *others], INTRODUCTION, sentences, count, length)
    return Sample(
        context=context,
        question=QUESTION.format(key=key),
        task="What is the special magic number mentioned in the provided text?",
        answer_prefix=ANSWER_PREFIX.format(key=key),
        answers=(value,),
        depth=depth,
        tokens=tokens,
    )


def read_haystack(path: Path, pattern: str = "*.txt") -> list[str]:
    """Read a text file, or every file of a folder in the order of names, as sentences."""
    files = sorted(path.rglob(pattern)) if path.is_dir() else [path]
    text = " ".join(file.read_text(encoding="utf-8", errors="replace") for file in files)
    if not text.strip():
        raise LccError(f"{path}: no text found; wanted a text file, or a folder with {pattern}")
    return split_sentences(text)


def split_sentences(text: str) -> list[str]:
    """Split a text after every full stop, question or exclamation mark; line ends become spaces."""
    return re.split(r"(?<=[.!?]) ", re.sub(r"\s+", " ", text).strip())


def string_match(answer: str, wanted: tuple[str, ...]) -> float:
    """Return RULER's score: the share of the wanted strings that occur, whatever their case."""
    return sum(each.lower() in answer.lower() for each in wanted) / len(wanted)


def evenly(samples: int, first: float = 5.0, last: float = 95.0) -> Iterator[float]:
    """Spread depths evenly, ends included; a single one goes to the middle."""
    if samples == 1:
        yield (first + last) / 2
        return
    for index in range(samples):
        yield first + (last - first) * index / (samples - 1)


def _key(draw: random.Random) -> str:
    """Draw an adjective and a noun from the word lists that RULER uses."""
    with needs_extra("eval"):
        import wonderwords.random_word as words
    lists = (
        words._get_words_from_text_file(name) for name in ("adjectivelist.txt", "nounlist.txt")
    )
    return "-".join(draw.choice(sorted(set(each))) for each in lists)


def _hide(
    needles: list[tuple[str, float]],
    introduction: str,
    sentences: list[str],
    count: Count,
    length: int,
) -> tuple[str, int]:
    """Return the longest text of at most `length` tokens, needles in place, and its tokens."""
    if not all(0 <= depth <= 100 for _, depth in needles):
        raise LccError(f"depth is {needles[0][1]}, wanted 0 to 100 per cent")

    def build(number: int) -> str:
        rounds = -(-number // len(sentences))
        chosen = (sentences * rounds)[:number]
        for needle, depth in sorted(needles, key=lambda each: -each[1]):
            chosen.insert(round(number * depth / 100), needle)
        return f"{introduction}\n{' '.join(chosen)}"

    shortest = count(build(0))
    if shortest > length:
        raise LccError(f"length is {length} tokens, the needle alone takes {shortest}")
    # Tokens per sentence are nearly constant over a long text: two or three corrections suffice.
    number, tokens = 0, shortest
    low, high = 0, length
    while low < high:
        per_sentence = (tokens - shortest) / number if number else count(" " + sentences[0])
        number = min(max(int((length - shortest) / per_sentence), low + 1), high)
        tokens = count(build(number))
        if tokens <= length:
            low = number
        else:
            high = number - 1
    return build(low), count(build(low))
