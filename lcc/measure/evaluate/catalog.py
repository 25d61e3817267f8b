"""Which tasks there are, and how an answer is scored: asked here by everything that runs them."""

import difflib

from lcc.errors import ConfigError
from lcc.measure.evaluate.metrics import LASTING, METRICS
from lcc.measure.evaluate.sample import Sample
from lcc.measure.evaluate.tasks import TASKS

PERPLEXITY = "perplexity"
ABOUT = {name: task.about for name, task in TASKS.items()} | {
    PERPLEXITY: "how well the haystack's own text is predicted, by place and at its end"
}
"""Name -> one line for people."""

NEED_HAYSTACK = {PERPLEXITY, *(name for name, task in TASKS.items() if task.haystack)}


def score(answer: str, sample: Sample) -> float:
    """0 to 1: how much of what the sample wants is in the answer."""
    return METRICS[sample.metric](answer, sample.answers)


def settled(answer: str, sample: Sample) -> bool:
    """No further word can change the score: everything wanted was said."""
    return sample.metric in LASTING and score(answer, sample) == 1


def check_tasks(names: list[str], *, haystack: bool) -> None:
    """Refuse tasks that do not exist, or that need a haystack where there is none."""
    for name in names:
        if name not in ABOUT:
            near = difflib.get_close_matches(name, ABOUT, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"--tasks: no task {name!r}; {hint}there are: {', '.join(ABOUT)}")
        if name in NEED_HAYSTACK and not haystack:
            raise ConfigError(
                f"task {name} needs a text to hide in: give --haystack, a text file or a folder"
            )
