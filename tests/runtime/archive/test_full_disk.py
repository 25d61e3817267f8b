"""A disk that refuses: the file stays as it was, and the session goes on without archiving."""

import contextlib
import errno
import sys

import pytest

from lcc.errors import ArchiveError

resource = pytest.importorskip("resource", reason="limits of a process are POSIX")


@contextlib.contextmanager
def largest_file(size: int):
    """Let the system refuse to write files behind this many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def full(monkeypatch):
    """Every write behind so many bytes of a file says that the disk is full."""

    def full(size):
        from lcc.runtime.archive.locked_file import LockedFile

        write = LockedFile.write

        def refuse(self, offset, data):
            if offset + len(data) > size:
                write(self, offset, data[: max(0, size - offset)])  # what there was room for
                raise OSError(errno.ENOSPC, "No space left on device")
            write(self, offset, data)

        monkeypatch.setattr(LockedFile, "write", refuse)

    return full


@pytest.mark.parametrize("room", [0, 1, 64, 100, 200, 300, 4095])
def test_a_file_that_cannot_grow(book, room):
    with book.open() as archive:
        book.fill(archive, range(3))
        before = book.path.read_bytes()
        with largest_file(len(before) + room):
            with pytest.raises(ArchiveError, match=r"book.lccarchive: file too large \(wanted 4"):
                archive.append(4, book.arrays(3))
            assert archive.append(4, book.arrays(3)) is None
        assert archive.append(4, book.arrays(3)) is None
        assert book.path.read_bytes() == before
        book.check_all(archive, range(3))
    with book.open() as archive:
        assert archive.dropped is None
        book.check_all(archive, range(3))


@pytest.mark.parametrize("room", [0, 63, 64, 100, 200, 290])
def test_a_full_disk(book, full, room):
    with book.open() as archive:
        book.fill(archive, range(3))
        before = book.path.read_bytes()
        full(len(before) + room)
        with pytest.raises(ArchiveError) as raised:
            archive.append(4, book.arrays(3))
        assert str(raised.value) == f"{book.path}: {archive.stopped}"
        assert archive.stopped == (
            "no space left on device (wanted 4096 bytes for block 3); archiving stops, what was "
            "archived before can be read; make room, or set a limit, and begin anew"
        )
        assert book.path.read_bytes() == before
        book.check_all(archive, range(3))
        archive.clear()
        assert archive.stopped is None
        book.fill(archive, range(2))
        book.check_all(archive, range(2))


def test_a_full_disk_under_a_full_file(book, full):
    """The oldest block is gone when the one that takes its place cannot be written."""
    with book.open(3) as archive:
        book.fill(archive, range(3))
        full(book.header_bytes + 200)
        with pytest.raises(ArchiveError, match="no space left on device"):
            archive.append(4, book.arrays(3))
        book.check_all(archive, range(1, 3))
    with book.open() as archive:
        book.check_all(archive, range(1, 3))


def test_no_room_for_a_new_file(book, full):
    full(100)
    with pytest.raises(ArchiveError, match=r"book.lccarchive: no space left on device"):
        book.open()
    assert book.path.read_bytes() == b""


@pytest.mark.skipif(sys.platform != "linux", reason="root may write anywhere elsewhere")
def test_a_file_that_cannot_be_opened(book):
    book.path.symlink_to(book.path)
    with pytest.raises(ArchiveError, match=r"book.lccarchive: too many levels of symbolic links"):
        book.open()
