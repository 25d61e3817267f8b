"""`lcc targets`."""

import json as json_
from typing import Annotated

import typer

from lcc.cli.frame import table


def command(
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """List the targets: what compiles here, what runs here, how each was checked.

    An artifact for a device that is not here runs on the CPU where it is asked to: --device cpu.

    \b
    Examples:
      lcc targets
      lcc compile MODEL -o OUT.lcc --target onnxruntime:cpu
    """
    from lcc.targets import TARGETS, install, missing, missing_device

    pages = {
        name: {
            "missing": missing(name),
            "missing_device": missing_device(name),
            "checked": entry.checked,
        }
        for name, entry in TARGETS.items()
    }
    if json:
        typer.echo(json_.dumps(pages, indent=2, sort_keys=True))
        return
    rows: list[tuple[object, ...]] = [("target", "compiles here", "runs here", "checked")]
    for name, page in pages.items():
        lacking, device = page["missing"], page["missing_device"]
        rows.append(
            (
                name,
                f"no: needs {', '.join(lacking)}" if lacking else "yes",
                f"no: has no {device}" if device else "yes",
                page["checked"],
            )
        )
    typer.echo(table(rows))
    for command in dict.fromkeys(install(name) for name, page in pages.items() if page["missing"]):
        typer.echo(f"for what is missing: {command}")
