"""Bytes under a path that nobody else can write to: for what the system loads by path alone."""

import hashlib
import os
import sys
from pathlib import Path

_places: dict[bytes, str] = {}  # by the hash of what is there


def private_copy(data: bytes, path: Path) -> str:
    """Where a library with these bytes can be loaded from, for as long as the process lives.

    data    the content of `path`, as it was read and compared
    path    where it lies; given where the system has no files without a name (Linux has)

    The copy stays open: the system takes a path that it has loaded once for the same library, so
    the number in it must never be another one's.
    """
    if sys.platform != "linux":
        return str(path.resolve())
    import fcntl

    key = hashlib.sha256(data).digest()
    if key not in _places:
        number = os.memfd_create(path.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with open(number, "wb", closefd=False) as file:
            file.write(data)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, seals)
        _places[key] = f"/proc/self/fd/{number}"
    return _places[key]
