"""PyTorch's ONNX exporter, without what it does twice.

It makes its registry of some thousand operators anew for every program, and traces a whole graph to
decompose the operators that ONNX has not; lowering those of `lcc::` before would be another trace.
Together that is half of the time of compiling a small model.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

from torch.export import ExportedProgram
from torch.onnx._internal.exporter import _fx_passes, _registration

_decomposed = _fx_passes.decompose_with_registry
_registry = functools.cache(_registration.ONNXRegistry.from_torchlib)


@contextlib.contextmanager
def decomposed_once(lowered: dict) -> Iterator[None]:
    """Within, exporting decomposes these operators, too.

    lowered     operator -> what it becomes
    """
    run = ExportedProgram.run_decompositions

    def with_ours(exported: ExportedProgram, table: dict | None = None, **how: Any) -> Any:
        return run(exported, {**(table or {}), **lowered}, **how)

    def decompose(exported: ExportedProgram, registry: Any) -> ExportedProgram:
        with mock.patch.object(ExportedProgram, "run_decompositions", with_ours):
            return _decomposed(exported, registry)

    with (
        mock.patch.object(_registration.ONNXRegistry, "from_torchlib", staticmethod(_registry)),
        mock.patch.object(_fx_passes, "decompose_with_registry", decompose),
    ):
        yield
