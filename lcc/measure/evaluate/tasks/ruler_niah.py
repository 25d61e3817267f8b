"""RULER's needles in a haystack (arXiv 2404.06654): the eight settings of its `niah` task.

Wording, values and lengths are RULER's. On purpose different: where one value is wanted, its depth
is asked for instead of drawn; essays begin at a place of their own in every sample; and no key
occurs twice. docs/evaluate.md says why.
"""

import functools
import random
from dataclasses import dataclass
from typing import Literal

from lcc.measure.evaluate.haystack import NOISE, from_anywhere
from lcc.measure.evaluate.sample import Count, Sample, Task
from lcc.measure.evaluate.tasks.fit import Needle, Pieces, drawn, fit, hide, repeated
from lcc.measure.evaluate.tasks.words import distinct, identifier, number, word

INTRODUCTION = (
    "{Some} special magic {kind} {are} hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the {kind} afterwards."
)
NEEDLE = "One of the special magic {kinds} for {key} is: {value}."
QUESTION = "What {are_all} the special magic {kind} for {query} mentioned in the provided text?"
TASK = "What {are_all} the special magic {kind} mentioned in the provided text?"
ANSWER_PREFIX = "The special magic {kind} for {query} mentioned in the provided text {are}"
MAX_NEW_TOKENS = 128
DEPTHS = [round(100 * step / 39) for step in range(40)]
DRAW = {"words": word, "numbers": number, "uuids": identifier}


@dataclass(frozen=True)
class Setting:
    """What a task hides, and in what.

    keys        how many; the first `queries` of them are asked for
    values      of each key
    """

    haystack: Literal["noise", "essay", "needle"]
    key: Literal["words", "uuids"] = "words"
    value: Literal["numbers", "uuids"] = "numbers"
    keys: int = 1
    values: int = 1
    queries: int = 1

    def words(self) -> dict[str, str]:
        """The forms of the templates: singular where one value is wanted."""
        if self.queries * self.values == 1:
            return {"Some": "A", "kind": self.value[:-1], "are": "is", "are_all": "is"}
        return {"Some": "Some", "kind": self.value, "are": "are", "are_all": "are all"}

    def needle(self, key: str, value: str) -> str:
        """The sentence that is hidden."""
        return NEEDLE.format(kinds=self.value, key=key, value=value)


SETTINGS = {
    "niah_single_1": ("one number in repeated noise", Setting("noise")),
    "niah_single_2": ("one number in a haystack", Setting("essay")),
    "niah_single_3": ("one UUID in a haystack", Setting("essay", value="uuids")),
    "niah_multikey_1": ("one of four numbers in a haystack", Setting("essay", keys=4)),
    "niah_multikey_2": ("one number among as many others as fit", Setting("needle")),
    "niah_multikey_3": (
        "one UUID, by a UUID, among as many others as fit",
        Setting("needle", key="uuids", value="uuids"),
    ),
    "niah_multivalue": ("four numbers of one key in a haystack", Setting("essay", values=4)),
    "niah_multiquery": (
        "numbers of four keys in a haystack, all asked for",
        Setting("essay", keys=4, queries=4),
    ),
}


def make(
    name: str, count: Count, length: int, depth: float, seed: int, sentences: list[str]
) -> Sample:
    """Make a sample of one of the settings; the arguments from the second on are those of `Task`.

    `depth` is that of the value wanted. Where several are, RULER's way: each needle at one of 40
    depths, drawn by the seed.
    """
    setting, draw = SETTINGS[name][1], random.Random(f"{name} {seed}")
    keys = distinct(lambda: DRAW[setting.key](draw), setting.keys)
    drawn_values = distinct(lambda: DRAW[setting.value](draw), setting.keys * setting.values)
    values = [drawn_values[at :: setting.keys] for at in range(setting.keys)]
    pairs = [(k, v) for k, own in zip(keys, values, strict=True) for v in own]
    single = setting.queries * setting.values == 1
    if single:
        depths = [depth, *draw.sample(DEPTHS, len(pairs) - 1)]
    else:
        depths = [float(each) for each in draw.sample(DEPTHS, len(pairs))]
    needles = [(setting.needle(*pair), at) for pair, at in zip(pairs, depths, strict=True)]
    pieces, separator = _pieces(setting, draw, sentences, keys)
    asked, forms = keys[: setting.queries], setting.words()
    query = asked[0] if len(asked) == 1 else f"{', '.join(asked[:-1])}, and {asked[-1]}"
    sample = Sample(
        context="",
        question=QUESTION.format(query=query, **forms),
        task=TASK.format(**forms),
        answer_prefix=ANSWER_PREFIX.format(query=query, **forms),
        answers=tuple(value for own in values[: setting.queries] for value in own),
        depth=depth if single else None,
        tokens=0,
        max_new_tokens=MAX_NEW_TOKENS,
    )
    introduction = INTRODUCTION.format(**forms)
    build = functools.partial(_text, introduction, needles, pieces, separator)
    return fit(sample, build, count, length)


def _text(
    introduction: str, needles: list[Needle], pieces: Pieces, separator: str, number: int
) -> str:
    return f"{introduction}\n{separator.join(hide(needles, pieces(number)))}"


def _pieces(
    setting: Setting, draw: random.Random, sentences: list[str], keys: list[str]
) -> tuple[Pieces, str]:
    """What the needles are hidden in, and what stands between its pieces."""
    if setting.haystack == "essay":
        return repeated(from_anywhere(draw, sentences)), " "
    if setting.haystack == "noise":
        return repeated([NOISE]), "\n"

    def other() -> str:
        (key,) = distinct(lambda: DRAW[setting.key](draw), 1, unlike=tuple(keys))
        return setting.needle(key, DRAW[setting.value](draw))

    return drawn(other), "\n"


TASKS = {
    name: Task(about, functools.partial(make, name), haystack=setting.haystack == "essay")
    for name, (about, setting) in SETTINGS.items()
}
