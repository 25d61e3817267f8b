"""`lcc eval`."""

import itertools
from pathlib import Path
from typing import Annotated

import typer

import lcc
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
from lcc.cli.load import on_cpu
from lcc.errors import ConfigError
from lcc.measure.evaluate.catalog import ABOUT, check_tasks, score
from lcc.measure.evaluate.grid import Subject, cells_of, units_of
from lcc.measure.evaluate.haystack import read_haystack


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(help="Artifacts, folders; none: --model alone.", metavar="ARTIFACT"),
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Names, with commas; see below.")] = None,
    lengths: Annotated[str | None, typer.Option(help="Tokens of a text; 4k = 4096 [4k].")] = None,
    samples: Annotated[int, typer.Option(min=1, help="A cell, depths 5 to 95 %.")] = 10,
    haystack: Haystack = None,
    file: Annotated[
        list[Path] | None, typer.Option(help="A benchmark's own samples; may be repeated.")
    ] = None,
    setting: Annotated[
        str, typer.Option(help="query-agnostic, query-aware, or both with a comma.")
    ] = "query-agnostic",
    archive: Annotated[
        bool, typer.Option("--archive", help="Also with an archive and recall; see below.")
    ] = False,
    chat: ChatTemplate = False,
    budgets: Annotated[
        str | None, typer.Option(help="Entries, or entries:slots; less than compiled.")
    ] = None,
    capacity: Annotated[int | None, typer.Option(help="Less than compiled, for all.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Also the model itself, in eager PyTorch, full cache.")
    ] = None,
    press: Annotated[str | None, typer.Option(help="Also with these presses of kvpress.")] = None,
    kept: Annotated[
        str | None, typer.Option(help="Entries that presses keep [the artifacts' budgets].")
    ] = None,
    seed: FirstSeed = 0,
    jobs: Jobs = 1,
    threads: ThreadsOfAll = None,
    target: Target = None,
    device: Device = None,
    allow_native: AllowNative = False,
    trusted_key: TrustedKey = None,
    quiet: Quiet = False,
) -> None:
    """Measure how much a model still knows of long texts: a table, a folder, a report.

    \b
    Tasks:
    {TASKS}

    In setting query-agnostic the text is read before the question is known; what the artifact's own
    catalyst finds important survives. In query-aware the question stands before the text, and is
    the catalyst where the policy reads one. The two do not compare.

    With --archive there is a setting recall beside them: query-agnostic, but what evictions drop
    goes to an archive in a temporary folder, and the question calls back what it asks for. Without
    recall and with it, answers come from one reading of the text.

    The folder gets samples.jsonl (a line a sample, as they finish), results.json (a cell for all
    samples of one kind, with a 95 % interval), run_meta.json and report.html. The same command goes
    on where it was stopped; another one wants another folder. Exit code 1: no cell has a score.

    --model adds the model in eager PyTorch: with its full cache at lengths that it was made for,
    and with --press what kvpress keeps of it. Presses: snapkv, knorm, keydiff, streaming_llm, tova,
    expected_attention, random. A text is read once for all of them.

    \b
    Examples:
      lcc eval m.lcc --tasks passkey --lengths 4k,16k -o results
      lcc eval m.lcc --budgets 256:640,512:1024 --tasks passkey --lengths 8k -o curve --jobs 2
      lcc eval m.lcc --archive --tasks niah_multikey_1 --haystack essays/ --lengths 8k -o recall
      lcc eval a.lcc b.lcc --tasks perplexity --haystack essays/ --lengths 16k --samples 5 -o ppl
      lcc eval m.lcc --model ./my-model --press snapkv,knorm --kept 512 --tasks passkey -o peers
      lcc eval m.lcc --file longbench.jsonl --samples 100 --chat -o longbench
    """
    chosen = asking.names(tasks, "--tasks")
    if not chosen and not file:
        raise ConfigError("nothing to measure; give --tasks or --file")
    check_tasks(chosen, haystack=haystack is not None)
    if lengths is not None and not chosen:
        raise ConfigError("--lengths is of --tasks; samples of --file are as long as they are")
    sizes = asking.numbers(lengths or "4k", "--lengths")
    given = asking.settings(setting, archive=archive)
    machine = asking.Machine(
        jobs=jobs,
        threads=threads,
        target=target,
        device=device,
        allow_native=allow_native,
        trusted_keys=trusted_key,
        quiet=quiet,
    )
    subjects = [
        subject
        for path in dict.fromkeys(artifacts or [])
        for subject in asking.artifact_subjects(path, asking.budgets(budgets), capacity)
    ]
    for option, value in (
        ("--budgets", budgets),
        ("--capacity", capacity),
        ("--archive", archive or None),
        ("--target", target),
        ("--device", device),
    ):
        if value is not None and not artifacts:
            raise ConfigError(f"{option} is of artifacts, and there is none; leave it out")
    on_cpu(device)  # a mistake is told before anything is loaded
    if chat:
        asking.check_chat(artifacts or [])
    twice = [a.name for a, b in itertools.combinations(subjects, 2) if a.name == b.name]
    if twice:
        raise ConfigError(f"two artifacts are called {twice[0]}; rename or link one of them")
    subjects += _peers(model, asking.names(press, "--press"), kept, subjects)
    if not subjects:
        raise ConfigError("nobody to ask; give artifacts, or --model")
    files, counts = {}, dict.fromkeys(chosen, samples)
    for path in file or []:
        from lcc.measure.evaluate.benchmarks import read

        # Some files of InfiniteBench are called as lcc's tasks, and must be.
        name = path.name if path.stem in ABOUT else path.stem
        if name in counts:
            raise ConfigError(f"--file {path}: the name {name} is taken; rename it")
        files[name], counts[name] = str(path), 0
        for sample in itertools.islice(read(path), samples):
            counts[name] += 1
            score("-", sample)  # a package that the metric needs is missed now, not after hours
        if not counts[name]:
            raise ConfigError(f"--file {path}: none of its rows can be scored without a judge")
    cells = cells_of(subjects, chosen, sizes, given, files)
    if not cells:
        raise ConfigError("nothing to measure: perplexity has setting query-agnostic only")

    from lcc.measure.evaluate import report
    from lcc.measure.evaluate.results import Results
    from lcc.measure.evaluate.results import machine as machine_page
    from lcc.measure.evaluate.workers import Recipe

    haystack = asking.used_haystack(haystack, chosen)
    recipe = Recipe(
        samples=samples,
        seed=seed,
        chat=chat,
        sentences=[] if haystack is None else read_haystack(haystack),
        files=tuple(files.items()),
    )
    asked = {
        "lcc": lcc.__version__,
        "artifacts": [
            asking.artifact_page(path, target) for path in dict.fromkeys(artifacts or [])
        ],
        "subjects": [subject.name for subject in subjects],
        "capacity": capacity,
        "model": asking.model_page(model),
        "tasks": chosen,
        "lengths": sizes,
        "samples": samples,
        "settings": given,
        "chat": chat,
        "seed": seed,
        "haystack": asking.digest(haystack),
        "device": device,
        "files": {name: asking.digest(Path(path)) for name, path in files.items()},
    }
    results = Results(output, asked, machine_page() | machine.meta())

    def write() -> list[report.Page]:
        pages = results.write(cells)
        report.write(results, pages)
        return pages

    try:
        failures = asking.do(results, units_of(cells, counts), recipe, machine, write)
    finally:  # what is there is worth a look, however it ended
        pages = write()
    asking.print_cells(pages)
    typer.echo(f"{output / 'report.html'}", err=True)
    asking.told_failures(failures)
    if not any("score" in page for page in pages):
        raise typer.Exit(1)


def _peers(
    model: str | None, presses: list[str], kept: str | None, subjects: list[Subject]
) -> list[Subject]:
    """The full cache, and every press at every number of entries."""
    if model is None:
        if presses or kept:
            raise ConfigError("--press and --kept compare with a model: give --model, too")
        return []
    from lcc.measure.evaluate.peers import check_presses

    check_presses(presses)
    if kept and not presses:
        raise ConfigError("--kept says what presses keep: give --press, too, or leave it out")
    budgets = asking.numbers(kept, "--kept")
    if presses and not budgets:
        budgets = sorted({each.budget for each in subjects if each.budget is not None})
    if presses and not budgets:
        raise ConfigError("--press: the artifacts evict nothing; give --kept, such as 512,1024")
    return [
        Subject(kind="full", source=model, policy="full cache"),
        *(
            Subject(kind="press", source=model, policy=press, budget=budget)
            for press in presses
            for budget in budgets
        ),
    ]


command.__doc__ = (command.__doc__ or "").replace("    {TASKS}", asking.TASK_LIST)
