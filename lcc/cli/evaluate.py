"""`lcc evaluate`."""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcc.cli.frame import table
from lcc.cli.load import load_session
from lcc.errors import LccError

if TYPE_CHECKING:
    from lcc.evaluate.run import Outcome


def command(
    artifact: Annotated[Path, typer.Argument(help="The artifact, a folder.")],
    task: Annotated[str, typer.Option(help="passkey (in noise) or number (in --haystack).")],
    length: Annotated[list[int], typer.Option(help="Tokens of the text; may be repeated.")],
    haystack: Annotated[Path | None, typer.Option(help="Text file or folder of *.txt.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples a length, depths 5 to 95 %.")] = 10,
    view: Annotated[str, typer.Option(help="generic, task or question.")] = "generic",
    chat: Annotated[bool, typer.Option("--chat", help="Use the chat template.")] = False,
    budget: Annotated[int | None, typer.Option(help="Less than was compiled.")] = None,
    capacity: Annotated[int | None, typer.Option(help="Less than was compiled.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engine.")] = None,
    seed: Annotated[int, typer.Option(help="Of the first sample; the next has the next.")] = 0,
) -> None:
    """Hide facts in texts and ask for them: a line of JSON a sample, and a table on stderr.

    The view is what evictions look for: `generic` is the artifact's own catalyst and knows nothing
    of the question, `task` names the kind of thing wanted, `question` is the question itself.

    \b
    Examples:
      lcc evaluate m.lcc --task passkey --length 4096 --length 16384
      lcc evaluate m.lcc --task number --haystack essays/ --length 8192 --view question
    """
    from lcc.evaluate.needle import evenly, magic_number, passkey, read_haystack
    from lcc.evaluate.run import VIEWS, run

    if task not in ("passkey", "number") or view not in VIEWS:
        raise LccError("wanted --task passkey or number, --view generic, task or question")
    if task == "number" and haystack is None:
        raise LccError("--task number needs a --haystack")
    session = load_session(artifact, capacity=capacity, budget=budget, threads=threads)
    sentences = read_haystack(haystack) if haystack else []

    def count(text: str) -> int:
        return len(session.encode(text))

    rows: list[tuple[object, ...]] = [("tokens", "found", "of", "cycles", "tokens/s")]
    for size in length:
        chosen = (
            passkey(count, size, depth, seed + index)
            if task == "passkey"
            else magic_number(count, size, depth, seed + index, sentences)
            for index, depth in enumerate(evenly(samples))
        )
        outcomes = run(session, chosen, view=view, chat=chat, progress=_print)  # type: ignore[arg-type]
        seconds = sum(each.read_seconds for each in outcomes)
        rate = sum(each.tokens for each in outcomes) / seconds
        found = sum(each.found for each in outcomes)
        rows.append((size, found, len(outcomes), outcomes[-1].cycles, f"{rate:.0f}"))
    typer.echo(table(rows, right=(0, 1, 2, 3, 4)), err=True)


def _print(outcome: "Outcome") -> None:
    typer.echo(json_.dumps(outcome.to_dict(), ensure_ascii=False))
