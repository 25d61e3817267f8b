"""Where the native library is, if it came with this installation."""

import sys
from pathlib import Path

from lcc import env

NAMES = {"win32": "lcc.dll", "darwin": "liblcc.dylib"}
FOLDER = Path(__file__).parent / "native" / "lib"


def native_library() -> Path | None:
    """The library behind `lcc.h`, for bindings and apps; None where the package has none.

    `python dev.py native` builds it into a checkout, and wheels built there have it; LCC_LIBRARY
    names another one. Python's own runtime reads text through it, and works without it.
    """
    path = env.native_library() or FOLDER / NAMES.get(sys.platform, "liblcc.so")
    return path if path.is_file() else None
