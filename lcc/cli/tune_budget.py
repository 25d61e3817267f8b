"""`lcc tune-budget`."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

import lcc
from lcc.artifact.manifest import read_manifest
from lcc.cli import asking
from lcc.cli.arguments import (
    AllowNative,
    ChatTemplate,
    Device,
    FirstSeed,
    Haystack,
    Jobs,
    Quiet,
    Target,
    ThreadsOfAll,
    TrustedKey,
)
from lcc.cli.frame import table
from lcc.cli.load import on_cpu
from lcc.config import CacheConfig, PolicyConfig
from lcc.errors import ConfigError
from lcc.measure.evaluate.catalog import PERPLEXITY, check_tasks
from lcc.measure.evaluate.grid import Cell, Subject, cells_of, units_of
from lcc.measure.evaluate.haystack import read_haystack


def command(
    artifact: Annotated[Path, typer.Argument(help="The artifact, a folder.")],
    tasks: Annotated[str, typer.Option(help="Names, with commas; see below.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    target_accuracy: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the reference's accuracy.")
    ] = 0.95,
    absolute: Annotated[
        bool, typer.Option("--absolute", help="The target is the accuracy itself.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="The reference: this model with its full cache.")
    ] = None,
    lengths: Annotated[str, typer.Option(help="Tokens of the text; 4k = 4096.")] = "4k",
    samples: Annotated[int, typer.Option(min=1, help="A task and length.")] = 20,
    budgets: Annotated[str | None, typer.Option(help="Try these, instead of searching.")] = None,
    capacity: Annotated[int | None, typer.Option(help="Less than compiled.")] = None,
    haystack: Haystack = None,
    setting: Annotated[str, typer.Option(help="query-agnostic or query-aware.")] = "query-agnostic",
    chat: ChatTemplate = False,
    seed: FirstSeed = 0,
    jobs: Jobs = 1,
    threads: ThreadsOfAll = None,
    target: Target = None,
    device: Device = None,
    allow_native: AllowNative = False,
    trusted_key: TrustedKey = None,
    quiet: Quiet = False,
) -> None:
    """Find the smallest budget that still answers nearly as well.

    The reference is the artifact at its compiled budget; with --model, the model in eager PyTorch
    with its full cache, at lengths that it was made for. With --absolute nothing is compared.

    The budget is halved until the target is missed, then the gap is halved, down to a sixteenth of
    the compiled budget; or give --budgets. Accuracy may go up and down: a budget is chosen only if
    every larger one that was tried reaches the target. What decides is the mean over the same
    samples at every budget; where their spread leaves room for doubt, that is said, and more
    --samples settle it.

    \b
    Tasks:
    {TASKS}

    The folder is that of `lcc eval`, with the report; the same command goes on where it stopped,
    and with another --target-accuracy, or other --budgets, uses the samples that are there.

    \b
    Examples:
      lcc tune-budget m.lcc --tasks passkey --lengths 8k -o tuned
      lcc tune-budget m.lcc --tasks passkey --target-accuracy 0.9 --absolute --lengths 8k -o tuned
      lcc tune-budget m.lcc --tasks passkey --budgets 128,256,512 --samples 40 -o tuned
    """
    chosen = asking.names(tasks, "--tasks")
    check_tasks(chosen, haystack=haystack is not None)
    if PERPLEXITY in chosen:
        raise ConfigError("--tasks perplexity has no accuracy; wanted tasks with answers")
    if absolute and model is not None:
        raise ConfigError("--absolute compares with nothing; wanted it or --model, not both")
    sizes, settings = asking.numbers(lengths, "--lengths"), asking.settings(setting)
    if len(settings) > 1:
        raise ConfigError(f"--setting {setting}: one budget, one setting; wanted one of them")
    if chat:
        asking.check_chat([artifact])
    cache = read_manifest(artifact).cache
    listed = asking.numbers(budgets, "--budgets")
    for budget in listed:
        asking.artifact_subject(artifact, budget, capacity)  # refuses what cannot be
    if asking.artifact_subject(artifact, None, capacity).budget is None:
        raise ConfigError(f"{artifact}: it evicts nothing, there is no budget to choose")

    from lcc.measure.evaluate import report
    from lcc.measure.evaluate.results import Results
    from lcc.measure.evaluate.results import machine as machine_page
    from lcc.measure.evaluate.tune import choose, search
    from lcc.measure.evaluate.workers import Recipe

    haystack = asking.used_haystack(haystack, chosen)
    on_cpu(device)  # a mistake is told before anything is loaded
    machine = asking.Machine(
        jobs=jobs,
        threads=threads,
        target=target,
        device=device,
        allow_native=allow_native,
        trusted_keys=trusted_key,
        quiet=quiet,
    )
    recipe = Recipe(
        samples=samples,
        seed=seed,
        chat=chat,
        sentences=[] if haystack is None else read_haystack(haystack),
    )
    asked = {
        "lcc": lcc.__version__,
        "artifacts": [asking.artifact_page(artifact, target)],
        "capacity": capacity,
        "model": asking.model_page(model),
        "tasks": chosen,
        "lengths": sizes,
        "samples": samples,
        "settings": settings,
        "chat": chat,
        "seed": seed,
        "haystack": asking.digest(haystack),
        "device": device,
    }
    results = Results(output, asked, machine_page() | machine.meta())
    cells: list[Cell] = []

    def write(note: str | None = None) -> None:
        report.write(results, results.write(cells), note)

    def scores(subject: Subject) -> list[float]:
        """Of all samples, in the same order for every subject."""
        mine = cells_of([subject], chosen, sizes, settings)
        cells.extend(mine)
        units = units_of(mine, dict.fromkeys(chosen, samples))
        asking.told_failures(asking.do(results, units, recipe, machine, write))
        lines = [results.lines[unit.key] for unit in units]
        for line in lines:
            if "error" in line:
                raise ConfigError(f"{subject.name}, {line['task']}: {line['error']}")
        return [line["score"] for line in lines]

    note = None
    try:
        reference = None
        if model is not None:
            reference = scores(Subject(kind="full", source=model, policy="full cache"))
        tried = search(
            lambda budget: scores(asking.artifact_subject(artifact, budget, capacity)),
            compiled=cache.budget,
            smallest=cache.sink_size + cache.recent_size + 1,
            target=target_accuracy,
            reference=reference,
            absolute=absolute,
            budgets=listed,
        )
        best = choose(tried)
        note = _advice(best, artifact, capacity, samples)
    finally:
        write(note)
    rows: list[tuple[object, ...]] = [("budget", "score", "wanted", "")]
    rows += [(t.budget, f"{t.score:.3f}", f"{t.wanted:.3f}", _verdict(t, best)) for t in tried]
    typer.echo(table(rows, right=(0, 1, 2)))
    typer.echo(f"\n{note}")
    typer.echo(f"{output / 'report.html'}", err=True)
    if best is None:
        raise typer.Exit(1)


def _verdict(tried: Any, best: Any) -> str:
    if not tried.reaches:
        return "misses it"
    words = "reaches it" if tried.sure else "reaches it, within chance"
    if best is not None and tried.budget == best.budget:
        return f"{words}; chosen"
    below = best is None or tried.budget < best.budget
    return f"{words}, but a larger one misses it" if below else words


def _advice(best: Any, artifact: Path, capacity: int | None, samples: int) -> str:
    """What to do now."""
    if best is None:
        return (
            "No budget reaches the target, not even the compiled one. Compile with a larger "
            "--budget and --capacity, or take a lower --target-accuracy."
        )
    size = "" if capacity is None else f", capacity={capacity}"
    lines = [
        f"Budget {best.budget} reaches the target. Use it:",
        f'  lcc.runtime.open("{artifact}", budget={best.budget}{size})',
        f"  lcc compile MODEL -o SMALLER.lcc {_flags(best, artifact, capacity)}",
    ]
    if not best.sure:
        lines.append(
            f"{samples} samples leave room for chance: more --samples would tell more surely."
        )
    return "\n".join(lines)


def _flags(best: Any, artifact: Path, capacity: int | None) -> str:
    """Of `lcc compile`: what was measured. Sizes and the policy where the default differs."""
    manifest = read_manifest(artifact)
    cache = msgspec.structs.asdict(manifest.cache.lowered(budget=best.budget, capacity=capacity))
    shown = {name: cache.pop(name) for name in ("budget", "capacity")}
    usual = msgspec.structs.asdict(CacheConfig())
    shown |= {name: size for name, size in cache.items() if size != usual[name]}
    if manifest.policy.name != PolicyConfig().name:
        shown["policy"] = manifest.policy.name
    if manifest.heads is not None:
        shown["heads"] = "HEADS"
    words = [f"--{name.replace('_', '-')} {value}" for name, value in shown.items()]
    options = [f"{name}={value}" for name, value in sorted(manifest.policy.options.items())]
    return " ".join([*words, *(f"--option {shlex.quote(option)}" for option in options)])


command.__doc__ = (command.__doc__ or "").replace("    {TASKS}", asking.TASK_LIST)
