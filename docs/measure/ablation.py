"""What matters for finding one number in real text: one choice changed at a time, one table.

python docs/measure/ablation.py smollm2 ESSAYS [--tokens 4096] [--samples 10] [--out F]

Prints a row of a Markdown table as soon as it is known, and writes a line of JSON a sample to F.
The model is loaded once; rows that differ at run time only share one artifact.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import lcc.runtime
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.measure.evaluate.haystack import read_haystack
from lcc.measure.evaluate.run import View, run
from lcc.measure.evaluate.sample import Sample, evenly
from lcc.measure.evaluate.tasks import TASKS
from lcc.passes.policies import POLICIES
from lcc.passes.policies.consensus import Consensus
from lcc.runtime.session import Session
from lcc.sources.models import load_model

CACHE = {"capacity": 1024, "budget": 512}
SUMMARIZE = "Summarize the above context, highlighting the most important points."
FACTS = "The text above has some names, numbers and facts that matter. What are they?"


class SumOfQueries(Consensus):
    """Attention summed over the catalyst's tokens instead of its maximum."""

    name = "sum_of_queries"
    query_pool = "sum"


class MeanOfGroup(Consensus):
    """Attention averaged over the query heads of a group instead of its maximum."""

    name = "mean_of_group"
    group_pool = "mean"


@dataclass(frozen=True)
class Row:
    """What differs from the default: at compile time (policy to cache), and at run time."""

    label: str
    policy: str = "consensus"
    options: dict = field(default_factory=dict)
    cache: dict = field(default_factory=dict)
    view: View = "generic"
    catalyst: str | None = None
    budget: int | None = None


def infinipot(label: str, *, view: View = "generic", **options: object) -> Row:
    """A row of the paper's policy, which selects for each head by itself."""
    return Row(f"infinipot: {label}", "infinipot", options, view=view)


ROWS = [
    Row("default: consensus, beginning as catalyst, nll_weight 0.25"),
    Row("catalyst: the question", view="question"),
    Row("catalyst: a sentence naming the task", view="task"),
    Row("catalyst: summarize", catalyst=SUMMARIZE),
    Row("catalyst: names, numbers and facts", catalyst=FACTS),
    Row("budget 256 of 1024", budget=256),
    Row("budget 384 of 1024", budget=384),
    Row("nll_weight 1: negative log likelihood alone", options={"nll_weight": 1.0}),
    Row("nll_weight 0.75", options={"nll_weight": 0.75}),
    Row("nll_weight 0.5", options={"nll_weight": 0.5}),
    Row("nll_weight 0: attention alone", options={"nll_weight": 0.0}),
    Row("queries pooled by sum", "sum_of_queries"),
    Row("query heads pooled by mean", "mean_of_group"),
    Row("newest 256 protected", cache={"recent_size": 256}),
    Row("newest not protected", cache={"recent_size": 0}),
    Row("first 4 not protected", cache={"sink_size": 0}),
    infinipot("tokens, as published", attention_span=1, nll_span=1),
    infinipot("spans of 41"),
    infinipot("tokens, the question", attention_span=1, nll_span=1, view="question"),
    infinipot("spans of 41, the question", view="question"),
    infinipot("attention over 41, likelihood of tokens", nll_span=1),
    Row("snapkv", "snapkv"),
    Row("sink_window", "sink_window"),
    Row("random", "random"),
]


def draw(session: Session, tokens: int, count: int, sentences: list[str]) -> list[Sample]:
    """The samples of a row: the same for all of them."""

    def length(text: str) -> int:
        return len(session.encode(text))

    return [
        TASKS["niah_single_2"].make(length, tokens, depth, seed, sentences)
        for seed, depth in enumerate(evenly(count))
    ]


def main() -> None:
    """Measure row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("haystack", type=Path)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--only", default="", help="rows whose label holds this")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    POLICIES.update({each.name: each for each in (SumOfQueries, MeanOfGroup)})
    loaded, sentences = load_model(options.model), read_haystack(options.haystack)
    print(
        f"| {options.tokens} tokens, capacity 1024, budget 512 | found | tokens/s |\n|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        compiled = None
        for row in ROWS:
            if options.only not in row.label:
                continue
            policy = PolicyConfig(name=row.policy, options=row.options)
            if compiled != (policy, row.cache):
                config = CompileConfig(cache=CacheConfig(**CACHE | row.cache), policy=policy)
                compile_model(loaded, Path(folder, "m.lcc"), config)
                compiled = (policy, row.cache)
            session = lcc.runtime.open(
                Path(folder, "m.lcc"), budget=row.budget, threads=options.threads
            )
            if row.catalyst:
                session.catalyst = row.catalyst
            samples = draw(session, options.tokens, options.samples, sentences)
            outcomes = run(session, samples, view=row.view)
            found = sum(each.found for each in outcomes)
            rate = sum(each.tokens for each in outcomes) / sum(e.read_seconds for e in outcomes)
            print(f"| {row.label} | {found} of {len(outcomes)} | {rate:.0f} |", flush=True)
            if options.out:
                with options.out.open("a", encoding="utf-8") as file:
                    for each in outcomes:
                        file.write(json.dumps({"row": row.label} | each.to_dict()) + "\n")


if __name__ == "__main__":
    main()
