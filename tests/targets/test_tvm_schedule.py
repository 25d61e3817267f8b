"""Loops that TVM made: what is added up along rows is added up in vectors."""

import numpy as np
import pytest

from lcc.targets import missing

if missing("tvm:cpu"):
    pytest.skip("tvm is not installed", allow_module_level=True)

import tvm
from tvm import te

from lcc.targets.tvm_cpu.schedule import schedule_loops
from lcc.testing.tvm_kernels import compiled, drawn


@pytest.mark.parametrize("size", [576, 16, 40])
def test_sums_along_rows(size: int) -> None:
    """Of 576 numbers in vectors of 16; of 16 and of 40 as they come."""
    rows, k = tvm.tirx.Var("m", "int64"), te.reduce_axis((0, size), name="k")
    x = te.placeholder((1, rows, size), name="x")
    total = te.compute((1, rows, 1), lambda a, b, _: te.sum(x[a, b, k], axis=k), name="total")
    out = te.compute((1, rows, size), lambda a, b, c: x[a, b, c] * total[a, b, 0], name="out")
    module = tvm.IRModule({"main": te.create_prim_func([x, out])})
    function = schedule_loops(16)(module)["main"]
    assert ("total_rf" in function.script()) == (size == 576)
    run = compiled(function)
    for m in (1, 7, 300):
        numbers, found = drawn(1, m, size), drawn(1, m, size)
        run(numbers, found)
        wanted = numbers.double() * numbers.double().sum(dim=-1, keepdim=True)
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=2e-4, rtol=1e-4)
