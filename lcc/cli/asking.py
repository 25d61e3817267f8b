"""What `lcc eval` and `lcc tune-budget` share: lists on the command line, subjects, their runs."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lcc import env
from lcc.artifact.manifest import fingerprint, for_target, read_manifest
from lcc.cli.frame import progress_bar, quiet_torch, table
from lcc.cli.load import open_session
from lcc.config import Budget
from lcc.errors import ConfigError, LccError
from lcc.measure.evaluate.catalog import ABOUT, NEED_HAYSTACK
from lcc.measure.evaluate.grid import SETTINGS, Setting, Subject

if TYPE_CHECKING:
    from lcc.measure.evaluate.asking import Asker
    from lcc.measure.evaluate.grid import Unit
    from lcc.measure.evaluate.results import Results
    from lcc.measure.evaluate.workers import Recipe

TASK_LIST = "\n".join(f"      {name:<16} {about}" for name, about in ABOUT.items())
"""For `--help`."""
WRITE_SECONDS = 30.0  # between two writings of what is there so far


def names(text: str | None, option: str) -> list[str]:
    """`a,b` -> a and b, each once."""
    found = [each.strip() for each in (text or "").split(",") if each.strip()]
    if text is not None and not found:
        raise ConfigError(f"{option} is {text!r}, wanted names with commas between them")
    return list(dict.fromkeys(found))


def numbers(text: str | None, option: str) -> list[int]:
    """`4k,500` -> 4096 and 500; k = 1024, m = 1024 * 1024."""
    return list(dict.fromkeys(_number(each, option) for each in names(text, option)))


def budgets(text: str | None) -> list[Budget]:
    """`1024,512:1024` -> 1024 entries in the compiled slots; 512 entries in 1024 slots."""
    found = []
    for word in names(text, "--budgets"):
        sizes = word.split(":")
        if len(sizes) > 2:
            raise ConfigError(f"--budgets {word}: wanted entries or entries:slots, as 512:1024")
        found.append(Budget(*(_number(size, "--budgets") for size in sizes)))
    return list(dict.fromkeys(found))


def _number(text: str, option: str) -> int:
    match = re.fullmatch(r"(\d+)([km]?)", text.lower())
    if match is None or int(match[1]) < 1:
        raise ConfigError(f"{option}: {text!r} is no number of tokens; wanted such as 4k,500")
    return int(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2]]


def settings(text: str, *, archive: bool = False) -> list[Setting]:
    """`query-agnostic`, `query-aware`, or both; with an archive, recall, too."""
    chosen, known = names(text, "--setting"), [each for each in SETTINGS if each != "recall"]
    for each in chosen:
        if each not in known:
            hint = "; recall is asked for by --archive" if each == "recall" else ""
            raise ConfigError(f"--setting: {each!r}, wanted {' or '.join(known)}, or both{hint}")
    return [each for each in SETTINGS if each in chosen or (archive and each == "recall")]


def artifact_subject(path: Path, budget: int | None, capacity: int | None) -> Subject:
    """An artifact at a budget, by default its own; one that never evicts has none."""
    manifest = read_manifest(path)
    cache, policy = manifest.cache, manifest.policy.name
    evicts = bool(manifest.schedule.cycle)
    budget = budget if evicts else None
    try:
        cache.lowered(budget=budget, capacity=capacity)
    except LccError as error:
        raise ConfigError(f"{path}: {error}") from None
    return Subject(
        kind="artifact",
        source=str(path),
        policy=policy,
        budget=(budget or cache.budget) if evicts else None,
        capacity=capacity,
    )


def artifact_subjects(path: Path, sizes: list[Budget], capacity: int | None) -> list[Subject]:
    """An artifact at every budget, or at its own; a budget's own slots win over `capacity`."""
    if not read_manifest(path).schedule.cycle:
        sizes = []
    return [
        artifact_subject(path, each.budget, each.capacity or capacity)
        for each in sizes or [Budget()]
    ]


def used_haystack(haystack: Path | None, tasks: list[str]) -> Path | None:
    """The haystack, if one of the tasks hides something in it; else None, and that is said."""
    if haystack is None or NEED_HAYSTACK & {*tasks}:
        return haystack
    typer.echo(f"--haystack {haystack}: none of these tasks reads it", err=True)
    return None


def check_chat(artifacts: Iterable[Path]) -> None:
    """Refuse --chat where a model has no template: its texts would be read without one."""
    from lcc.runtime.text.tokenizer import Tokenizer

    for path in artifacts:
        if Tokenizer(path, read_manifest(path).files).chat_template is None:
            raise ConfigError(f"--chat: {path} has no chat template; leave it out")


def artifact_page(path: Path, target: str | None) -> dict[str, Any]:
    """What run_meta.json says of an artifact, run for this target or, None, for its first one."""
    manifest = read_manifest(path)
    return {
        "path": str(path),
        "fingerprint": fingerprint(manifest),
        "model": manifest.model.name,
        "target": for_target(manifest, target or manifest.target).target,
    }


