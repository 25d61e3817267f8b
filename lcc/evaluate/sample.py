"""One text with a question whose answer is known, and what makes such texts."""

from collections.abc import Callable
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
    tokens          length of `context`, counted by the model's own tokenizer
    metric          name in `lcc.evaluate.metrics.METRICS`
    max_new_tokens  length of the answer, at most
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


@dataclass(frozen=True)
class Task:
    """Makes samples from seeds.

    about           one line for people
    make            tokenizer, length, depth, seed, sentences of a haystack -> sample
    haystack        whether `make` reads the sentences; they may be empty where it does not
    """

    about: str
    make: Callable[[Count, int, float, int, list[str]], Sample]
    haystack: bool = False
