"""`lcc targets`."""

import json as json_
from typing import Annotated

import typer

from lcc.cli.frame import table


def command(
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the targets, and why one cannot be used here.

    \b
    Examples:
      lcc targets
      lcc compile MODEL -o OUT.lcc --target onnxruntime:cpu
    """
    from lcc.targets import TARGETS, install, missing

    lacking = {name: missing(name) for name in TARGETS}
    if json:
        typer.echo(json_.dumps(lacking, indent=2, sort_keys=True))
        return
    rows: list[tuple[object, ...]] = []
    for name, modules in lacking.items():
        needs = (
            f"not here: needs {', '.join(modules)}; do: {install(name)}" if modules else "available"
        )
        rows.append((name, needs))
    typer.echo(table(rows))
