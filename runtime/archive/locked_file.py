"""A file of one process at a time: bytes read, written and mapped at offsets."""

import errno
import mmap
import os
from pathlib import Path
from typing import Any

from lcc.errors import ArchiveError

FAR = 1 << 40  # of the byte that is locked on Windows, where a locked byte cannot be read


class LockedFile:
    """A file, made if it is not there, that nobody else opens as long as it is open.

    Raises:
        ArchiveError: another session has it, or it is no file.
        OSError: the system refuses.
    """

    def __init__(self, path: Path) -> None:
        if not path.absolute().parent.is_dir():
            raise ArchiveError(f"no folder {path.parent}; make it first")
        if path.exists() and not path.is_file():
            raise ArchiveError("not a file; give the path of an archive, or of a new file")
        self._file = open(path, "r+b", buffering=0, opener=_open)
        try:
            _lock(self._file.fileno())
        except OSError as error:
            self._file.close()
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK):
                raise ArchiveError(f"cannot be locked: {error.strerror}") from None
            raise ArchiveError(
                "another session has it open, or arrays of it in use; close that one, or give "
                "another path"
            ) from None

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, length: int) -> bytes:
        """The bytes from `offset` on; fewer where the file ends."""
        self._file.seek(offset)
        pieces = []
        while length and (piece := self._file.read(length)):
            pieces.append(piece)
            length -= len(piece)
        return b"".join(pieces)

    def write(self, offset: int, data: Any) -> None:
        """Write all of a buffer of bytes, or raise OSError."""
        self._file.seek(offset)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def truncate(self, size: int) -> None:
        """Cut the file to this size, or lengthen it by zeros."""
        self._file.truncate(size)

    def map(self, offset: int, length: int) -> mmap.mmap:
        """Map some bytes to be read; `offset` is a multiple of mmap.ALLOCATIONGRANULARITY.

        Raises:
            ArchiveError: the file ends before them. Reading such a map would end the process.
        """
        if offset + length > self.size:
            raise ArchiveError(f"was cut to {self.size} bytes while it was open; open it again")
        return mmap.mmap(self._file.fileno(), length, access=mmap.ACCESS_READ, offset=offset)

    def flush(self) -> None:
        """Wait until the disk has it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close it. It is unlocked when nothing maps it: another session could cut it."""
        self._file.close()


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _lock(descriptor: int) -> None:
    """Lock the file or raise OSError; the system unlocks it when the process ends."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        os.lseek(descriptor, FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:  # a map has a copy of the descriptor, and with it the lock
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
