"""Programs -> one library of machine code, with kernels of our own; the weights beside it.

Attention is a kernel that writes new entries into the cache in place and reads only the slots in
use; products go over packed weights; what is between them TVM fuses.
"""

import hashlib
from pathlib import Path

from lcc.cpu import LEVELS, best_level
from lcc.program import Program
from lcc.weights_index import INDEX_FILE, WEIGHTS_FILE, StoredTensor


class TvmCpu:
    """Target `tvm:cpu`: one library for all programs, one file of weights.

    cpu     level of `lcc.cpu.LEVELS` that the library needs; the best one of this machine, unless
            it is set
    """

    name = "tvm:cpu"

    def __init__(self) -> None:
        self.cpu = best_level()

    def refusals(self, programs: list[Program]) -> list[str]:
        """Operators and types that no kernel is there for."""
        from lcc.targets.tvm_cpu.importer import unknown_operators

        reasons = unknown_operators(programs)
        if self.cpu not in LEVELS:
            reasons.append(f"cpu is {self.cpu!r}, wanted one of {', '.join(LEVELS)}")
        return reasons

    def adapt(self, programs: list[Program]) -> list[Program]:
        """As they are."""
        return programs

    def build(self, programs: list[Program], folder: Path) -> dict[str, str]:
        """Write the library and the weights; returns program name -> file name."""
        from lcc.targets.tvm_cpu.build import build_library
        from lcc.targets.tvm_cpu.tir import TILES
        from lcc.targets.tvm_cpu.weights import WeightsFile, weights_of, write_index

        weights, file = weights_of(programs), WeightsFile(folder / WEIGHTS_FILE)
        tiles = TILES[self.cpu]
        index: dict[str, list[StoredTensor]] = {}
        for program in programs:
            stored = [file.add(weight.array(tiles)) for weight in weights[program.file_stem]]
            index |= dict.fromkeys(program.names, stored)
        write_index(folder / INDEX_FILE, index)
        built = folder / "programs.so"
        build_library(programs, weights, built, self.cpu)
        # By its content: a process that has loaded one library gets it again for the same path.
        name = f"programs_{hashlib.sha256(built.read_bytes()).hexdigest()[:12]}.so"
        built.rename(folder / name)
        return {each: name for program in programs for each in program.names}
