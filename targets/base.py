"""What a target is: it turns programs into files that an engine of the runtime can run."""

from pathlib import Path
from typing import Protocol

from lcc.program import Program


class Target(Protocol):
    """One compiler backend on one kind of device.

    cpu     level of `lcc.cpu.LEVELS` that what it builds needs; None = any CPU runs it
    """

    name: str
    cpu: str | None

    def refusals(self, programs: list[Program]) -> list[str]:
        """Every reason why these programs cannot be built; empty = accepted."""

    def adapt(self, programs: list[Program]) -> list[Program]:
        """The same programs, cut and shaped as this target builds them."""

    def build(self, programs: list[Program], folder: Path) -> dict[str, str]:
        """Write the programs into a folder; returns program name -> file name."""
