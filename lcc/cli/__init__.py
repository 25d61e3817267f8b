"""The command `lcc`: parse flags, call the API, print. Answers on stdout, all else on stderr.

Exit codes: 0 done; 1 done, and the answer is no (`lcc verify`, `lcc demo`); 2 what was asked cannot
be done; 3 a bug of lcc; 130 stopped by Ctrl-C, 143 by SIGTERM. Each is one line on stderr;
LCC_LOG=debug shows the traceback of a bug.
"""

import signal
from typing import Annotated

import typer

from lcc.cli import (
    bench,
    chat,
    compile,
    demo,
    eval,
    inspect,
    plan,
    run,
    sign,
    targets,
    train,
    tune_budget,
    verify,
)
from lcc.cli.frame import CommandGroup, show_version

app = typer.Typer(
    name="lcc",
    cls=CommandGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=show_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """lcc, the long-context compiler: read text of any length in memory fixed at compile time.

    \b
    A first session:
      lcc demo                                        all of the below, on a small model
      lcc compile MODEL -o model.lcc --memory 1GB     a Hugging Face folder or name, or a GGUF file
      lcc inspect model.lcc                           what it holds and what memory it takes
      lcc run model.lcc --file book.txt --prompt "Who is the narrator?"
      lcc chat model.lcc                              a conversation without end
    """


COMMANDS = (
    *(compile, run, chat, inspect, verify, sign),
    *(eval, tune_budget, bench, plan, targets, demo),
)
for module in COMMANDS:
    app.command(name=module.__name__.rpartition(".")[2].replace("_", "-"))(module.command)
app.add_typer(train.app, name="train")


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, _end)
    app()


def _end(*_: object) -> None:
    """Told to end: what Ctrl-C cleans up, files half written and processes, goes here, too."""
    raise SystemExit(143)
