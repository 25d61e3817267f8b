"""Programs run as they stand in eager PyTorch: the oracle every other target is held against."""

import copy
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from lcc.artifact.manifest import Manifest, ProgramEntry
from lcc.artifact.program_entry import program_entries
from lcc.errors import ArtifactError, first_line
from lcc.ir.lazy_tensor import whole
from lcc.ir.program import Program
from lcc.ir.roles import Role
from lcc.targets.base import Target


class Reference(Target):
    """Target `reference`: one `.pt2` file a program, run by `ReferenceEngine`."""

    name = "reference"
    kv_precisions = ("fp32", "fp16")

    def build(self, programs: list[Program], folder: Path) -> dict[str, str]:
        """Save the exported programs; each file carries its own weights."""
        files: dict[str, str] = {}
        for program in programs:
            file = f"{program.file_stem}.pt2"
            torch.export.save(_loaded(program.exported), folder / file)
            files |= dict.fromkeys(program.names, file)
        return files


def _loaded(exported: ExportedProgram) -> ExportedProgram:
    """A shallow copy whose weights are read."""
    made = copy.copy(exported)
    made._state_dict = {
        name: nn.Parameter(whole(value), False) if isinstance(value, nn.Parameter) else whole(value)
        for name, value in exported.state_dict.items()
    }
    made._constants = {name: whole(value) for name, value in exported.constants.items()}
    return made


class ReferenceRunner:
    """One program in eager PyTorch; implements the runtime's `Runner`."""

    def __init__(self, program: Program, module: nn.Module, lock: threading.Lock) -> None:
        self.program, self.module, self.lock = program, module, lock
        self.bound: dict[str, np.ndarray] = {}

    def bind(self, arrays: Mapping[str, Any]) -> None:
        """See `Runner.bind`."""
        self.bound |= arrays

    def __call__(self, arrays: Mapping[str, Any]) -> None:
        """See `Runner.__call__`: outputs are copied to where they are wanted."""
        given = {**self.bound, **arrays}
        tensors = [torch.from_numpy(given[name]) for name in self.program.input_names]
        try:
            with torch.no_grad(), self.lock:
                values = self.module(*tensors)
        except Exception as error:  # whatever an operator raises
            names = ", ".join(self.program.names)
            raise ArtifactError(f"{names}: PyTorch cannot run it: {first_line(error)}") from error
        values = values if isinstance(values, tuple) else (values,)
        for name, value in zip(self.program.output_names, values, strict=True):
            place = given.get(name, given.get(self.program.updates.get(name, name)))
            if place is not None:
                place[...] = value.numpy()


class ReferenceEngine:
    """All programs of an artifact in eager PyTorch; implements the runtime's `Engine`."""

    def __init__(self, programs: list[Program]) -> None:
        self._entries = program_entries(programs, {})
        self._lock = threading.Lock()
        self._programs: dict[str, tuple[Program, nn.Module]] = {}
        for program in programs:
            module = program.exported.module(check_guards=False)
            self._programs |= dict.fromkeys(program.names, (program, module))

    def load_all(self) -> None:
        """Nothing is left to load."""

    def program(self, name: str) -> ProgramEntry:
        """The signature of a program."""
        return self._entries[name]

    def zeros(self, shape: Sequence[int], dtype: str, role: Role) -> np.ndarray:
        """A new buffer."""
        return np.zeros(shape, dtype)

    def runner(self, program: str) -> ReferenceRunner:
        """A program by name, with bindings of its own."""
        return ReferenceRunner(*self._programs[program], self._lock)


def open_engine(folder: Path, manifest: Manifest) -> ReferenceEngine:
    """The engine of an artifact that was compiled for this target.

    The `lcc::` operators must be registered: import lcc.passes.ops first.

    Raises:
        ArtifactError: a file is no program of PyTorch's.
    """
    programs: dict[str, Program] = {}
    for entry in manifest.programs.values():
        if entry.file not in programs:
            programs[entry.file] = Program(
                names=tuple(n for n, e in manifest.programs.items() if e.file == entry.file),
                exported=_exported(Path(folder) / entry.file),
                inputs=tuple(entry.inputs),
                outputs=tuple(entry.outputs),
                updates=entry.updates,
            )
    return ReferenceEngine(list(programs.values()))


def _exported(path: Path) -> ExportedProgram:
    try:
        return torch.export.load(path)
    except Exception as error:  # whatever its readers do
        raise ArtifactError(f"{path}: PyTorch cannot load it: {first_line(error)}") from error
