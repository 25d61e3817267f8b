"""`lcc bench`."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcc.artifact.manifest import read_manifest
from lcc.artifact.signature import verify_signature
from lcc.cli import asking
from lcc.cli.arguments import AllowNative, Quiet, TrustedKey
from lcc.cli.frame import progress_bar, read_text, table
from lcc.config import Budget
from lcc.env import needs_extra

if TYPE_CHECKING:
    from lcc.measure.bench.summary import Cell


def command(
    artifacts: Annotated[
        list[Path], typer.Argument(help="Artifacts of one model; others compare with the first.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for what is measured.")],
    lengths: Annotated[str, typer.Option(help="Tokens of the prompt; 1k is 1024.")] = "1k,4k",
    new_tokens: Annotated[int, typer.Option(min=2, help="Tokens to write after it.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 3,
    budgets: Annotated[
        str | None,
        typer.Option(help="Entries kept, or entries:slots; less than compiled [as compiled]."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="openvino-genai, onnxruntime-genai, llama-cpp, transformers, kvpress."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="What the artifacts were compiled from, for --against.")
    ] = None,
    peer_precision: Annotated[
        str, typer.Option(help="Weights of the others: fp32, int4, or both.")
    ] = "fp32",
    peers: Annotated[
        Path | None, typer.Option(help="Folder for their weights [peers, in the output].")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Text to read [ids drawn from the seed].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same ids.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every engine.")] = 2,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds that one measurement may take.")
    ] = None,
    plot: Annotated[bool, typer.Option("--plot/--no-plot", help="Draw bench.png, .svg.")] = True,
    allow_native: AllowNative = False,
    trusted_key: TrustedKey = None,
    quiet: Quiet = False,
) -> None:
    """Measure speed and memory, the same way for artifacts and for other engines.

    Every figure comes from a process of its own: load, warm up with another prompt, read, write by
    greedy choice. Rounds are interleaved (A B C, A B C, ...), for machines are now faster, now
    slower; a ratio is the median of the rounds' ratios to the first artifact. Everyone reads the
    same token ids with as many threads. `same ids` tells how many of the first tokens written are
    the first artifact's: all of them, or nearly, where both hold the whole text at one precision.

    An artifact for several targets is measured with each. --against names other engines, which
    are no part of lcc: what is not installed is skipped, and the pip command for it said. They
    get the weights of --model, converted once; kvpress keeps as many entries as the artifact
    does. onnxruntime-genai reads no more than the model's window, prompt and answer together.

    The folder gets bench.json, bench.csv (a line a measurement), run_meta.json (versions, machine)
    and the picture. The same command goes on where it was stopped; what failed is not tried again.
    Artifacts, budgets and engines may be added to it: they are then measured at another time than
    what they are compared with. Exit code 1: an artifact has no numbers at all.

    \b
    Examples:
      lcc bench m.lcc -o bench
      lcc bench infinipot.lcc h2o.lcc -o bench --lengths 1k,4k,16k --file book.txt
      lcc bench m.lcc -o bench --lengths 32k --budgets 1024,512:1024
      lcc bench m.lcc -o bench --against llama-cpp,onnxruntime-genai --model smollm2
      lcc bench m.lcc -o b --against openvino-genai --model m.gguf --peer-precision int4
    """
    from lcc.measure.bench import line_up
    from lcc.measure.bench.engines.kept import identity
    from lcc.measure.bench.prompt import random_ids, text_ids
    from lcc.measure.bench.rounds import Plan, in_process, run
    from lcc.measure.bench.store import Store
    from lcc.measure.bench.summary import summarize
    from lcc.measure.machine import this_machine

    sizes, wanted = sorted(asking.numbers(lengths, "--lengths")), asking.budgets(budgets)
    if plot:
        with needs_extra("eval"):
            import matplotlib  # noqa: F401  (told now, not after the measurements)
    if trusted_key:
        for artifact in artifacts:
            verify_signature(artifact, trusted_key)
    allowed = allow_native or bool(trusted_key)
    engines = line_up.artifacts(artifacts, wanted, allow_native=allowed)
    text = read_text(file) if file else None
    if text is None:
        ids, prompt = random_ids(artifacts[0], max(sizes), seed), f"seed {seed}"
    else:
        ids = text_ids(artifacts[0], text, max(sizes))
        prompt = f"sha256 {hashlib.sha256(text.encode()).hexdigest()}"
    named = asking.names(against, "--against")
    precisions = asking.names(peer_precision, "--peer-precision")
    others, skipped = line_up.peers(named, model, precisions, kept_entries(artifacts[0], wanted))
    here = this_machine()
    asked: dict[str, Any] = {
        "lengths": sizes,
        "new_tokens": new_tokens,
        "rounds": rounds,
        "threads": threads,
        "prompt": prompt,
        "compared_with": engines[0].label,
        "engines": {each.label: each.identity for each in [*engines, *others]},
        "cpu": here["cpu"],
    }
    if others and model is not None:
        asked["model"] = identity(model)
    store = Store(output, asked, {"command": sys.argv, "machine": here, "skipped": skipped})
    with progress_bar(quiet=quiet) as report:
        if others and model is not None:
            others, failed = line_up.prepare(others, model, peers or output / "peers", report)
            skipped |= failed
            store.note("skipped", skipped)
        for name, why in skipped.items():
            typer.echo(f"{name} is left out: {why}", err=True)
        plan = Plan(engines=[*engines, *others], lengths=sizes, rounds=rounds)
        run(plan, ids, store, in_process(new_tokens, threads, timeout), report)
    cells = summarize(store.measurements)
    for size in sizes:
        typer.echo(f"{size:,} tokens read, {new_tokens:,} written; rounds: {rounds}")
        typer.echo(_table([cell for cell in cells if cell.tokens == size]) + "\n")
    window = read_manifest(artifacts[0]).model.trained_window
    if others and window is not None and max(sizes) + new_tokens > window:
        typer.echo(
            f"The model was trained on {window:,} tokens: beyond them, the figures of an engine "
            "that places every token are of speed and memory, not of use."
        )
    for line in remarks(cells, threads):
        typer.echo(line)
    written = ["bench.json", "bench.csv", "run_meta.json"]
    if plot:
        from lcc.measure.bench.plot import draw

        written += [path.name for path in draw(cells, output)]
    typer.echo(f"{output}: {', '.join(written)}")
    measured = {cell.engine for cell in cells if cell.rounds}
    sources = {each.source for each in engines}
    if sources - {each.source for each in engines if each.label in measured}:
        raise typer.Exit(1)


def kept_entries(artifact: Path, budgets: Sequence[Budget]) -> list[int]:
    """Entries that the first artifact keeps, for each of the budgets."""
    own = read_manifest(artifact).cache.budget
    return list(dict.fromkeys(each.budget or own for each in budgets)) or [own]


def _table(cells: "Sequence[Cell]") -> str:
    """A line an engine; where there are no numbers, why."""
    head: tuple[str, ...] = (
        "",
        "prefill tokens/s",
        "x",
        "decode tokens/s",
        "x",
        "first s",
        "load s",
    )
    head += ("peak MB", "x", "KV MB", "cycles", "same ids", "")
    return table([head, *(_row(cell) for cell in cells)], right=tuple(range(1, 12)))


def _row(cell: "Cell") -> tuple[str, ...]:
    return (
        cell.engine,
        _number(cell, "prefill_tokens_per_second", spread=True),
        _ratio(cell, "prefill_tokens_per_second"),
        _number(cell, "decode_tokens_per_second", spread=True),
        _ratio(cell, "decode_tokens_per_second"),
        _number(cell, "first_token_seconds", digits=2),
        _number(cell, "load_seconds", digits=2),
        _number(cell, "peak_rss_bytes", 1e-6, digits=0),
        _ratio(cell, "peak_rss_bytes"),
        _number(cell, "kv_bytes", 1e-6),
        _number(cell, "cycles", digits=0),
        "" if cell.same_ids is None else f"{cell.same_ids} of {len(cell.first_ids)}",
        _why(cell),
    )


def _why(cell: "Cell") -> str:
    """Why there are no numbers, or not those of all rounds."""
    if cell.error is None or not cell.rounds:
        return cell.error or ""
    return f"{cell.rounds} rounds, then: {cell.error}"


def _number(
    cell: "Cell", metric: str, unit: float = 1, *, digits: int = 1, spread: bool = False
) -> str:
    if metric not in cell.numbers:
        return "-"
    found = cell.numbers[metric]
    middle, least, most = (
        f"{value * unit:,.{digits}f}" for value in (found.median, found.least, found.most)
    )
    return f"{middle} ({least}-{most})" if spread and cell.rounds > 1 else middle


def _ratio(cell: "Cell", metric: str) -> str:
    found = cell.numbers.get(metric)
    return "" if found is None or found.ratio is None else f"{found.ratio:.2f}"


def remarks(cells: "Sequence[Cell]", threads: int) -> list[str]:
    """What a reader of the tables must know: an engine that took more threads than it was given."""
    found = []
    for cell in cells:
        used = cell.numbers.get("cores_used")
        if used is not None and used.most > 1.1 * threads:
            found.append(
                f"{cell.engine} at {cell.tokens:,} used {used.most:.1f} cores; "
                f"{threads} threads were asked for"
            )
    return found
