"""Builds the native runtime for tests: once, and anew only what has changed."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import lcc.runtime

SOURCE = Path(lcc.runtime.__file__).resolve().parent / "native"


def missing_tool() -> str | None:
    """What of a compiler and CMake this machine lacks; None = nothing."""
    if shutil.which("cmake") is None:
        return "no cmake"
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "no C++ compiler"
    return None


def build(folder: Path) -> Path:
    """Build liblcc, lcc-run and the programs of the tests; returns the folder.

    Raises:
        RuntimeError: the compiler's words.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        options = ["-DCMAKE_BUILD_TYPE=Debug", "-DLCC_BUILD_TESTS=ON"]
        _run("cmake", *generator, *options, "-S", str(SOURCE), "-B", str(folder))
        _run("cmake", "--build", str(folder), "--parallel", "1")
    return folder


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Only one process builds in a folder."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*command: str) -> None:
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{result.stdout}{result.stderr}")


def onnx_runtime_library() -> Path:
    """ONNX Runtime's shared library, in its Python package."""
    import onnxruntime

    folder = Path(onnxruntime.__file__).parent / "capi"
    return next(iter(sorted(folder.glob("libonnxruntime.*[!y]"))))
