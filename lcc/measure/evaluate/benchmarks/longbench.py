"""LongBench and LongBench-E (arXiv 2308.14508): lines of JSON, a file a dataset.

Three Chinese datasets are missing, multifieldqa_zh, dureader and vcsum: their scores need a Chinese
dictionary to find words. LongBench-E, whose files end in `_e`, is reported by length, too.
"""

from collections.abc import Iterator
from typing import Any

from lcc.measure.evaluate.benchmarks.prompt import prompt_of
from lcc.measure.evaluate.sample import Sample

NAME = "LongBench"
FIELDS = ({"input", "context", "answers", "length", "dataset", "all_classes"},)
MISSING = "; multifieldqa_zh, dureader and vcsum are scored by Chinese words, which lcc cannot find"


def samples(row: dict[str, Any], name: str) -> Iterator[Sample]:
    """One sample a row; of a class, the right one comes first."""
    dataset, answers = row["dataset"].removesuffix("_e"), row["answers"]
    if answers and row["all_classes"]:  # without an answer, no class becomes the right one
        answers = [*answers, *(each for each in row["all_classes"] if each not in answers)]
    yield prompt_of("longbench", dataset, MISSING).sample(
        row["context"],
        tuple(answers),
        dataset=dataset,
        group=bucket(row["length"]) if name.endswith("_e") else "",
        input=row["input"],
    )


def bucket(length: int) -> str:
    """LongBench-E's three groups, by words."""
    return "0-4k" if length < 4000 else "4-8k" if length < 8000 else "8k+"
