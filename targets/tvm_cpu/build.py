"""Modules of all programs -> one library."""

from pathlib import Path
from typing import Any

from lcc.artifact.cpu import ARM_LEVELS
from lcc.ir.program import DECODE, Program
from lcc.targets.tvm_cpu.importer import import_program
from lcc.targets.tvm_cpu.platforms import Platform
from lcc.targets.tvm_cpu.schedule import schedule_loops
from lcc.targets.tvm_cpu.tir import Tiles
from lcc.targets.tvm_cpu.weights import Weight

_ARM_FEATURES = ("+v8.2a", "+dotprod", "+fullfp16")  # of armv8.2-a, as LLVM calls them


def build_library(
    programs: list[Program],
    weights: dict[str, list[Weight]],
    path: Path,
    tiles: Tiles,
    level: str,
    platform: Platform,
) -> None:
    """Write a library, or an archive of its objects, with a function for every program's names.

    tiles       how its kernels cut their work
    level       of `lcc.artifact.cpu.LEVELS`: what the machine that runs it must have
    """
    import tvm
    from tvm.support import cc
    from tvm.target import Target

    target = Target(describe(level, platform))
    with target:
        parts = []
        for program in programs:
            for name in program.names:
                own, one = weights[program.file_stem], name == DECODE
                module = import_program(program, own, tiles, one_token=one)
                parts.append((name, _lowered(module, tiles.lanes)))
        whole = _merged(parts)
        library = tvm.compile(whole, target=target, relax_pipeline=_finish())
    if platform.linker is None:
        library.export_library(str(path))
    else:
        library.export_library(str(path), fcompile=cc.cross_compiler(platform.linker))


def describe(level: str, platform: Platform) -> dict:
    """TVM's target for a level of CPU."""
    if level in ARM_LEVELS:
        arm = {"kind": "llvm", "mtriple": platform.triple or "aarch64-linux-gnu"}
        return arm | ({"mattr": list(_ARM_FEATURES)} if level == "armv8.2-a" else {})
    return {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": level}


def _lowered(module: Any, lanes: int) -> Any:
    """Operators -> fused and scheduled loops."""
    import tvm
    from tvm import relax

    steps = [
        relax.backend.DispatchSortScan(),
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(["main"]),
        schedule_loops(lanes),
    ]
    return tvm.transform.Sequential(steps)(module)


def _finish() -> Any:
    """Memory planned, loops lowered to calls."""
    import tvm
    from tvm.relax import transform as t

    return tvm.transform.Sequential(
        [
            t.RewriteDataflowReshape(),
            t.ToNonDataflow(),
            t.RemovePurityChecking(),
            t.CallTIRRewrite(),
            t.StaticPlanBlockMemory(),
            t.LowerAllocTensor(),
            t.KillAfterLastUse(),
            t.LowerRuntimeBuiltin(),
            t.ComputePrimValue(),
            t.VMShapeLower(),
            t.AttachGlobalSymbol(),
        ]
    )


def _merged(parts: list[tuple[str, Any]]) -> Any:
    """One module of several: each `main` gets its name; functions that are equal are one."""
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Rename(PyExprMutator):
        """Calls of the functions of one part, by their new names."""

        def __init__(self, names: dict) -> None:
            super().__init__()
            self.names = names

        def visit_global_var_(self, op: Any) -> Any:
            return self.names[op.name_hint]

    builder = relax.BlockBuilder()
    for name, module in parts:
        functions = dict(module.functions_items())
        main = next(f for f in functions.values() if isinstance(f, relax.Function))
        names = {
            variable.name_hint: builder.add_func(function, f"kernel_{variable.name_hint}")
            for variable, function in functions.items()
            if function is not main
        }
        renamed = Rename(names).visit_expr(main)
        builder.add_func(renamed.with_attr("global_symbol", name), name)
    return builder.get()
