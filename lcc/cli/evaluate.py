"""`lcc evaluate`."""

import json as json_
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from lcc.cli.frame import table
from lcc.cli.load import load_session
from lcc.errors import LccError

if TYPE_CHECKING:
    from lcc.evaluate.run import Outcome, View
    from lcc.runtime.session import Session


def command(
    artifact: Annotated[Path, typer.Argument(help="The artifact, a folder.")],
    task: Annotated[str, typer.Option(help="Name of a task, see below.")],
    length: Annotated[list[int], typer.Option(help="Tokens of the text; may be repeated.")],
    haystack: Annotated[Path | None, typer.Option(help="Text file or folder of *.txt.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples a length, depths 5 to 95 %.")] = 10,
    view: Annotated[str, typer.Option(help="generic, task or question.")] = "generic",
    question_first: Annotated[
        bool, typer.Option("--question-first", help="Put the question before the text, too.")
    ] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Use the chat template.")] = False,
    budget: Annotated[int | None, typer.Option(help="Less than was compiled.")] = None,
    capacity: Annotated[int | None, typer.Option(help="Less than was compiled.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engine.")] = None,
    target: Annotated[
        str | None, typer.Option(help="Of those it was compiled for [the first that can run].")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu = there, whatever it was compiled for.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first sample; the next has the next.")] = 0,
) -> None:
    """Hide facts in texts and ask for them: a line of JSON a sample, and a table on stderr.

    \b
    Tasks:
      RULER's niah_single_1 .. 3, niah_multikey_1 .. 3, niah_multivalue, niah_multiquery, vt, cwe,
      fwe; InfiniteBench's passkey, number_string, kv_retrieval; niah_kamradt; babi_qa1 .. 5;
      perplexity: how well the last 512 tokens of --haystack are predicted.

    The view is what evictions look for: `generic` is the artifact's own catalyst and knows nothing
    of the question, `task` names the kind of thing wanted, `question` is the question itself.

    \b
    Examples:
      lcc evaluate m.lcc --task passkey --length 4096 --length 16384
      lcc evaluate m.lcc --task niah_single_2 --haystack essays/ --length 8192 --view question
    """
    from lcc.evaluate.haystack import read_haystack
    from lcc.evaluate.run import VIEWS, run
    from lcc.evaluate.sample import evenly
    from lcc.evaluate.sample import question_first as asked_first
    from lcc.evaluate.tasks import TASKS

    if task not in (*TASKS, "perplexity") or view not in VIEWS:
        names = ", ".join([*TASKS, "perplexity"])
        raise LccError(f"wanted --task {names}; --view generic, task or question")
    if haystack is None and (task == "perplexity" or TASKS[task].haystack):
        raise LccError(f"--task {task} needs a --haystack")
    session = load_session(
        artifact,
        capacity=capacity,
        budget=budget,
        threads=threads,
        target=target,
        device=device,
    )
    sentences = read_haystack(haystack) if haystack else []

    def count(text: str) -> int:
        return len(session.encode(text))

    if task == "perplexity":
        if view != "generic" or question_first or chat:
            raise LccError(
                "--task perplexity asks no question: no --view, --question-first, --chat"
            )
        _perplexity(session, sentences, length, samples, seed)
        return
    rows: list[tuple[object, ...]] = [("tokens", "found", "of", "cycles", "tokens/s")]
    for size in length:
        chosen = (
            TASKS[task].make(count, size, depth, seed + index, sentences)
            for index, depth in enumerate(evenly(samples))
        )
        if question_first:
            chosen = (asked_first(sample, count) for sample in chosen)
        outcomes = run(session, chosen, view=cast("View", view), chat=chat, progress=_print)
        seconds = sum(each.read_seconds for each in outcomes)
        rate = sum(each.tokens for each in outcomes) / seconds
        found = sum(each.found for each in outcomes)
        rows.append((size, found, len(outcomes), outcomes[-1].cycles, f"{rate:.0f}"))
    typer.echo(table(rows, right=(0, 1, 2, 3, 4)), err=True)


def _perplexity(
    session: "Session", sentences: list[str], lengths: list[int], samples: int, seed: int
) -> None:
    from lcc.evaluate.perplexity import last_tokens, pieces

    rows: list[tuple[object, ...]] = [("tokens", "perplexity", "texts")]
    for size in lengths:
        values = []
        for ids in pieces(session, sentences, size, samples, seed):
            values.append(last_tokens(session, ids))
            typer.echo(json_.dumps({"tokens": size, "perplexity": values[-1]}))
        mean = math.exp(sum(map(math.log, values)) / len(values))
        rows.append((size, f"{mean:.2f}", len(values)))
    typer.echo(table(rows, right=(0, 1, 2)), err=True)


def _print(outcome: "Outcome") -> None:
    typer.echo(json_.dumps(outcome.to_dict(), ensure_ascii=False))
