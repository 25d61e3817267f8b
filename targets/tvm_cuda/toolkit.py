"""nvcc, and what stands for the driver on a machine without a GPU.

TVM makes machine code only where its part for CUDA loads, and that wants the driver's library. To
compile, nothing of it is called: a library whose functions all fail does as well.
"""

import contextlib
import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lcc import env
from lcc.errors import TargetError

DRIVER = "libcuda.so.1"
# What libtvm_runtime_cuda.so of TVM 0.27 asks of the driver.
FUNCTIONS = (
    "cuDeviceGetName",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuLaunchKernelEx",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuTensorMapEncodeTiled",
)
NOT_FOUND = 500  # CUDA_ERROR_NOT_FOUND


def missing_tools() -> list[str]:
    """What compiling for CUDA needs and this machine lacks."""
    reasons = []
    if shutil.which("nvcc") is None:
        reasons.append("nvcc is not on this machine; install the CUDA toolkit, no GPU is needed")
    elif not _runtime_folder():
        reasons.append("the CUDA toolkit of nvcc has no libcudart.so; install it whole")
    if importlib.util.find_spec("tvm") is None:
        reasons.append("tvm is not installed")
    return reasons


def _runtime_folder() -> Path | None:
    """Where the toolkit's libraries are."""
    nvcc = shutil.which("nvcc")
    roots = [] if nvcc is None else [Path(nvcc).resolve().parents[1]]
    for root in [*roots, Path("/usr/local/cuda")]:
        for name in ("lib64", "lib"):
            if list((root / name).glob("libcudart.so*")):
                return root / name
    return None


@contextlib.contextmanager
def environment() -> Iterator[dict[str, str]]:
    """Variables of a process that compiles: CUDA's libraries are found, nvcc is used."""
    with tempfile.TemporaryDirectory() as place:
        _write_driver(Path(place) / DRIVER)
        folders = [str(_runtime_folder()), place]  # a driver that is there is found first
        yield env.with_libraries(folders, TVM_CUDA_COMPILE_MODE="nvcc")


def _write_driver(path: Path) -> None:
    lines = [f"int {name}(void) {{ return {NOT_FOUND}; }}" for name in FUNCTIONS]
    source = path.with_suffix(".c")
    source.write_text("\n".join(lines) + "\n", encoding="ascii")
    command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{DRIVER}", "-o", str(path), str(source)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise TargetError(f"cc cannot make {DRIVER}: {run.stderr.strip().splitlines()[-1]}")
