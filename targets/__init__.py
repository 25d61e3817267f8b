"""Targets by the name a user types; imported on use."""

import importlib
import importlib.util
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcc.config import CompileConfig
from lcc.errors import ConfigError, TargetError

if TYPE_CHECKING:
    from lcc.ir.program import Program
    from lcc.targets.base import Target


@dataclass(frozen=True)
class Entry:
    """What is known of a target before it is imported.

    place       module:attribute
    needs       modules that compiling for it takes, of the extra `extra`
    device      what the artifact runs on: an execution provider of ONNX Runtime, a module, or
                another machine
    checked     how far it was tried, by the tests of this repository
    """

    place: str
    needs: tuple[str, ...]
    device: str
    checked: str
    extra: str = "compile"


_ONNX = ("onnxruntime", "onnxscript")
_ON_A_CPU = "every program on a CPU; the device's operators by ONNX Runtime's checker; no device"
_OBJECTS = "objects: architecture and symbols; not linked, no device"

TARGETS = {
    "onnxruntime:cpu": Entry(
        "lcc.targets.onnx_runtime:OnnxRuntime",
        _ONNX,
        "CPUExecutionProvider",
        "every program, here",
    ),
    "onnxruntime:cuda": Entry(
        "lcc.targets.onnx_cuda:OnnxCuda",
        _ONNX,
        "CUDAExecutionProvider",
        "every program in half precision, and a device's buffers, on a CPU; no GPU",
    ),
    "onnxruntime:mobile": Entry(
        "lcc.targets.onnx_mobile:OnnxMobile",
        _ONNX,
        "CPUExecutionProvider",
        "every program, on an x86 CPU; no phone",
    ),
    "onnxruntime:nnapi": Entry(
        "lcc.targets.onnx_mobile:nnapi", _ONNX, "NnapiExecutionProvider", _ON_A_CPU
    ),
    "onnxruntime:coreml": Entry(
        "lcc.targets.onnx_mobile:coreml", _ONNX, "CoreMLExecutionProvider", _ON_A_CPU
    ),
    "tvm:cpu": Entry(
        "lcc.targets.tvm_cpu:TvmCpu", ("tvm",), "tvm", "every program, here", extra="compile,tvm"
    ),
    "tvm:aarch64-linux": Entry(
        "lcc.targets.tvm_cpu:aarch64_linux",
        ("tvm",),
        "aarch64",
        "goldens and kernels, in few bits too, under qemu",
        extra="compile,tvm",
    ),
    "tvm:android": Entry(
        "lcc.targets.tvm_cpu:android", ("tvm",), "Android", _OBJECTS, extra="compile,tvm"
    ),
    "tvm:ios": Entry("lcc.targets.tvm_cpu:ios", ("tvm",), "iOS", _OBJECTS, extra="compile,tvm"),
    "tvm:cuda": Entry(
        "lcc.targets.tvm_cuda:TvmCuda",
        ("tvm",),
        "engine for it",
        "machine code; its numbers, in half precision, on a CPU; no GPU",
        extra="compile,tvm",
    ),
    "reference": Entry(
        "lcc.targets.reference:Reference", ("torch",), "torch", "it is what others are held to"
    ),
}


def missing(name: str) -> list[str]:
    """Modules that compiling for a target needs and this environment lacks."""
    return [each for each in TARGETS[name].needs if importlib.util.find_spec(each) is None]


def install(name: str) -> str:
    """The command that installs what compiling for a target needs."""
    return f"pip install 'long-context-compiler[{TARGETS[name].extra}]'"


def missing_device(name: str) -> str | None:
    """What running an artifact of this target needs and is not here; None = it runs here."""
    device = TARGETS[name].device
    if name.startswith("tvm:") and importlib.util.find_spec("tvm") is None:
        return "tvm"
    if device in ("engine for it", "aarch64", "Android", "iOS"):
        return None if (device, platform.machine()) == ("aarch64", "aarch64") else device
    if device in ("torch", "tvm"):
        return None if importlib.util.find_spec(device) else device
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime"
    import onnxruntime

    return None if device in onnxruntime.get_available_providers() else device


def find_target(name: str) -> "Target":
    """The target of that name. Raises TargetError if there is none, or it lacks a module."""
    if name not in TARGETS:
        raise TargetError(f"target is {name!r}, wanted one of {', '.join(TARGETS)}")
    if lacking := missing(name):
        raise TargetError(f"target {name} needs {', '.join(lacking)}; do: {install(name)}")
    module, _, attribute = TARGETS[name].place.partition(":")
    return getattr(importlib.import_module(module), attribute)()


def find_targets(config: CompileConfig) -> "list[Target]":
    """All targets that are asked for, the main one first, for the CPU that is asked for.

    Raises:
        TargetError: there is no such target, or it lacks a module.
        ConfigError: one is named twice, or has no such precision or level of CPU.
    """
    names = [config.target, *config.also]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"target {', '.join(sorted(twice))} is named twice")
    targets = [find_target(name) for name in names]
    if config.cpu is not None:
        _set_cpu(targets, config.cpu)
    for target in targets:
        if config.precision not in target.precisions:
            wanted = ", ".join(target.precisions)
            raise ConfigError(f"precision is {config.precision}, target {target.name} has {wanted}")
        if config.kv_precision not in target.kv_precisions:
            wanted = ", ".join(target.kv_precisions)
            raise ConfigError(
                f"kv_precision is {config.kv_precision}, target {target.name} has {wanted}"
            )
        target.precision = config.precision
    return targets


def _set_cpu(targets: "list[Target]", cpu: str) -> None:
    """Compile for this level of CPU where a target knows levels."""
    levels = [level for target in targets for level in target.levels]
    if not levels:
        names = ", ".join(target.name for target in targets)
        raise ConfigError(f"cpu is {cpu}, {names} runs on any; leave it out")
    if cpu not in levels:
        raise ConfigError(f"cpu is {cpu!r}, wanted one of {', '.join(levels)}")
    for target in targets:
        if cpu in target.levels:
            target.cpu = cpu


def refuse(targets: "list[Target]", programs: "Mapping[str, list[Program]]") -> None:
    """Raise ConfigError with all reasons why a target cannot build its programs."""
    for target in targets:
        if reasons := target.refusals(programs[target.name]):
            raise ConfigError(f"target {target.name} refuses: " + "; ".join(reasons))
