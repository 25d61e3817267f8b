"""Programs -> libraries for NVIDIA GPUs, made without one: half precision, static steps, cubins."""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from lcc.errors import TargetError
from lcc.program import HEAD, Program
from lcc.targets.base import Target
from lcc.targets.static_shapes import static
from lcc.targets.tvm_cuda.toolkit import environment, missing_tools
from lcc.weights_index import StoredTensor, weights_files

ARCHITECTURES = ("sm_90", "sm_80", "sm_86", "sm_89", "sm_75")
FATBIN = b"\x50\xed\x55\xba"  # with which machine code for GPUs begins
_HALF = ("key", "value", "queries", "hidden")


class TvmCuda(Target):
    """Target `tvm:cuda`: a library for each program, with machine code for one architecture.

    The layers are standard operators, scheduled by TVM; caches are inputs and outputs of their own,
    not written in place. Compiled by nvcc, which needs no GPU. No engine of lcc runs it so far.

    cpu     the architecture, one of `levels`
    """

    name = "tvm:cuda"
    cpu = ARCHITECTURES[0]
    levels = ARCHITECTURES
    note = "machine code made without a GPU; it never ran, and no engine runs it"

    def refusals(self, programs: list[Program]) -> list[str]:
        """What the machine lacks."""
        return missing_tools()

    def adapt(self, programs: list[Program]) -> list[Program]:
        """Steps and evictions of static shapes; keys, values and weights in half precision."""
        parts: list[Program] = []
        for program in programs:
            fixed = HEAD not in program.names and not program.names[0].startswith("score")
            parts += static(program) if fixed else [program]
        return [replace(each, exported=_half(each)) for each in parts]

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
                stored = [file.add(tensor.contiguous().numpy()) for tensor in tensors]
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


def _halve(module: nn.Module) -> None:
    """Give a module weights of its own in half precision; those it shares with others stay."""
    made: dict[int, torch.Tensor] = {}
    for owner in module.modules():
        for own in (owner._parameters, owner._buffers):
            for name, tensor in own.items():
                if tensor is None or tensor.dtype != torch.float32:
                    continue
                if id(tensor) not in made:
                    half = tensor.detach().half()
                    parameter = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(half, False) if parameter else half
                own[name] = made[id(tensor)]  # type: ignore[assignment]  # of its own kind


def _half(program: Program) -> ExportedProgram:
    """The program with weights, keys, values and states in half precision."""
    exported = program.exported
    nodes = exported.graph.find_nodes(op="placeholder")[-len(program.inputs) :]
    args, named = exported.example_inputs
    values = dict(named or zip(program.inputs, args, strict=True))
    names = dict(zip(values, program.inputs, strict=True))
    for key, name in names.items():
        if name.startswith(_HALF) and values[key].dtype == torch.float32:
            values[key] = values[key].half()
    shapes = {
        key: {
            axis: torch.export.Dim.DYNAMIC
            for axis, size in enumerate(node.meta["val"].shape)
            if not isinstance(size, int)
        }
        for key, node in zip(values, nodes, strict=True)
    }
    module = exported.module(check_guards=False)
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:  # that it was float32
            module.graph.erase_node(node)
    _halve(module)
    with torch.no_grad():
        if named:
            return torch.export.export(module, (), kwargs=values, dynamic_shapes=shapes)
        given = tuple(values.values())
        return torch.export.export(module, given, dynamic_shapes=tuple(shapes.values()))
