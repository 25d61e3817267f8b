"""InfiniteBench's synthetic retrieval tasks (arXiv 2402.13718), in its wording, at any length."""

import json
import random

from lcc.measure.evaluate.haystack import NOISE
from lcc.measure.evaluate.sample import Count, Sample, Task
from lcc.measure.evaluate.tasks.fit import Pieces, drawn, fit, hide, repeated
from lcc.measure.evaluate.tasks.words import identifier

PASSKEY = "The pass key is {value}. Remember it. {value} is the pass key."
PASSKEY_INTRODUCTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)
PASSKEY_QUESTION = "What is the pass key?"
PASSKEY_PREFIX = "The pass key is"

DIGITS = "The sequence of digits is {value}. Remember it. {value} is the sequence of digits."
DIGITS_INTRODUCTION = (
    "There is an important info hidden inside a lot of irrelevant text. Find it. "
    "I will quiz you about the important information there."
)
DIGITS_QUESTION = "What is the sequence of digits?"
DIGITS_PREFIX = "The sequence of digits is"

KV_INTRODUCTION = "Extract the value corresponding to the specified key in the JSON object below."
KV_PREFIX = "The value associated with the specified key is:"


def passkey(
    count: Count, length: int, depth: float, seed: int, sentences: list[str] | None = None
) -> Sample:
    """Hide five digits in repeated noise; `sentences` are not read.

    Args:
        count: the model's tokenizer.
        length: tokens of text, question and answer, at most; it comes as near as one line.
        depth: 0 to 100.
        seed: same seed, same sample.
        sentences: as every task has them.
    """
    draw = random.Random(f"passkey {seed}")
    value = "".join(draw.choices("0123456789", k=5))
    sample = _about(PASSKEY_QUESTION, PASSKEY_PREFIX, value, depth, 6)
    return _in_noise(
        sample, PASSKEY_INTRODUCTION, PASSKEY.format(value=value), depth, count, length
    )


def number_string(
    count: Count, length: int, depth: float, seed: int, sentences: list[str] | None = None
) -> Sample:
    """Hide ten digits, five of them doubles of their neighbours; otherwise as `passkey`."""
    draw = random.Random(f"number string {seed}")
    digits = draw.choices("0123456789", k=5)
    for _ in range(5):
        place = draw.randrange(len(digits))
        digits.insert(place, digits[place])
    value = "".join(digits)
    sample = _about(DIGITS_QUESTION, DIGITS_PREFIX, value, depth, 12)
    return _in_noise(sample, DIGITS_INTRODUCTION, DIGITS.format(value=value), depth, count, length)


def kv_retrieval(
    count: Count, length: int, depth: float, seed: int, sentences: list[str]
) -> Sample:
    """Ask for the value of one key of a JSON object; keys and values are UUIDs."""
    draw = random.Random(f"kv retrieval {seed}")

    def pair() -> str:
        return f"{json.dumps(identifier(draw))}: {json.dumps(identifier(draw))}"

    key, value = identifier(draw), identifier(draw)
    wanted, others = f"{json.dumps(key)}: {json.dumps(value)}", drawn(pair)

    def build(number: int) -> str:
        pairs = hide([(wanted, depth)], others(number))
        return f"{KV_INTRODUCTION}\n\nJSON data:\n{{{', '.join(pairs)}}}\n"

    sample = Sample(
        context="",
        question=f'Key: "{key}"',
        task="Which value is associated with the specified key?",
        answer_prefix=KV_PREFIX,
        answers=(value,),
        depth=depth,
        tokens=0,
        metric="word",
        max_new_tokens=50,
    )
    return fit(sample, build, count, length)


def _about(question: str, prefix: str, value: str, depth: float, max_new_tokens: int) -> Sample:
    return Sample(
        context="",
        question=question,
        task=question,
        answer_prefix=prefix,
        answers=(value,),
        depth=depth,
        tokens=0,
        metric="first_integer",
        max_new_tokens=max_new_tokens,
    )


def _in_noise(
    sample: Sample, introduction: str, needle: str, depth: float, count: Count, length: int
) -> Sample:
    noise: Pieces = repeated([NOISE])

    def build(number: int) -> str:
        lines = hide([(needle, depth)], noise(number))
        return f"{introduction}\n\n" + "\n".join(lines) + "\n\n"

    return fit(sample, build, count, length)


TASKS = {
    "passkey": Task("a five-digit key in repeated noise (InfiniteBench)", passkey),
    "number_string": Task("ten digits, many of them double, in repeated noise", number_string),
    "kv_retrieval": Task("the value of one UUID in a JSON object of UUIDs", kv_retrieval),
}
