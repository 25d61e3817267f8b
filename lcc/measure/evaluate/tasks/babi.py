"""Questions over a few facts that are scattered through a long text, after BABILong.

BABILong (arXiv 2406.10149) hides the facts of bAbI in books. Here the small worlds are simulated
(worlds.py), the text is the user's haystack, the instruction is shorter, and no solved examples
stand before it. Scored as there: the answer's first sentence names the right label and no other.
"""

import functools
import random

from lcc.measure.evaluate.haystack import from_anywhere
from lcc.measure.evaluate.sample import Count, Sample, Task
from lcc.measure.evaluate.tasks.fit import fit, hide, repeated
from lcc.measure.evaluate.tasks.worlds import LABELS, STORIES

INTRODUCTION = (
    "The following text hides facts about {about}. A question will be asked about them. "
    "Answer it from the facts alone, with one word."
)
ABOUT = {
    "qa1": "where people are",
    "qa2": "where people are and what they carry",
    "qa3": "where people are and what they carry",
    "qa4": "how rooms lie to each other",
    "qa5": "people and what they give to each other",
}
ONE_LINE = {
    "qa1": "where somebody is, from one fact",
    "qa2": "where something is, from two facts",
    "qa3": "where something was before, from three facts",
    "qa4": "what lies on a side of a room, from two facts",
    "qa5": "who gave what to whom",
}


def make(
    name: str, count: Count, length: int, depth: float, seed: int, sentences: list[str]
) -> Sample:
    """Make a sample of qa1 .. qa5; the arguments from the second on are those of `Task`.

    The facts are in order, at places drawn by the seed; `depth` is not read. `answers` has the
    right label, then the wrong ones that the question does not name.
    """
    draw = random.Random(f"babi {name} {seed}")
    story = STORIES[name](draw)
    filler = repeated(from_anywhere(draw, sentences))
    depths = sorted(draw.uniform(0, 100) for _ in story.facts)
    needles = list(zip(story.facts, depths, strict=True))
    wrong = [w for w in LABELS[name] if w != story.answer and w not in story.question]
    sample = Sample(
        context="",
        question=f"Question: {story.question}",
        task=f"Which facts are about {ABOUT[name]}?",
        answer_prefix="Answer:",
        answers=(story.answer, *wrong),
        depth=None,
        tokens=0,
        metric="label",
        max_new_tokens=16,
    )

    def build(number: int) -> str:
        text = " ".join(hide(needles, filler(number)))
        return f"{INTRODUCTION.format(about=ABOUT[name])}\n\n<context>\n{text}\n</context>\n"

    return fit(sample, build, count, length)


TASKS = {
    f"babi_{name}": Task(
        f"{about}, in a haystack (BABILong)", functools.partial(make, name), haystack=True
    )
    for name, about in ONE_LINE.items()
}
