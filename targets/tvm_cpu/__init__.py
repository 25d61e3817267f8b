"""Programs -> one library of machine code, with kernels of our own; the weights beside it.

Attention is a kernel that writes new entries into the cache in place and reads only the slots in
use; products go over packed weights; what is between them TVM fuses.
"""

import functools
import hashlib
from pathlib import Path

from lcc.artifact.weights_index import StoredTensor, weights_files
from lcc.config import Precision
from lcc.ir.program import Program
from lcc.passes.programs.base import ProgramPass
from lcc.targets.base import EXPERTS, Target, traits_of
from lcc.targets.tvm_cpu.platforms import RECIPE, best, missing_linker, platform, recipe


class TvmCpu(Target):
    """Targets `tvm:...` on CPUs: one library for all programs, one file of weights.

    cpu     level of `lcc.artifact.cpu.LEVELS` that the library needs: this machine's, or for
            another machine the least one, unless it is set
    """

    def __init__(self, place: str = "cpu") -> None:
        self.name, self.place = f"tvm:{place}", place
        self.platform = platform(place)
        self.cpu, self.levels = best(self.platform), self.platform.levels
        self.note = self.platform.note
        self.precisions: tuple[Precision, ...] = ("fp32", "int8", "int4")
        self.kv_precisions = ("fp32", "fp16")

    def refusals(self, programs: list[Program]) -> list[str]:
        """Operators and types that no kernel is there for."""
        from lcc.targets.tvm_cpu.importer import unknown_operators

        if reasons := super().refusals(programs):
            return reasons
        reasons = unknown_operators(programs)
        if self.cpu not in self.levels:
            reasons.append(f"cpu is {self.cpu!r}, wanted one of {', '.join(self.levels)}")
        if self.precision != "fp32" and EXPERTS in traits_of(programs):
            reasons.append(f"it builds {EXPERTS} in fp32 only; onnxruntime:cpu has int8 and int4")
        halves = any(spec.dtype == "float16" for each in programs for spec in each.inputs)
        if halves and self.cpu == "x86-64":
            reasons.append("no CPU of level x86-64 knows float16; compile with --cpu x86-64-v3")
        if linker := missing_linker(self.platform):
            reasons.append(f"{linker} is not on this machine; install a cross compiler")
        return reasons

    def passes(self) -> list[ProgramPass]:
        """Weights that are computed of others, computed once; caches in float16 read in place."""
        from lcc.targets.tvm_cpu.fold_weights import FoldWeights
        from lcc.targets.tvm_cpu.half_cache import AttendInHalf

        return [FoldWeights(), AttendInHalf()]

    def build(self, programs: list[Program], folder: Path) -> dict[str, str]:
        """Write the library and the weights; returns program name -> file name."""
        from lcc.targets.tvm_cpu.build import build_library
        from lcc.targets.tvm_cpu.tir import tiles_of
        from lcc.targets.tvm_cpu.weights import WeightsFile, weights_of, write_index

        stored_in, index_file = weights_files(self.name)
        weights = weights_of(programs, self.precision)
        file = WeightsFile(folder / stored_in)
        assert self.cpu is not None
        tiles = tiles_of(self.cpu, self.precision)
        index: dict[str, list[StoredTensor]] = {}
        for program in programs:
            stored = [file.add_weight(weight, tiles) for weight in weights[program.file_stem]]
            index |= dict.fromkeys(program.names, stored)
        write_index(folder / index_file, index)
        built = folder / ("programs.tar" if self.platform.objects else "programs.so")
        build_library(programs, weights, built, tiles, self.cpu, self.platform)
        # By its content: a process that has loaded one library gets it again for the same path.
        name = f"programs_{hashlib.sha256(built.read_bytes()).hexdigest()[:12]}{built.suffix}"
        built.rename(folder / name)
        if self.platform.objects:
            (folder / f"{self.place}.{RECIPE}").write_text(
                recipe(self.place, name, self.cpu), "utf-8"
            )
        return {each: name for program in programs for each in program.names}


aarch64_linux = functools.partial(TvmCpu, "aarch64-linux")
android = functools.partial(TvmCpu, "android")
ios = functools.partial(TvmCpu, "ios")
