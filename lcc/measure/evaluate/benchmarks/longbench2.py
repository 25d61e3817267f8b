"""LongBench v2 (arXiv 2412.15204): questions with four choices, one file; asked without thinking.

Reported by length and difficulty, too: `group` is "short, hard" and so on.
"""

from collections.abc import Iterator
from typing import Any

from lcc.measure.evaluate.benchmarks.prompt import Prompt
from lcc.measure.evaluate.sample import Sample

NAME = "LongBench v2"
CHOICES = ("choice_A", "choice_B", "choice_C", "choice_D")
FIELDS = ({"context", "question", *CHOICES, "answer", "difficulty", "length"},)

PROMPT = Prompt(
    before="Please read the following text and answer the question below.\n\n<text>\n",
    after="\n</text>\n\nWhat is the correct answer to this question: {question}\n"
    "Choices:\n(A) {choice_A}\n(B) {choice_B}\n(C) {choice_C}\n(D) {choice_D}\n\n"
    'Format your response as follows: "The correct answer is (insert answer here)".',
    metric="correct_answer_is",
    max_new_tokens=128,
)


def samples(row: dict[str, Any], name: str) -> Iterator[Sample]:
    """One sample a row."""
    yield PROMPT.sample(
        row["context"].strip(),
        (row["answer"],),
        dataset="longbench_v2",
        group=f"{row['length']}, {row['difficulty']}",
        question=row["question"].strip(),
        **{choice: row[choice].strip() for choice in CHOICES},
    )
