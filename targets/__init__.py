"""Targets by the name a user types; imported on use."""

import importlib
import importlib.util
from typing import TYPE_CHECKING

from lcc.errors import TargetError

if TYPE_CHECKING:
    from lcc.targets.base import Target

TARGETS = {
    "onnxruntime:cpu": ("lcc.targets.onnx_runtime:OnnxRuntime", ("onnxruntime", "onnxscript")),
    "tvm:cpu": ("lcc.targets.tvm_cpu:TvmCpu", ("tvm",)),
    "reference": ("lcc.targets.reference:Reference", ("torch",)),
}


def missing(name: str) -> list[str]:
    """Modules that a target needs and this environment lacks."""
    return [m for m in TARGETS[name][1] if importlib.util.find_spec(m) is None]


def install(name: str) -> str:
    """The command that brings what a target needs."""
    extra = "compile,tvm" if name.startswith("tvm") else "compile"
    return f"pip install 'long-context-compiler[{extra}]'"


def find_target(name: str) -> "Target":
    """The target of that name. Raises TargetError if there is none, or it lacks a module."""
    if name not in TARGETS:
        raise TargetError(f"target is {name!r}, wanted one of {', '.join(TARGETS)}")
    if lacking := missing(name):
        raise TargetError(f"target {name} needs {', '.join(lacking)}; do: {install(name)}")
    module, _, attribute = TARGETS[name][0].partition(":")
    return getattr(importlib.import_module(module), attribute)()
