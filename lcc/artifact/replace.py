"""A folder or file that is written beside its place, and takes it in one step.

Whenever a process ends or the power goes, one of the two is there as a whole. What a process that
was killed has left is removed by the next one that writes to the same place.
"""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

EXCHANGE = 2  # of Linux's renameat2, and of macOS's renamex_np
AT_FDCWD = -100  # paths from the working directory
LOADS_END, EXCHANGE_ENDS, LOOK_AGAIN = 10.0, 1.0, 0.002  # seconds: two waits at most, and a pause


@contextlib.contextmanager
def folder_beside(place: Path) -> Iterator[Path]:
    """A new folder with a name of its own next to `place`, gone at the end if still there.

    It is locked as long as its process lives.
    """
    with _beside(place, Path.mkdir) as path:
        yield path


def write_pieces(place: Path, pieces: Iterable[bytes]) -> None:
    """Write a file piece by piece beside its place, then rename it; after an error nothing is left.

    Raises:
        OSError: the folder is not there, or the disk refuses.
    """
    place = place.absolute()
    with _beside(place, Path.touch) as path:
        with path.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        path.replace(place)
    flush_folder(place.parent)


@contextlib.contextmanager
def _beside(place: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    _sweep(place)
    while True:
        path = place.with_name(f".{place.name}.{secrets.token_hex(4)}.partial")
        make(path)
        try:
            with _locked(path) as ours:
                if ours is False:  # another writer took it for one that was left
                    continue
                yield path
                return
        finally:
            _remove(path)


def put_in_place(folder: Path, new: Path) -> None:
    """Let `new`, a folder of `folder_beside`, be `folder`; what was there lies at `new` then.

    Where the system cannot exchange two folders, there is a moment without any; a process that
    ends in it has left the old one, and the next writer puts it back. Loads that have begun
    (`being_loaded`) are waited for, ten seconds at most.
    """
    _flush(new)
    with _ours(folder, LOADS_END, shared=False):
        _put_in_place(folder, new)
    flush_folder(folder.parent)


def _put_in_place(folder: Path, new: Path) -> None:
    if not folder.exists():
        new.rename(folder)
    elif not _exchange(folder, new):
        old = new.with_name(new.name.removesuffix("partial") + "old")
        try:
            folder.rename(old)
            new.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        _remove(old)


@contextlib.contextmanager
def being_loaded(folder: str | Path) -> Iterator[None]:
    """Within, `put_in_place` leaves a folder where it is, for some seconds at least.

    Nothing is promised: not every system has such locks, and others may write to the folder
    without them. What is read must still be compared with what it should be.
    """
    with _ours(Path(folder), EXCHANGE_ENDS, shared=True):
        yield


@contextlib.contextmanager
def _ours(path: Path, seconds: float, *, shared: bool) -> Iterator[None]:
    """Lock what is at a path, or go on without when it cannot be had in so long."""
    end = time.monotonic() + seconds
    while True:
        with _locked(path, shared=shared) as ours:
            if ours is not False or time.monotonic() > end or not path.exists():
                yield
                return
        time.sleep(LOOK_AGAIN)


def flush_folder(folder: Path) -> None:
    """Have the system write the names in a folder to the disk, where it can be asked to."""
    with contextlib.suppress(OSError):  # Windows opens no folders; some file systems cannot
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _flush(root: Path) -> None:
    """The same of all files in a folder, and of their names."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        else:
            flush_folder(path)
    flush_folder(root)


def _exchange(one: Path, other: Path) -> bool:
    """Let two names stand for each other's folders, at once; False = the system cannot."""
    rename = _exchanging()
    if rename is None:
        return False
    if rename(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False  # of an old system, or of this file system
    raise OSError(number, os.strerror(number), str(one))


def _exchanging() -> Callable[[bytes, bytes], int] | None:
    """The system's function, where it has one."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            swap = library.renamex_np
            return lambda one, other: int(swap(one, other, ctypes.c_uint(EXCHANGE)))
        rename = library.renameat2
        place = ctypes.c_int(AT_FDCWD)
        return lambda one, other: int(rename(place, one, place, other, ctypes.c_uint(EXCHANGE)))
    except (AttributeError, OSError, TypeError):  # another C library; Windows
        return None


def _sweep(place: Path) -> None:
    """Remove what killed writers have left beside `place`; put it back if it was all there was."""
    name = re.compile(re.escape(f".{place.name}.") + r"[0-9a-f]{8}\.(partial|old)")
    with contextlib.suppress(OSError):  # of a folder that is not there
        for path in sorted(place.parent.iterdir()):
            if (match := name.fullmatch(path.name)) is None or path.is_symlink():
                continue
            with _locked(path) as ours:
                if not ours:  # its writer is alive, as far as the system can say
                    continue
                if match[1] == "old" and not place.exists():
                    path.rename(place)
                else:
                    _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, *, shared: bool = False) -> Iterator[bool | None]:
    """Whether a folder or file is this process's, and no other's; None = the system cannot say.

    `shared`: others may have it, too, who also share it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield None
        return
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # of a pipe, nobody writes to it
    except OSError as error:
        yield False if isinstance(error, FileNotFoundError) else None
        return
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        yield _lock(fcntl.flock, how | fcntl.LOCK_NB, number, path)
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(number, fcntl.LOCK_UN)  # a child that was forked has this file, too
        os.close(number)


def _lock(flock: Callable[[int, int], None], how: int, number: int, path: Path) -> bool | None:
    try:
        flock(number, how)
        return os.path.samestat(os.fstat(number), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:  # a file system without locks
        return None
