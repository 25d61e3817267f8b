"""Kernels of target tvm:cpu as functions of tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcc.artifact.cpu import ARM_LEVELS, LEVELS, best_level, lacking
from lcc.targets.tvm_cpu.build import describe
from lcc.targets.tvm_cpu.platforms import platform
from lcc.testing import arm_kernels

BEST = best_level()
PLAINEST = "generic" if BEST in ARM_LEVELS else "x86-64"
HERE = [
    level
    for level in LEVELS
    if not lacking(level) or (level in ARM_LEVELS and not arm_kernels.missing())
]


def compiled(function: Any, level: str = BEST) -> Callable[..., None]:
    """A kernel as a function of tensors on the CPU, which it writes to; Arm's under qemu."""
    import tvm

    function = function.with_attr("global_symbol", "kernel")
    target = tvm.target.Target(describe(level, platform("cpu")))
    library = tvm.compile(tvm.IRModule({"kernel": function}), target=target)
    if lacking(level):
        on_arm = arm_kernels.arm_kernel(library)
        return lambda *arrays: on_arm(*(array.numpy() for array in arrays))
    kernel = library["kernel"]

    def run(*arrays: Tensor) -> None:
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(a.numpy())) for a in arrays]
        kernel(*tensors)
        for array, tensor in zip(arrays, tensors, strict=True):
            array.copy_(torch.from_numpy(tensor.numpy()))

    return run


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, float32; the same ones for the same shape and seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))
