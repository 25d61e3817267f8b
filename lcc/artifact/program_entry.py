"""Programs -> the manifest's records of them."""

from typing import TYPE_CHECKING

from lcc.artifact.manifest import ProgramEntry

if TYPE_CHECKING:
    from lcc.ir.program import Program


def program_entries(programs: "list[Program]", files: dict[str, str]) -> dict[str, ProgramEntry]:
    """The record of every program; `files`: program -> its file, its name where not given."""
    return {
        name: ProgramEntry(
            file=files.get(name, name),
            inputs=list(program.inputs),
            outputs=list(program.outputs),
            updates=program.updates,
        )
        for program in programs
        for name in program.names
    }
