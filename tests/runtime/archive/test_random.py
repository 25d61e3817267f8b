"""Random calls, and writes that end midway, against an archive that is a dict."""

import os
import random

import pytest

from lcc.errors import ArchiveError
from lcc.runtime.archive.locked_file import LockedFile


class Stop(BaseException):
    """The process ends here."""


@pytest.fixture
def stop_after(monkeypatch):
    """Let the process end in the midst of the write that comes after so many others."""
    write, truncate, left = LockedFile.write, LockedFile.truncate, [-1]

    def counted() -> bool:
        left[0] -= 1
        return left[0] == -1

    def write_or_stop(self, offset, data):
        if counted():
            write(self, offset, bytes(data)[: len(data) // 2])
            raise Stop
        write(self, offset, data)

    def truncate_or_stop(self, size):
        if counted():
            raise Stop
        truncate(self, size)

    monkeypatch.setattr(LockedFile, "write", write_or_stop)
    monkeypatch.setattr(LockedFile, "truncate", truncate_or_stop)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    return lambda count: left.__setitem__(0, count)


@pytest.mark.parametrize("slots", [None, 2, 3, 5])
@pytest.mark.parametrize("seed", range(2))
def test_random_calls(book, stop_after, slots, seed):
    chance, stopped = random.Random(seed), 0
    held = {}  # block -> seed of its contents, rows
    first_rows = {0: 0}  # of all blocks there ever were, and of the next one
    archive, views = book.open(slots), []
    for call in range(400):
        end, before = archive.blocks.stop, dict(held)
        after = dict(held)
        what = chance.choices(["append", "truncate", "clear", "reopen"], [80, 8, 1, 8])[0]
        if what == "append":
            count = chance.randint(1, book.rows)
            after[end] = call, count
            if slots and len(after) > slots:
                del after[min(after)]
        elif what == "truncate":
            keep = chance.choice([*archive.blocks, end])
            after = {block: held[block] for block in held if block < keep}
        elif what == "clear":
            after = {}
        if what == "reopen" or chance.random() < 0.5:
            views = []  # of an archive that is closed they would keep the file locked
        elif chance.random() < 0.5 and held:
            views = [archive.column(chance.choice(archive.blocks), "key")]
        stop_after(chance.randrange(8) if chance.random() < 0.3 else 10**9)
        try:
            if what == "append":
                archive.append(count, book.arrays(call, count))
            elif what == "truncate":
                archive.truncate(keep)
            elif what == "clear":
                archive.clear()
            else:
                archive.close()
                archive = book.open()
            held = after
            stop_after(10**9)
        except Stop:
            stopped += 1
            stop_after(10**9)
            views = []
            archive._file.close(flush=False)
            archive = book.open()
            assert set(archive.blocks) <= set(before) | set(after)
            held = {block: (after if block in after else before)[block] for block in archive.blocks}
            if what == "append":  # what was there stays, but for the block that is overwritten
                assert archive.blocks == range(*(min(held, default=end), end + (end in held)))
                assert set(before) & set(after) <= set(held)
            elif what == "reopen":
                assert held == before
            else:
                assert set(after) <= set(held)
        if what == "append" and end in held:
            first_rows[end + 1] = first_rows[end] + count
        if what == "clear" and not held:
            first_rows = {archive.blocks.start: archive.lost}
            assert archive.blocks.start in (0, end)
        assert list(archive.blocks) == sorted(held)
        assert archive.length == sum(count for _, count in held.values())
        for block, (number, count) in held.items():
            assert archive.first_row(block) == first_rows[block]
            book.check(archive, block, number, count)
        assert len([view.sum() for view in views]) < 2  # reading it does not end the process
    assert stopped > 40
    archive.close()
    with pytest.raises(ArchiveError):
        book.open(7)
