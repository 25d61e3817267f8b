"""`lcc verify`."""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcc.artifact.signature import verify_signature
from lcc.cli.arguments import AllowNative, Device, Quiet, Target, TrustedKey
from lcc.cli.frame import progress_bar, quiet_torch, table
from lcc.cli.load import on_cpu, open_session
from lcc.env import needs_extra
from lcc.errors import ConfigError, TrustError

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
    signature: Annotated[
        bool, typer.Option("--signature", help="Only check that a --trusted-key has signed it.")
    ] = False,
    trusted_key: TrustedKey = None,
    allow_native: AllowNative = False,
    target: Target = None,
    device: Device = None,
    json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare an artifact with its golden.json, its model in eager PyTorch, or its signature.

    With --golden: read the token ids of golden.json, and compare counters, kept positions, logits
    and next tokens. With --model: show the largest error of each program, and whether a whole
    prompt gives the same tokens; of weights in 8 or 4 bits, what they lose in divergence (nats a
    token) and in perplexity. Exit code 1 if something differs by more than it may.

    \b
    Examples:
      lcc verify m.lcc --golden
      lcc verify m.lcc --signature --trusted-key release.pub
      lcc verify m.lcc --model ./my-model
      lcc verify smollm2.lcc --model smollm2 --json
    """
    given = {"--golden": golden, "--model": model is not None, "--signature": signature}
    if sum(given.values()) != 1:
        names = [name for name, yes in given.items() if yes]
        got = " and ".join(names) if names else "none of --golden, --model and --signature"
        raise ConfigError(f"{got} given; wanted one of them")
    if signature:
        _check_signature(artifact, trusted_key)
        return
    if heads is not None and golden:
        raise ConfigError("--heads is of use with --model only; leave it out")
    if model is None:
        from lcc.measure.check_golden import check_golden

        session = open_session(
            artifact,
            target=target,
            device=device,
            allow_native=allow_native,
            trusted_keys=trusted_key,
        )
        report = check_golden(session.model, artifact)
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
                allow_native=allow_native,
                trusted_keys=trusted_key or None,
                progress=progress,
            )
    show(report, json=json)
    if not report.ok:
        raise typer.Exit(1)


def _check_signature(artifact: Path, trusted_keys: list[str] | None) -> None:
    """Say who has signed an artifact; exit code 1 where it is none of the trusted keys."""
    if not trusted_keys:
        raise ConfigError("--signature needs a --trusted-key: a public key, or its file")
    try:
        key, comment = verify_signature(artifact, trusted_keys)
    except TrustError as error:
        typer.echo(f"NOT signed by a trusted key: {error}")
        raise typer.Exit(1) from None
    said = "".join(letter for letter in comment if letter.isprintable())
    typer.echo(f"signed by {key}\n{said}")


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
