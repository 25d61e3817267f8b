"""RULER's variable tracking (arXiv 2404.06654): one chain of assignments through repeated noise."""

import random
import string

from lcc.measure.evaluate.haystack import NOISE
from lcc.measure.evaluate.sample import Count, Sample, Task
from lcc.measure.evaluate.tasks.fit import fit, hide, repeated
from lcc.measure.evaluate.tasks.words import distinct

INTRODUCTION = (
    "Memorize and track the chain(s) of variable assignment hidden in the following text."
)
QUESTION = "Question: Find all variables that are assigned the value {value} in the text above."
TASK = "Find all variables that are assigned a value in the text above."
ANSWER_PREFIX = (
    "Answer: According to the chain(s) of variable assignment in the text above, {count} variables "
    "are assigned the value {value}, they are: "
)
HOPS = 4
MAX_NEW_TOKENS = 30
EXAMPLE_TOKENS = 500  # the solved example before the text, its answer not counted
EXAMPLE_NOISE = 5  # lines of it, at least


def chain(draw: random.Random, letters: int) -> tuple[list[str], str, list[str]]:
    """Draw the names of a chain, its value, and the lines that assign it from name to name."""
    names = distinct(lambda: "".join(draw.choices(string.ascii_uppercase, k=letters)), HOPS + 1)
    value = str(draw.randint(10_000, 99_999))
    lines = [f"VAR {names[0]} = {value}"]
    lines += [f"VAR {names[hop + 1]} = VAR {names[hop]} " for hop in range(HOPS)]
    return names, value, lines


def problem(draw: random.Random, letters: int, max_new_tokens: int) -> tuple[Sample, list[float]]:
    """Draw a chain as a sample without text, and the depths of its lines, ascending."""
    names, value, lines = chain(draw, letters)
    depths = sorted(draw.uniform(0, 100) for _ in lines)
    sample = Sample(
        context="\n".join(lines),
        question=QUESTION.format(value=value),
        task=TASK,
        answer_prefix=ANSWER_PREFIX.format(count=len(names), value=value),
        answers=tuple(names),
        depth=None,
        tokens=0,
        max_new_tokens=max_new_tokens,
    )
    return sample, depths


def text(sample: Sample, depths: list[float], noise: int) -> str:
    """The instruction, and the chain in so many lines of noise."""
    lines = sample.context.split("\n")
    body = hide(list(zip(lines, depths, strict=True)), repeated([NOISE])(noise))
    return f"{INTRODUCTION}\n\n" + "\n".join(body)


def make(count: Count, length: int, depth: float, seed: int, sentences: list[str]) -> Sample:
    """Make a sample: a solved example with names of three letters, then the text with five.

    The lines of the chain are in order, at places drawn by the seed; `depth` and `sentences` are
    not read.
    """
    draw = random.Random(f"vt {seed}")
    example, depths = problem(draw, 3, 0)
    least = EXAMPLE_NOISE
    size = max(EXAMPLE_TOKENS, count(text(example, depths, least)) + count(example.asked))
    shown = fit(example, lambda more: text(example, depths, least + more), count, size)
    solved = f"{shown.context}{shown.asked} {' '.join(shown.answers)}\n"
    sample, depths = problem(draw, 5, MAX_NEW_TOKENS)
    return fit(sample, lambda noise: f"{solved}\n{text(sample, depths, noise)}", count, length)


TASKS = {"vt": Task("five variables of one value, by four assignments in repeated noise", make)}
