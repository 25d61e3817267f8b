"""One module -> one library, in a process that loads CUDA's part of TVM.

python -m lcc.targets.tvm_cuda.build_module MODULE.json sm_90 OUT.so
"""

import sys
from pathlib import Path
from typing import Any


def main(source: str, architecture: str, library: str) -> None:
    """Compile for one architecture."""
    import tvm
    from tvm.target import Target

    module = tvm.ir.load_json(Path(source).read_text(encoding="utf-8"))
    target = Target({"kind": "cuda", "arch": architecture})
    with target:
        built = tvm.compile(module, target=target, relax_pipeline=_pipeline(target))
    built.export_library(library)


def _pipeline(target: Any) -> Any:
    """TVM's own, less what is dead after folding, and with a rule that does not fail."""
    import tvm
    from tvm import relax
    from tvm.relax.backend.cuda import pipeline
    from tvm.s_tir import dlight

    class Gemv(dlight.gpu.GEMV):
        """Where it finds no loops in what looks like such a product, the next rule may."""

        def apply(self, *args: Any) -> Any:
            try:
                return super().apply(*args)
            except AssertionError:
                return None

    rules = (
        dlight.gpu.Matmul(),
        Gemv(),
        dlight.gpu.Reduction(),
        dlight.gpu.GeneralReduction(),
        dlight.gpu.Fallback(),
    )
    steps = [
        *pipeline.library_dispatch_passes(target),
        *pipeline.legalize_passes(target)[:-1],
        relax.transform.DeadCodeElimination(["main"]),
        dlight.ApplyDefaultSchedule(*rules),
        *pipeline.dataflow_lower_passes(target),
        *pipeline.finalize_passes(target),
    ]
    return tvm.transform.Sequential(steps)


if __name__ == "__main__":
    main(*sys.argv[1:])
