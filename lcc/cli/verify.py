"""`lcc verify`."""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcc.cli.arguments import Device, Quiet, Target
from lcc.cli.frame import progress_bar, quiet_torch, table
from lcc.cli.load import on_cpu, open_session
from lcc.env import needs_extra
from lcc.errors import ConfigError

if TYPE_CHECKING:
    from lcc.measure.comparison import Report


def command(
    artifact: Annotated[Path, typer.Argument(help="The artifact, a folder.")],
    model: Annotated[
        str | None, typer.Option(help="What it was compiled from, as in lcc compile.")
    ] = None,
    golden: Annotated[
        bool, typer.Option("--golden", help="Reproduce golden.json; needs no model, no PyTorch.")
    ] = False,
    heads: Annotated[
        Path | None, typer.Option(help="The retaining heads it was compiled with, if any.")
    ] = None,
    target: Target = None,
    device: Device = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare an artifact with its golden.json, or with its model in eager PyTorch.

    With --golden: read the token ids of golden.json, and compare counters, kept positions, logits
    and next tokens. With --model: show the largest error of each program, and whether a whole
    prompt gives the same tokens; of weights in 8 or 4 bits, what they lose in divergence (nats a
    token) and in perplexity. Exit code 1 if something differs by more than it may.

    \b
    Examples:
      lcc verify m.lcc --golden
      lcc verify m.lcc --model ./my-model
      lcc verify smollm2.lcc --model smollm2 --json
    """
    if golden == (model is not None):
        got = "--golden and --model" if golden else "neither --golden nor --model"
        raise ConfigError(f"{got} given; wanted one of them")
    if heads is not None and golden:
        raise ConfigError("--heads is of use with --model only; leave it out")
    if model is None:
        from lcc.measure.check_golden import check_golden

        report = check_golden(open_session(artifact, target=target, device=device).model, artifact)
    else:
        with needs_extra("compile"):
            from lcc.measure.verify import verify

        with quiet_torch(), progress_bar(quiet=quiet) as progress:
            report = verify(
                artifact,
                model,
                heads=heads,
                target=target,
                device="cpu" if on_cpu(device) else None,
                progress=progress,
            )
    show(report, json=json)
    if not report.ok:
        raise typer.Exit(1)


def show(report: "Report", *, json: bool) -> None:
    """Print all comparisons, as a table or as JSON."""
    import msgspec

    rows = msgspec.to_builtins(list(report.rows))
    if json:
        typer.echo(json_.dumps({"ok": report.ok, "rows": rows}, indent=2))
        return
    head = tuple(name.replace("_", " ") for name in rows[0])
    typer.echo(table([head, *(tuple(_text(cell) for cell in row.values()) for row in rows)]))
    typer.echo(verdict(report))


def verdict(report: "Report") -> str:
    """One line for people."""
    if not report.exact:
        return "within what this precision may lose" if report.ok else "MORE lost than may be"
    return "the same" if report.ok else "NOT the same"


def _text(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "NO"
    return f"{cell:.2e}" if isinstance(cell, float) else str(cell)
