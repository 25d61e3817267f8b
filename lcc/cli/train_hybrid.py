"""`lcc train hybrid`."""

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcc.cli.arguments import Quiet
from lcc.cli.frame import bytes_text, progress_bar, quiet_torch, table
from lcc.cli.options import plan_text
from lcc.env import needs_extra
from lcc.errors import ConfigError

if TYPE_CHECKING:
    from lcc.train.log import Step


def hybrid(
    model: Annotated[str, typer.Argument(help="Folder, hub name, .gguf file, or smollm2.")],
    plan: Annotated[
        str, typer.Option(help="What each layer sees: longgen(...), ranges, or a .yaml file.")
    ],
    recipe: Annotated[str, typer.Option(help="longgen, prolong, or a YAML file.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The trained model, a new folder.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PLACE", help="Where the texts of a source are; once for each."),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Texts to measure on, which are not learned.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda [cuda where there is one].")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in OUTPUT.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print tokens, steps and memory; train nothing.")
    ] = False,
    devices: Annotated[int, typer.Option(min=1, help="For --dry-run: processes.")] = 1,
    show: Annotated[
        bool, typer.Option("--show", help="Print the recipe as YAML, to change it; train nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the losses as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a model whose layers see only what a plan lets them see.

    A recipe says how: stages of length, each with its sources, their shares, steps, learning rate
    and base of the rotary angles. A place is a file or a folder (*.jsonl, *.parquet, *.txt, *.md)
    or hub:NAME, a dataset. OUTPUT becomes a model folder like any other, with hybrid.yaml for
    lcc compile, log.jsonl, loss.png, and tensorboard/.

    On several processors or GPUs, which share the weights: torchrun --nproc-per-node 8 -m lcc
    train hybrid ...

    \b
    Examples:
      lcc train hybrid smollm2 --plan longgen --recipe longgen --dry-run --devices 8
      lcc train hybrid smollm2 --plan longgen --recipe longgen --show > mine.yaml
      lcc train hybrid smollm2 --plan longgen --recipe mine.yaml --source books=books/ -o out
      lcc compile out -o hybrid.lcc --plan out/hybrid.yaml
    """
    with needs_extra("train"):
        import datasets  # noqa: F401  (told now, not after the model is loaded)
        import matplotlib  # noqa: F401
        import tensorboard  # noqa: F401
    from lcc.train.recipe import load_recipe, recipe_yaml

    plan = plan_text(plan)
    found = load_recipe(recipe, _places(source or []))
    if show:
        typer.echo(recipe_yaml(recipe, found), nl=False)
        return
    if dry_run:
        from lcc.train.dry_run import estimate

        with quiet_torch():
            pages = estimate(model, plan, found, devices=devices)
        if json:
            typer.echo(json_.dumps([page.__dict__ for page in pages]))
            return
        titles = ("stage", "length", "steps", "sequences", "tokens", "attention", "memory")
        rows = [
            (
                page.stage,
                f"{page.length:,}",
                f"{page.steps:,}",
                f"{page.sequences} a step",
                f"{page.tokens:,}",
                f"{page.attention:.0%} of dense",
                bytes_text(page.memory),
            )
            for page in pages
        ]
        typer.echo(table([titles, *rows], right=(1, 2, 3, 4, 5, 6)))
        typer.echo(f"memory: of each of {devices}, weights, moments and one sequence, estimated")
        return
    if output is None:
        raise ConfigError("no place for the trained model; say -o FOLDER")
    if held_out is not None and not held_out.exists():
        raise ConfigError(f"{held_out}: no such file or folder")
    with needs_extra("compile"):
        from lcc.train.hybrid import train_hybrid
        from lcc.train.processes import is_first, use_threads
    if threads is not None:
        use_threads(threads)
    with quiet_torch(), progress_bar(quiet=quiet or not is_first()) as report:
        report("load the model", 0.0)

        def tell(step: "Step") -> None:
            report(f"{step.stage} {step.step}: loss {step.loss:.3f}", step.done)

        measured = train_hybrid(
            model,
            plan,
            found,
            output,
            held_out=held_out,
            device=device,
            resume=resume,
            show=tell,
        )
    if not is_first():
        return
    if json:
        typer.echo(json_.dumps(measured))
        return
    typer.echo(str(output))
    if measured:
        typer.echo("loss of the texts held out, nats a token:")
        names = {
            "dense": "every layer full, untrained",
            "before": "the plan, untrained",
            "after": "the plan, trained",
        }
        losses = [(f"  {names[each]}", f"{loss:.4f}") for each, loss in measured.items()]
        typer.echo(table(losses, right=(1,)))


def _places(texts: list[str]) -> dict[str, str]:
    places = {}
    for text in texts:
        name, equals, place = text.partition("=")
        if not equals or not name or not place:
            raise ConfigError(f"--source {text}: wanted NAME=PLACE")
        places[name] = place
    return places
