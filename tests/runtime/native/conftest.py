"""What the bindings and archives are tested with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lcc.testing.native_archive import Native
from lcc.testing.native_library import onnx_runtime_library


@pytest.fixture(scope="session")
def liblcc(native_build: Path) -> Path:
    """The native library, just built."""
    return native_build / "liblcc.so"


@pytest.fixture(scope="session")
def onnx_runtime() -> Path:
    """The engine's library, of the Python package."""
    return onnx_runtime_library()


@pytest.fixture
def archive_program(native_build: Path) -> Path:
    """Runs commands on an archive: of runtime/native/tests."""
    return native_build / "archive_rows"


@pytest.fixture
def native(archive_program: Path, tmp_path: Path) -> Iterator[Native]:
    """The program, with the temporary folder as its own."""
    made = Native(archive_program, tmp_path)
    yield made
    made.process.kill()
    made.process.communicate()
