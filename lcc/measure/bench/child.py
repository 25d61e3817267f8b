"""The process that runs one engine: a page of JSON in, lines of JSON out, the last one counts.

python -m lcc.measure.bench.child < page.json

{"do": "prepare", "kind", "model", "folder", "precision"}   -> {"step", "done"} ..., {"source"}
{"do": "measure", "kind", ...: a `Request`}                 -> {"result": {...}}
whatever cannot be done                                     -> {"error": "one line"}
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from lcc.errors import LccError
from lcc.measure.bench.measure import Request, measure


def one_line(error: BaseException) -> str:
    """The last line of what an engine says: those before tell where in its sources it was.

    Errors of lcc are sentences; of others the type is told, too: a KeyError is but a name.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, LccError) and lines:
        return lines[-1]
    return ": ".join([type(error).__name__, *lines[-1:]])


def answer(page: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Do what a page asks."""
    engine = importlib.import_module(f"lcc.measure.bench.engines.{page['kind']}")
    if page.pop("do") == "prepare":

        def report(step: str, done: float) -> None:
            say({"step": step, "done": done})

        source = engine.prepare(page["model"], Path(page["folder"]), page["precision"], report)
        say({"source": str(source)})
        return
    say({"result": measure(msgspec.convert(page, Request), engine.load)})


def main() -> None:
    """Keep standard output for the answer: engines print there what they like."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(page: dict[str, Any]) -> None:
        out.write(json.dumps(page) + "\n")
        out.flush()

    try:
        answer(json.load(sys.stdin), say)
    except Exception as error:  # engines raise whatever they like
        traceback.print_exc()
        say({"error": one_line(error)})


if __name__ == "__main__":
    main()
