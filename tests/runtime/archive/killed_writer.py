"""Kills writers of an archive and looks at what they leave; prints what it saw, as JSON.

python killed_writer.py BOOK.lccarchive KILLS

One process forks them, since importing takes longer than a writer lives.
"""

import itertools
import json
import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from lcc.runtime.archive import Archive, Column

ROWS = 64
COLUMNS = (
    Column("key", "float32", (2, "rows", 64)),
    Column("seed", "int64", ("rows",)),
    Column("value", "int8", (2, "rows", 64)),
)
LIMIT = 60 * 50_000  # bytes of every second file: some 55 blocks
# What a writer shares with the one who kills it: numbers of blocks that are in the file for
# certain, and that may be there, and how often it truncated.
DONE, BEGUN, TRUNCATED = range(3)


def arrays_of(seed: int, count: int) -> dict[str, np.ndarray]:
    """Columns that follow from a seed, which is in one of them."""
    numbers = np.arange(count)
    key = np.broadcast_to(np.float32(seed % 9973 + numbers[:, None] / 128), (2, count, 64))
    value = np.broadcast_to(np.int8((seed + numbers[:, None]) % 100 + 1), (2, count, 64))
    return {"key": key, "seed": np.full(count, seed), "value": value}


def open_archive(path: Path, limited: bool) -> Archive:
    """The archive of this test."""
    return Archive.open(path, "f", COLUMNS, ROWS, limit_bytes=LIMIT if limited else None)


def write(path: Path, limited: bool, shared: np.ndarray, first: int) -> None:
    """Append for ever, truncate now and then, and note each block when it is in the file."""
    archive, chance = open_archive(path, limited), random.Random(first)
    for seed in itertools.count(first):
        if chance.random() < 0.02 and len(archive.blocks) > 5:
            end = archive.blocks.stop - chance.randrange(1, 5)
            shared[DONE] = end  # from here on the others may be gone
            archive.truncate(end)
            shared[TRUNCATED] += 1
        shared[BEGUN] = archive.blocks.stop + 1
        count = ROWS if chance.random() < 0.7 else chance.randrange(1, ROWS)
        number = archive.append(count, arrays_of(seed, count))
        shared[DONE] = number + 1


def check(archive: Archive) -> None:
    """Every block holds what its seed says, and zeros behind it."""
    for block in archive.blocks:
        count = archive.count(block)
        seeds = archive.column(block, "seed")
        wanted = arrays_of(int(seeds[0]), count)
        assert (seeds[:count] == seeds[0]).all()
        for column in COLUMNS:
            rows = np.moveaxis(archive.column(block, column.name), column.shape.index("rows"), 0)
            mine = np.moveaxis(wanted[column.name], column.shape.index("rows"), 0)
            assert (rows[:count] == mine).all(), (block, column.name)
            assert not rows[count:].any(), (block, column.name)


def main() -> None:
    """Fork, wait, kill, look."""
    path, kills = Path(sys.argv[1]), int(sys.argv[2])
    told = dict.fromkeys(("kills", "dropped", "blocks", "lost", "truncated"), 0)
    shared, chance = np.frombuffer(mmap.mmap(-1, 64), np.int64, 3), random.Random(0)
    os.fsync = lambda descriptor: None
    for kill in range(kills):
        limited = kill // 10 % 2 == 1
        if kill % 10 == 0:
            path.unlink(missing_ok=True)
        if (child := os.fork()) == 0:
            write(path, limited, shared, kill * 10_000)
        time.sleep(chance.uniform(0.001, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        done, begun, truncated = shared.tolist()
        with open_archive(path, limited) as archive:
            stop = archive.blocks.stop
            assert done <= stop <= max(begun, done), (done, begun, archive.blocks)
            check(archive)
            told["kills"] += 1
            told["dropped"] += archive.dropped is not None
            told["blocks"] += len(archive.blocks)
            told["lost"] += archive.lost
        told["truncated"] += truncated
        shared[:] = stop if kill % 10 < 9 else 0, stop, 0
    print(json.dumps(told))


if __name__ == "__main__":
    main()
