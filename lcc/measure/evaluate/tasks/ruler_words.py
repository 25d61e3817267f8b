"""RULER's aggregation tasks (arXiv 2404.06654): the words that occur most often in a list."""

import math
import random
import string

from lcc.measure.evaluate.sample import Count, Sample, Task
from lcc.measure.evaluate.tasks.fit import fit
from lcc.measure.evaluate.tasks.words import distinct, word, word_list

CWE = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often."
)
CWE_QUESTION = "Question: What are the 10 most common words in the above list?"
CWE_PREFIX = "Answer: The top 10 words that appear most often in the list are:"
COMMON = 10

FWE = (
    "Read the following coded text and track the frequency of each coded word. "
    "Find the three most frequently appeared coded words."
)
FWE_QUESTION = (
    "Question: Do not provide any explanation. Please ignore the dots '....'. "
    "What are the three most frequently appeared words in the above coded text?"
)
FWE_PREFIX = (
    "Answer: According to the coded text above, the three most frequently appeared words are:"
)
LETTERS = 6
TOKENS_A_WORD = 50  # of the whole length, for every word of the vocabulary
FWE_LEAST = 53  # words, about: with fewer, the fourth is no more frequent than the fifth


def numbered(words: list[str]) -> str:
    """A list as RULER writes it: "1. word 2. word"."""
    return " ".join(f"{place}. {each}" for place, each in enumerate(words, start=1))


def word_text(words: list[str], often: int, seldom: int, seed: str) -> str:
    """The instruction and a shuffled list: the first ten words `often`, the others `seldom`."""
    listed = words[:COMMON] * often + words[COMMON:] * seldom
    random.Random(seed).shuffle(listed)
    return f"{CWE}\n{numbered(listed)}"


def common_words(
    count: Count, length: int, depth: float, seed: int, sentences: list[str]
) -> Sample:
    """Make a sample of `cwe`, after a solved example; `depth` and `sentences` are not read.

    Ten words 30 times, others 3 times; below 4,096 tokens 6 times and once.
    """
    draw = random.Random(f"cwe {seed}")
    often, seldom = (6, 1) if length < 4096 else (30, 3)
    few, own_often, own_seldom = (20, 3, 1) if length < 4096 else (40, 10, 3)
    known = word_list("noun", "adjective", "verb")
    example = draw.sample(known, few)
    words = draw.sample(known, len(known))
    sample = Sample(
        context="",
        question=CWE_QUESTION,
        task=CWE_QUESTION,
        answer_prefix=CWE_PREFIX,
        answers=tuple(words[:COMMON]),
        depth=None,
        tokens=0,
        max_new_tokens=120,
    )
    solved = word_text(example, own_often, own_seldom, f"cwe example {seed}")
    solved += f"{sample.asked} {numbered(example[:COMMON])}"

    def build(others: int) -> str:
        missing = COMMON + others - len(words)
        if missing > 0:  # RULER goes over to another list; here to pairs of words, as in niah
            words.extend(distinct(lambda: word(draw), missing, unlike=tuple(words)))
        chosen = words[: COMMON + others]
        return f"{solved}\n{word_text(chosen, often, seldom, f'cwe {seed}')}"

    return fit(sample, build, count, length)


def frequent_words(
    count: Count, length: int, depth: float, seed: int, sentences: list[str]
) -> Sample:
    """Make a sample of `fwe`; `depth` and `sentences` are not read.

    Words of six letters by a Zeta distribution of alpha 2: the k-th occurs in proportion to 1/k^2.
    The first is "...", noise; the next three are wanted.
    """
    draw = random.Random(f"fwe {seed}")
    size = max((length - 50) // TOKENS_A_WORD, 5)
    words = distinct(lambda: "".join(draw.choices(string.ascii_lowercase, k=LETTERS)), size)
    words[0] = "..."
    zeta = math.pi**2 / 6

    def build(more: int) -> str:
        total = FWE_LEAST + more
        coded: list[str] = []
        for rank, each in enumerate(words, start=1):
            coded += [each] * int(total * rank**-2 / zeta)
        random.Random(f"fwe {seed}").shuffle(coded)
        return f"{FWE} {' '.join(coded)}"

    sample = Sample(
        context="",
        question=FWE_QUESTION,
        task=FWE_QUESTION,
        answer_prefix=FWE_PREFIX,
        answers=tuple(words[1:4]),
        depth=None,
        tokens=0,
        max_new_tokens=50,
    )
    return fit(sample, build, count, length)


TASKS = {
    "cwe": Task("the ten words of a long list that occur most often", common_words),
    "fwe": Task("the three coded words of a text that occur most often", frequent_words),
}
