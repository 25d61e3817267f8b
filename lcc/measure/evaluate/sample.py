"""One text with a question whose answer is known, and what makes such texts."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Count = Callable[[str], int]  # text -> its number of tokens, by the model's own tokenizer


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One text, one question about it, and the answer.

    context         the instruction and the text with the fact in it
    question        asked after the text was read
    task            a sentence that names the kind of thing wanted, but not which one
    answer_prefix   how the answer begins; the model goes on from there
    answers         what is wanted; `metric` says how an answer is compared with them
    depth           where the fact is, in per cent of the text: 0 = at its beginning; None = the
                    task asks for no single place
    tokens          length of `context`, counted by the model's own tokenizer; 0 = not counted
    metric          name in `lcc.measure.evaluate.metrics.METRICS`
    max_new_tokens  length of the answer, at most
    dataset         of the benchmark that the sample is from; "" = lcc made it. With `group` it is
                    written into samples.jsonl; `lcc eval` makes no table by either
    group           a part of the dataset that the benchmark reports by itself: a length, a
                    difficulty; "" = none
    """

    context: str
    question: str
    task: str
    answer_prefix: str
    answers: tuple[str, ...]
    depth: float | None
    tokens: int
    metric: str = "all"
    max_new_tokens: int = 24
    dataset: str = ""
    group: str = ""

    @property
    def asked(self) -> str:
        """What follows the text where no chat template stands between question and answer."""
        return "\n" + " ".join(each for each in (self.question, self.answer_prefix) if each)


@dataclass(frozen=True)
class Task:
    """Makes samples from seeds.

    about           one line for people
    make            tokenizer, length, depth, seed, sentences of a haystack -> sample. `length` is
                    in tokens and includes the question and room for the answer; `depth` is in per
                    cent, and read where the task wants one fact: else the seed draws the places
    haystack        whether `make` reads the sentences; they may be empty where it does not
    """

    about: str
    make: Callable[[Count, int, float, int, list[str]], Sample]
    haystack: bool = False


def question_first(sample: Sample, count: Count) -> Sample:
    """The same, with the question before the text: what is read can then be seen in its light."""
    context = f"{sample.question}\n{sample.context}"
    return dataclasses.replace(sample, context=context, tokens=count(context))


def evenly(samples: int, first: float = 5.0, last: float = 95.0) -> Iterator[float]:
    """Spread depths evenly, ends included; a single one goes to the middle."""
    if samples == 1:
        yield (first + last) / 2
        return
    for index in range(samples):
        yield first + (last - first) * index / (samples - 1)
