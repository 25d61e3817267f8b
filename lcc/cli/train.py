"""`lcc train`."""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcc.cli.arguments import Quiet
from lcc.cli.frame import progress_bar, quiet_torch, table
from lcc.cli.train_hybrid import hybrid
from lcc.env import needs_extra

if TYPE_CHECKING:
    from lcc.train.heads import Step

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def root() -> None:
    """Train what a policy needs, retaining heads, or what a plan needs, the model itself."""


app.command()(hybrid)


@app.command()
def heads(
    model: Annotated[str, typer.Argument(help="Folder, hub name, .gguf file, or smollm2.")],
    data: Annotated[Path, typer.Option(help="*.jsonl, *.txt or *.md, or a folder of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The heads, a file.")],
    teacher: Annotated[
        str | None, typer.Option(help="repeat (no question needed) or answer.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Hidden numbers of a head [128].")] = None,
    length: Annotated[int | None, typer.Option(help="Tokens of a text, at most [1024].")] = None,
    answer_size: Annotated[
        int | None, typer.Option(help="Tokens of an answer, at most [128].")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps [300].")] = None,
    warmup_steps: Annotated[
        int | None, typer.Option(help="With a rising learning rate [two thirds].")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Texts a step, over all processes [1].")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="At its highest [5e-4].")] = None,
    smoothing: Annotated[
        float | None, typer.Option(help="Weight of neighbours' differences [0.0025].")
    ] = None,
    validation: Annotated[float | None, typer.Option(help="Share held out [0.05].")] = None,
    every: Annotated[int | None, typer.Option(help="Steps between checkpoints [50].")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and order [0].")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda [cuda where there is one].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUTPUT.checkpoint.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train retaining heads: small networks that say which entries of a cache will be wanted.

    The model itself is not changed. What the heads learn is how much later tokens look at an entry:
    those of an answer (--teacher answer, with lines of {"prompt": ..., "answer": ...}), or those of
    the text itself, read a second time (--teacher repeat), which needs no question. At the end they
    are compared, on texts held out, with scores that need no training.

    OUTPUT.log.jsonl gets a line a step. On several processors or GPUs: torchrun
    --nproc-per-node 2 -m lcc train heads ...

    \b
    Examples:
      lcc train heads smollm2 --data texts/ -o heads.safetensors
      lcc train heads smollm2 --data pairs.jsonl --teacher answer -o heads.safetensors
      lcc compile smollm2 -o m.lcc --policy locret --heads heads.safetensors
    """
    import msgspec

    with needs_extra("compile"):
        from lcc.sources.models import load_model
        from lcc.train.heads import train_heads
        from lcc.train.processes import is_first, use_threads
        from lcc.train.trainer import HeadsConfig
    from lcc.errors import ConfigError

    given = {
        "teacher": teacher,
        "width": width,
        "length": length,
        "answer_size": answer_size,
        "steps": steps,
        "warmup_steps": warmup_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "smoothing": smoothing,
        "validation": validation,
        "every": every,
        "seed": seed,
    }
    given = {name: value for name, value in given.items() if value is not None}
    try:
        config = msgspec.convert(given, HeadsConfig)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from None
        raise ConfigError(str(error)) from None
    if not data.exists():
        raise ConfigError(f"{data}: no such file or folder")
    if threads is not None:
        use_threads(threads)
    with quiet_torch(), progress_bar(quiet=quiet) as report:
        report("load the model", 0.0)
        last = ""

        def show(step: "Step") -> None:
            nonlocal last
            if step.overlap is not None:
                last = f", top 10 % {step.overlap:.2f}"
            report(f"loss {step.loss:.3f}{last}", step.step / config.steps)

        result = train_heads(
            load_model(model),
            data,
            output,
            config,
            device=device,
            resume=resume,
            progress=show,
        )
    if not is_first():
        return
    if json:
        typer.echo(json_.dumps(result))
        return
    typer.echo(str(output))
    if result:
        typer.echo("share of the entries worth most that a score finds, on texts held out:")
        rows = sorted(result.items(), key=lambda row: -row[1])
        typer.echo(table([(f"  {name}", f"{share:.3f}") for name, share in rows], right=(1,)))
