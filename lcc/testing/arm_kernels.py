"""Arm code as functions of arrays: a process of an Arm Python under qemu runs it.

Its system is the one that docs/measure/aarch64.sh makes.
"""

import atexit
import functools
import pickle
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ARM = Path(__file__).parents[2] / ".aarch64"
PYTHON = ARM / "root" / "usr" / "bin" / "python3.11"
# Reads (library, arrays), calls the library's kernel, and answers with the arrays as they are then.
_SERVER = """
import ctypes, pickle, sys
import tvm_ffi
for name in ("libtvm_runtime.so", "libtvm_runtime_extra.so"):
    ctypes.CDLL(f"{sys.argv[1]}/tvm/lib/{name}", ctypes.RTLD_GLOBAL)
kernels = {}
while True:
    try:
        path, arrays = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    if path not in kernels:
        kernels[path] = tvm_ffi.load_module(path)
    kernels[path]["kernel"](*map(tvm_ffi.from_dlpack, arrays))
    pickle.dump(arrays, sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


def missing() -> str:
    """Why Arm code does not run here; empty = it does."""
    if not PYTHON.exists() or not (ARM / "ready").exists():
        return "needs an Arm system: bash docs/measure/aarch64.sh"
    for program in ("qemu-aarch64", "aarch64-linux-gnu-g++"):
        if shutil.which(program) is None:
            return f"needs {program}"
    return ""


def arm_kernel(compiled: Any) -> Callable[..., None]:
    """What TVM compiled for aarch64-linux, with a function `kernel`; it writes to its arrays."""
    from tvm.support import cc

    process, folder = _machine()
    path = Path(tempfile.mkdtemp(dir=folder), "kernel.so")
    compiled.export_library(str(path), fcompile=cc.cross_compiler("aarch64-linux-gnu-g++"))

    def run(*arrays: np.ndarray) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        pickle.dump((str(path), arrays), process.stdin)
        process.stdin.flush()
        for array, result in zip(arrays, pickle.load(process.stdout), strict=True):
            array[...] = result

    return run


@functools.cache
def _machine() -> tuple[subprocess.Popen, Path]:
    """The process, and a folder for its libraries."""
    folder = Path(tempfile.mkdtemp(prefix="lcc_arm_"))
    command = ["qemu-aarch64", "-L", str(ARM / "root"), str(PYTHON), "-c", _SERVER]
    process = subprocess.Popen(
        [*command, str(ARM / "site")],
        env={"PYTHONPATH": str(ARM / "site"), "PATH": "/usr/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )

    def end() -> None:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return process, folder
