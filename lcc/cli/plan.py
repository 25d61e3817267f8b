"""`lcc plan`."""

import json as json_
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcc.artifact.outputs import check_output
from lcc.cli.arguments import Quiet
from lcc.cli.frame import bytes_text, progress_bar, quiet_torch, read_text, table
from lcc.cli.options import parse_bytes
from lcc.config import CacheConfig
from lcc.env import needs_extra
from lcc.errors import ConfigError
from lcc.ir.plan import Full, parse_kind, parse_plan, positions_of

if TYPE_CHECKING:
    from lcc.search.find_plan import Found, Row


def command(
    model: Annotated[str, typer.Argument(help="Folder, hub name, .gguf file, or smollm2.")],
    data: Annotated[Path, typer.Option(help="A text, such as the model will read.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The plan, a YAML file.")],
    kind: Annotated[
        str, typer.Option(help="What the layers see that are not full.")
    ] = "sink_window(sink=4, window=512)",
    full: Annotated[
        int | None,
        typer.Option(min=0, help="Layers that stay full [a third, or what --kv allows]."),
    ] = None,
    kv: Annotated[
        str | None, typer.Option(help="Keys and values may take so much, such as 60MB.")
    ] = None,
    capacity: Annotated[int | None, typer.Option(help="Slots of a full layer [2048].")] = None,
    length: Annotated[int, typer.Option(min=64, help="Tokens of a piece of the text.")] = 2048,
    pieces: Annotated[int, typer.Option(min=1, help="Pieces, spread over the text.")] = 4,
    picture: Annotated[
        Path | None, typer.Option(help="Losses by layer and by size, a .png or .svg file.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of PyTorch.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Find which layers may see less: a plan for `lcc compile --plan`.

    Nothing is trained. Every layer is made sparse alone, then one after the other, each time the
    one that costs least. What counts is how far the probabilities of the next token move away from
    the model's own (KL divergence, nats a token), where a text is longer than the window. The plan
    is compared with others that leave as many layers full: the middle ones (LongGen), the first,
    the last, and every so manieth. Positions are contiguous, as by default; with block_sparse,
    absolute.

    What each layer begins with is kept, to go on from there: about 2 GB for smollm2 at 4 pieces of
    2048 tokens. Fewer or shorter pieces take less.

    \b
    Examples:
      lcc plan smollm2 --data book.txt -o plan.yaml --picture plan.png
      lcc plan smollm2 --data book.txt -o plan.yaml --kv 40MB --kind "sink_window(window=256)"
      lcc compile smollm2 -o hybrid.lcc --plan plan.yaml
    """
    sparse = parse_kind(kind)
    if isinstance(sparse, Full):
        raise ConfigError("--kind full: wanted what the layers see that are not full")
    if full is not None and kv is not None:
        raise ConfigError("--full and --kv both say how many layers stay full; wanted one of them")
    limit = None if kv is None else parse_bytes(kv)
    cache = CacheConfig()
    if capacity is not None:
        cache = CacheConfig(capacity=capacity, budget=capacity // 2)
    check_output(output)
    if picture is not None:
        check_output(picture, ".png", ".svg")
        with needs_extra("eval"):
            import matplotlib  # noqa: F401  (told now, not after the measurements)
    text = read_text(data)
    with needs_extra("compile"):
        from lcc.search.find_plan import find_plan
        from lcc.sources.models import load_model
        from lcc.train.processes import use_threads
    if threads is not None:
        use_threads(threads)
    with quiet_torch(), progress_bar(quiet=quiet) as report:
        report("load the model", 0.0)
        found = find_plan(
            load_model(model),
            text,
            sparse,
            full=full,
            kv_limit=limit,
            cache=cache,
            length=length,
            pieces=pieces,
            progress=report,
        )
    sized = capacity is not None or kv is not None
    output.write_text(_yaml(found, cache if sized else None), encoding="utf-8")
    if picture is not None:
        _plot(found, picture)
    if json:
        page: dict[str, Any] = {
            "kind": found.kind,
            "best": asdict(found.best),
            "alone": found.alone,
        }
        page["plans"] = {name: asdict(row) for name, row in _rows(found).items()}
        page["steps"] = [asdict(row) for row in found.steps]
        typer.echo(json_.dumps(page))
        return
    typer.echo(f"{output}: {found.best.plan}")
    rows = [("", "full", "keys and values", "divergence", "perplexity")]
    rows += [
        (
            f"  {name}",
            str(row.full),
            bytes_text(row.kv_bytes),
            f"{row.divergence:.4f}",
            f"{row.perplexity:.2f}",
        )
        for name, row in _rows(found).items()
    ]
    typer.echo(table(rows, right=(1, 2, 3, 4)))


def _rows(found: "Found") -> "dict[str, Row]":
    """All that is compared, the found plan second."""
    others = dict(found.others)
    return {"dense": others.pop("dense"), "found, one by one": found.steps[-1]} | others


def _yaml(found: "Found", cache: CacheConfig | None) -> str:
    """A file for `lcc compile --plan`; what was measured stands in comments.

    cache       of what size the plan is meant; None = the user named none
    """
    lines = [
        f"# {found.best.divergence:.4f} nats a token away from the dense model "
        f"(perplexity {found.best.perplexity:.2f}, dense {found.others['dense'].perplexity:.2f}),",
        f"# {found.best.full} full layers. Each layer alone as {found.kind}, nats a token:",
    ]
    lines += [
        f"#   {i}: {'has a window of its own' if loss is None else f'{loss:.5f}'}"
        for i, loss in enumerate(found.alone)
    ]
    lines.append(f'plan: "{found.best.plan}"')
    sizes = [] if cache is None else [f"capacity: {cache.capacity}, budget: {cache.budget}"]
    positions = positions_of(parse_plan(found.best.plan, len(found.alone)))
    lines.append(f"cache: {{{', '.join([*sizes, f'positions: {positions}'])}}}")
    return "\n".join(lines) + "\n"


def _plot(found: "Found", path: Path) -> None:
    """Left, what every layer loses alone; right, what plans lose, over their size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4))
    left, right = figure.subplots(1, 2)
    full = {
        i for i, kind in enumerate(parse_plan(found.best.plan, len(found.alone))) if kind == Full()
    }
    colours = ["tab:blue" if i in full else "lightsteelblue" for i in range(len(found.alone))]
    left.bar(range(len(found.alone)), [loss or 0.0 for loss in found.alone], color=colours)
    left.set(xlabel="layer (dark: stays full)", ylabel="KL, nats a token", title="one layer sparse")
    right.plot(
        [row.kv_bytes / 1e6 for row in found.steps],
        [row.divergence for row in found.steps],
        "o-",
        label="found, one by one",
        markersize=3,
    )
    for (name, row), marker in zip(found.others.items(), "*s^vD", strict=False):
        right.plot(row.kv_bytes / 1e6, row.divergence, marker, label=name)
    right.set(xlabel="keys and values, MB", ylabel="KL, nats a token", title="plans")
    right.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
