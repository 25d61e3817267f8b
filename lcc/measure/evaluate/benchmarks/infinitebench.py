"""InfiniteBench (arXiv 2402.13718): lines of JSON, a file a dataset, which only its name tells.

Asked as its authors ask models without chat template, the beginning of the answer included.
"""

import re
from collections.abc import Iterator
from typing import Any

from lcc.errors import LccError
from lcc.measure.evaluate.benchmarks.prompt import prompt_of
from lcc.measure.evaluate.sample import Sample

NAME = "InfiniteBench"
FIELDS = ({"context", "input", "answer", "options"},)


def samples(row: dict[str, Any], name: str) -> Iterator[Sample]:
    """One sample a row; of four options, the letter and the text of the right one."""
    prompt, asked = prompt_of("infinitebench", name), row["input"]
    answers = row["answer"] if isinstance(row["answer"], list) else [row["answer"]]
    fields: dict[str, Any] = {"input": asked}
    if name == "kv_retrieval":  # the beginning of the answer stands at the end of the question
        fields["input"] = asked.split("\nThe value")[0].strip()
    if name == "code_run":
        call = re.findall(r"func_[0-9]+\(-?[0-9]+\)", asked)
        if not call:
            raise LccError(f"code_run: no 'func_...(...)' in {asked!r}, wanted which call to run")
        fields |= {"call": call[0], "function": call[0].split("(")[0]}
    if name == "math_find":
        number = re.findall(r"The \w+ number", asked)
        if not number:
            raise LccError(f"math_find: no 'The ... number' in {asked!r}, wanted which one to find")
        fields["number"] = number[0].lower()
    if row["options"]:
        fields |= zip("ABCD", row["options"], strict=True)
        answers = ["ABCD"[row["options"].index(answers[0])], answers[0]]
    yield prompt.sample(row["context"], tuple(map(str, answers)), dataset=name, **fields)
