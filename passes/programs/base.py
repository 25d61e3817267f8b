"""What a program pass is: it takes programs, gives new ones, and counts those that it rewrote."""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from lcc import env
from lcc.errors import PassError
from lcc.ir.program import Program
from lcc.ir.show import show

log = logging.getLogger(__name__)


class ProgramPass(ABC):
    """One rewrite of programs into programs. `requires` and `ensures` raise PassError."""

    @property
    def name(self) -> str:
        """The file's name: HalfCache is half_cache."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()

    def requires(self, program: Program) -> None:  # noqa: B027 - most passes need nothing
        """Raise PassError if a program is not fit for this pass."""

    @abstractmethod
    def rewrite(self, program: Program) -> list[Program] | None:
        """The programs that take the place of one; None = it stays as it is."""

    def ensures(self, program: Program) -> None:  # noqa: B027
        """Raise PassError if a result breaks the pass's promise."""


def run_program_passes(
    programs: Sequence[Program],
    passes: Sequence[ProgramPass],
    *,
    dump: Path | None = None,
    label: str = "programs",
) -> list[Program]:
    """Run passes in order over all programs.

    dump    folder for every program after every pass, as text files; before the first one, too
    label   what the dumped files are called after their number, e.g. the target
    """
    current = list(programs)
    _dump(current, dump, f"{label}_0_split")
    for number, each in enumerate(passes, start=1):
        made: list[Program] = []
        sites = 0
        for program in current:
            try:
                each.requires(program)
                new = each.rewrite(program)
                if new is not None and env.check_passes():
                    for result in new:
                        each.ensures(result)
            except PassError as error:
                error.add_note(f"in program pass {number} of {len(passes)}, {each.name}")
                raise
            sites += new is not None
            made += [program] if new is None else new
        log.info("%s: %d programs", each.name, sites)
        current = made
        _dump(current, dump, f"{label}_{number}_{each.name}")
    return current


def _dump(programs: Sequence[Program], folder: Path | None, name: str) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for program in programs:
        file = folder / f"{name}_{program.file_stem}.txt".replace(":", "_")
        file.write_text(show(program.exported.graph), encoding="utf-8")
