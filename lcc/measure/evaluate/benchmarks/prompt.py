"""A benchmark's template, cut where the text ends: what is read first, and what is asked then."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from lcc.errors import LccError
from lcc.measure.evaluate.sample import Sample


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """How a dataset is asked and scored.

    before          stands before the text
    after           follows it; both may have fields in braces
    answer_prefix   how the answer begins
    """

    before: str
    after: str
    answer_prefix: str = ""
    metric: str
    max_new_tokens: int

    def sample(
        self,
        text: str,
        answers: tuple[str, ...],
        *,
        dataset: str,
        group: str = "",
        **fields: object,
    ) -> Sample:
        """Fill in a row.

        The line end with which `Sample.asked` begins is the last one before the question: of
        several, the others stay with the text. Where the template has none there, the text's own
        last one is taken, or one is added.

        Raises:
            LccError: no answers.
        """
        if not answers:
            raise LccError("no answers, wanted one or more")
        after = self.after.format(**fields)
        question = after.lstrip("\n")
        context = self.before.format(**fields) + text + after[: len(after) - len(question)]
        return Sample(
            context=context.removesuffix("\n"),
            question=question,
            task=self.after.format(**dict.fromkeys(fields, "...")).strip(),
            answer_prefix=self.answer_prefix.format(**fields),
            answers=answers,
            depth=None,
            tokens=0,
            metric=self.metric,
            max_new_tokens=self.max_new_tokens,
            dataset=dataset,
            group=group,
        )


@cache
def read_prompts(benchmark: str) -> dict[str, Prompt]:
    """Prompts by dataset, from the YAML file of a benchmark."""
    page = Path(__file__).with_name(f"{benchmark}.yaml").read_text(encoding="utf-8")
    return {name: Prompt(**entry) for name, entry in yaml.safe_load(page).items()}


def prompt_of(benchmark: str, dataset: str, missing: str = "") -> Prompt:
    """The prompt of a dataset.

    Raises:
        LccError: unknown; `missing` says more.
    """
    known = read_prompts(benchmark)
    if dataset not in known:
        raise LccError(f"dataset is {dataset!r}, wanted one of {', '.join(known)}{missing}")
    return known[dataset]
