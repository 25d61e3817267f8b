"""Programs -> libraries for NVIDIA GPUs, made without one: half precision, static steps, cubins."""

import subprocess
import sys
import tempfile
from pathlib import Path

from lcc.artifact.weights_index import StoredTensor, weights_files
from lcc.errors import TargetError
from lcc.ir.program import Program
from lcc.ir.roles import Role
from lcc.passes.programs.base import ProgramPass
from lcc.passes.programs.half_precision import HalfPrecision
from lcc.passes.programs.static_shapes import StaticShapes
from lcc.targets.base import BIAS, EXPERTS, SINKS, STATES, Target
from lcc.targets.tvm_cuda.toolkit import environment, missing_tools

ARCHITECTURES = ("sm_90", "sm_80", "sm_86", "sm_89", "sm_75")
FATBIN = b"\x50\xed\x55\xba"  # with which machine code for GPUs begins


class TvmCuda(Target):
    """Target `tvm:cuda`: a library for each program, with machine code for one architecture.

    The layers are standard operators, scheduled by TVM; caches are inputs and outputs of their own,
    not written in place. Compiled by nvcc, which needs no GPU. No engine of lcc runs it so far.

    cpu     the architecture, one of `levels`
    """

    name = "tvm:cuda"
    cpu = ARCHITECTURES[0]
    levels = ARCHITECTURES
    dtype = "float16"
    hands_out_every_row = True
    archives = False  # an archive has any number of rows, and shapes here are fixed
    lacks = (EXPERTS, SINKS, BIAS, STATES)
    note = "machine code made without a GPU; it never ran, and no engine runs it"

    def refusals(self, programs: list[Program]) -> list[str]:
        """What it lacks, and what the machine does."""
        return super().refusals(programs) + missing_tools()

    def passes(self) -> list[ProgramPass]:
        """Half precision; steps and evictions of static shapes."""
        moves_entries = (Role.POSITIONS, Role.SLOTS, Role.KEPT)
        return [HalfPrecision(), StaticShapes(*moves_entries)]

    def build(self, programs: list[Program], folder: Path) -> dict[str, str]:
        """Write libraries and weights; returns program name -> file name.

        Raises:
            TargetError: TVM or nvcc fails, or says nothing and leaves no machine code.
        """
        import tvm

        from lcc.targets.tvm_cpu.weights import WeightsFile, write_index
        from lcc.targets.tvm_cuda.importer import import_program

        weights, index_file = weights_files(self.name)
        file = WeightsFile(folder / weights)
        index: dict[str, list[StoredTensor]] = {}
        files: dict[str, str] = {}
        with tempfile.TemporaryDirectory() as place, environment() as variables:
            for program in programs:
                module, tensors = import_program(program)
                stored = [file.add(tensor) for tensor in tensors]
                index |= dict.fromkeys(program.names, stored)
                source = Path(place) / "module.json"
                source.write_text(tvm.ir.save_json(module), encoding="utf-8")
                library = folder / f"{program.names[0]}_{self.cpu}.so"
                self._compile(source, library, variables)
                files |= dict.fromkeys(program.names, library.name)
        write_index(folder / index_file, index)
        return files

    def _compile(self, source: Path, library: Path, variables: dict[str, str]) -> None:
        """In a process of its own, which finds CUDA's libraries, or what stands for them."""
        command = [sys.executable, "-m", "lcc.targets.tvm_cuda.build_module"]
        arguments = [str(source), str(self.cpu), str(library)]
        run = subprocess.run(
            [*command, *arguments], env=variables, capture_output=True, text=True, check=False
        )
        if run.returncode:
            line = (run.stderr.strip().splitlines() or ["no message"])[-1]
            raise TargetError(f"{self.name}: {library.name}: {line}")
        if FATBIN not in library.read_bytes():
            raise TargetError(
                f"{self.name}: {library.name} has no machine code for {self.cpu}: TVM made source "
                "only; see whether nvcc runs, and that libtvm_runtime_cuda.so loads"
            )