def digest(path: Path | None) -> str | None:
    """sha256 of a file, or of the *.txt of a folder: another haystack, another command."""
    if path is None:
        return None
    result = hashlib.sha256()
    for file in sorted(path.rglob("*.txt")) if path.is_dir() else [path]:
        result.update(file.read_bytes())
    return result.hexdigest()


def model_page(source: str | None) -> dict[str, Any] | None:
    """What tells the model to compare with from another one of its name."""
    from lcc.measure.bench.engines.kept import identity

    return None if source is None else identity(source)


@lru_cache(maxsize=1)
def _model(source: str) -> Any:
    from lcc.measure.evaluate.eager import EagerModel
    from lcc.sources.models import load_model

    with quiet_torch():
        return EagerModel(load_model(source))


def open_asker(
    subject: Subject,
    *,
    threads: int | None,
    target: str | None,
    device: str | None,
    archive: bool = False,
    allow_native: bool = False,
    trusted_keys: Sequence[str] | None = None,
) -> Asker:
    """Load what a subject names; a function of a module, so that other processes can be told.

    archive     setting recall will be asked for
    """
    if subject.kind != "artifact":
        from lcc.measure.evaluate.peers import open_peer
        from lcc.train.processes import use_threads

        if threads is not None:
            use_threads(threads)
        return open_peer(subject, _model(subject.source))
    from lcc.measure.evaluate.asking import SessionAsker

    session = open_session(
        Path(subject.source),
        capacity=subject.capacity,
        budget=subject.budget,
        threads=threads,
        target=target,
        device=device,
        allow_native=allow_native,
        trusted_keys=trusted_keys,
    )
    session.tokenizer.check_text()
    return SessionAsker(session, archive=archive)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """On what samples are done; changes no answer but for rounding.

    threads     of all jobs together
    target      of several that the artifact has; this and the device must stay the same in a folder
    """

    jobs: int = 1
    threads: int | None = None
    target: str | None = None
    device: str | None = None
    allow_native: bool = False
    trusted_keys: Sequence[str] | None = None
    quiet: bool = False

    def meta(self) -> dict[str, Any]:
        """For run_meta.json."""
        return {"jobs": self.jobs, "threads": self.all_threads}

    @property
    def all_threads(self) -> int | None:
        """Those that were given, or LCC_THREADS; None = the engine decides."""
        return self.threads or env.default_threads()


def do(
    results: Results,
    units: list[Unit],
    recipe: Recipe,
    machine: Machine,
    write: Callable[[], object],
) -> list[str]:
    """Do the samples that are not done yet; returns what went wrong with which of them.

    write       called now and then, to write what is there so far: hours may pass, and a process
                that is killed writes nothing at its end
    """
    from lcc.measure.evaluate.workers import run

    todo, failures = results.todo(units), list[str]()
    written = time.monotonic()
    threads = machine.all_threads
    if machine.jobs > 1:
        threads = max(1, (threads or os.cpu_count() or 1) // machine.jobs)
    opener = partial(
        open_asker,
        threads=threads,
        target=machine.target,
        device=machine.device,
        allow_native=machine.allow_native,
        trusted_keys=machine.trusted_keys,
        archive=any(unit.cell.setting == "recall" for unit in todo),
    )
    done = len(units) - len(todo)
    with progress_bar(quiet=machine.quiet) as report:

        def told(unit: Unit, line: dict[str, Any] | None, failure: str | None) -> None:
            nonlocal done, written
            if line is not None:
                results.add(unit, line)
                done += 1
            elif failure is not None:
                results.fail(unit, failure)
                cell = unit.cell
                where = f"{cell.subject.name}, {cell.task}, {cell.length}, sample {unit.index}"
                failures.append(f"{where}: {failure}")
            report(f"{done} of {len(units)} samples", done / len(units))
            if time.monotonic() - written >= WRITE_SECONDS:
                write()
                written = time.monotonic()

        report(f"{done} of {len(units)} samples", done / len(units))
        run(todo, recipe, opener, told, jobs=min(machine.jobs, max(len(todo), 1)))
    return failures


def told_failures(failures: list[str]) -> None:
    """Raise LccError where there are any."""
    if failures:
        raise LccError(
            f"{len(failures)} samples failed; the first: {failures[0]}; the same command tries "
            "them again"
        )


def print_cells(pages: list[dict[str, Any]]) -> None:
    """The table on the terminal."""
    from lcc.measure.evaluate.results import failed_text, interval_text, score_text

    head = ("", "task", "length", "setting", "score", "95 %", "cycles", "tokens/s", "")
    rows: list[tuple[object, ...]] = [head]
    for page in pages:
        cycles, rate = page.get("cycles"), page.get("tokens_per_second")
        rows.append(
            (
                page["name"],
                page["task"],
                page["length"] or "as is",
                page["setting"],
                score_text(page),
                interval_text(page),
                "" if cycles is None else f"{cycles:.1f}",
                "" if rate is None else f"{rate:.0f}",
                failed_text(page),
            )
        )
    typer.echo(table(rows, right=(2, 6, 7)))
