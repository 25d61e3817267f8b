"""What the bindings are tested with."""

from pathlib import Path

import pytest

from lcc.testing.native_library import onnx_runtime_library


@pytest.fixture(scope="session")
def liblcc(native_build: Path) -> Path:
    """The native library, just built."""
    return native_build / "liblcc.so"


@pytest.fixture(scope="session")
def onnx_runtime() -> Path:
    """The engine's library, of the Python package."""
    return onnx_runtime_library()
