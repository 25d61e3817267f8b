"""Programs run as they stand in eager PyTorch: the oracle every other target is held against."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcc.artifact.manifest import Manifest
from lcc.ir.program import Program
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
            torch.export.save(program.exported, folder / file)
            files |= dict.fromkeys(program.names, file)
        return files


class ReferenceRunner:
    """One program in eager PyTorch; implements the runtime's `Runner`."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.module = program.exported.module(check_guards=False)
        self.by_name = bool(program.exported.example_inputs[1])
        self.bound: dict[str, np.ndarray] = {}

    def bind(self, arrays: Mapping[str, Any]) -> None:
        """Arrays that stay inputs, or are written as outputs, until bound anew."""
        self.bound |= arrays

    def __call__(
        self, feeds: Mapping[str, np.ndarray], fetch: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Run once; the caches it returns are copied over the bound ones."""
        given = {**self.bound, **feeds}
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(given[name]))
            for name in self.program.inputs
        }
        with torch.no_grad():
            if self.by_name:
                values = self.module(**tensors)
            else:
                values = self.module(*tensors.values())
        values = values if isinstance(values, tuple) else (values,)
        outputs = dict(zip(self.program.outputs, values, strict=True))
        for name, value in outputs.items():
            place = self.bound.get(self.program.updates.get(name, name))
            if place is not None:
                place[...] = value.numpy()
        return {name: outputs[name].numpy() for name in fetch}


class ReferenceEngine:
    """All programs of an artifact in eager PyTorch; implements the runtime's `Engine`."""

    def __init__(self, programs: list[Program]) -> None:
        self.runners: dict[str, ReferenceRunner] = {}
        for program in programs:
            runner = ReferenceRunner(program)
            self.runners |= dict.fromkeys(program.names, runner)

    def zeros(self, shape: Sequence[int], dtype: str) -> np.ndarray:
        """A buffer for keys or values."""
        return np.zeros(shape, dtype)

    def runner(self, program: str) -> ReferenceRunner:
        """A program by name."""
        return self.runners[program]


def open_engine(folder: Path, manifest: Manifest) -> ReferenceEngine:
    """The engine of an artifact that was compiled for this target.

    The `lcc::` operators must be registered: import lcc.passes.ops first.
    """
    programs: dict[str, Program] = {}
    for name, entry in manifest.programs.items():
        if entry.file not in programs:
            programs[entry.file] = Program(
                names=tuple(n for n, e in manifest.programs.items() if e.file == entry.file),
                exported=torch.export.load(Path(folder) / entry.file),
                inputs=tuple(tensor.name for tensor in entry.inputs),
                outputs=tuple(tensor.name for tensor in entry.outputs),
                updates=manifest.programs[name].updates,
            )
    return ReferenceEngine(list(programs.values()))
