"""The needle in a haystack as Greg Kamradt asked for it, scored by its keywords.

His words: github.com/gkamradt/LLMTest_NeedleInAHaystack. There a judge model grades the answer from
1 to 10; here the score is the share of three phrases of the needle that the answer contains.
"""

import random

from lcc.measure.evaluate.haystack import from_anywhere
from lcc.measure.evaluate.sample import Count, Sample, Task
from lcc.measure.evaluate.tasks.fit import fit, hide, repeated

INTRODUCTION = (
    "You are a helpful AI bot that answers questions for a user. "
    "Keep your response short and direct"
)
NEEDLE = (
    "\nThe best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny "
    "day.\n"
)
QUESTION = (
    "What is the best thing to do in San Francisco? "
    "Don't give information outside the document or repeat your findings"
)
KEYWORDS = ("eat a sandwich", "Dolores Park", "sunny day")


def make(count: Count, length: int, depth: float, seed: int, sentences: list[str]) -> Sample:
    """Put the needle after the sentence at `depth`; the seed says where the haystack begins."""
    essays = repeated(from_anywhere(random.Random(f"kamradt {seed}"), sentences))
    sample = Sample(
        context="",
        question=QUESTION,
        task="What is the best thing to do?",
        answer_prefix="The best thing to do in San Francisco is",
        answers=KEYWORDS,
        depth=depth,
        tokens=0,
        max_new_tokens=50,
    )

    def build(number: int) -> str:
        return f"{INTRODUCTION}\n\n{' '.join(hide([(NEEDLE, depth)], essays(number)))}"

    return fit(sample, build, count, length)


TASKS = {
    "niah_kamradt": Task("what to do in San Francisco, in a haystack", make, haystack=True),
}
