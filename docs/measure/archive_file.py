"""How fast an archive is appended to and scanned: MB/s, GB/s, and the memory of a scan.

python docs/measure/archive_file.py BOOK.lccarchive [--layers 24] [--tokens 100000] [--rows 256]

Rows as a model of 2 KV heads of 64 has them (Qwen2.5-0.5B): float16 keys and values of each layer.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lcc.runtime.archive import Archive, Column


def held() -> float:
    """MB resident now, of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def scan(archive: Archive, names: list[str]) -> Callable[[], float]:
    """What reads all numbers of these columns, block by block, and gives the most memory held."""

    def all_of_it() -> float:
        most = 0.0
        for block in archive.blocks:
            for name in names:
                archive.column(block, name).view(np.int64).max()
            most = max(most, held())
        return most

    return all_of_it


def main() -> None:
    """Append, open, scan with and without checking, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=256)
    options = parser.parse_args()
    names = [f"{kind}_{i}" for kind in ("key", "value") for i in range(options.layers)]
    columns = [Column(name, "float16", (2, "rows", 64)) for name in names]
    random = np.random.default_rng(0)
    arrays = {
        name: random.standard_normal((2, options.rows, 64)).astype("float16") for name in names
    }
    options.archive.unlink(missing_ok=True)

    def opened() -> Archive:
        return Archive.open(options.archive, "measure", columns, options.rows)

    begin = time.perf_counter()
    archive = opened()
    for _ in range(options.tokens // options.rows):
        archive.append(options.rows, arrays)
    seconds, size = time.perf_counter() - begin, archive.file_bytes / 1e6
    print(f"{archive.length} rows of {archive.bytes_per_row} bytes, {size:.0f} MB")
    print(f"append      {seconds:6.2f} s, {size / seconds:6.0f} MB/s")
    begin = time.perf_counter()
    archive.close()
    print(f"close       {time.perf_counter() - begin:6.2f} s")
    begin = time.perf_counter()
    archive = opened()
    print(f"open        {time.perf_counter() - begin:6.2f} s")
    before = held()
    for words, share in (("keys, first", 2), ("keys, again", 2), ("all, again", 1)):
        begin = time.perf_counter()
        most = scan(archive, names[: len(names) // share])()
        seconds, read = time.perf_counter() - begin, size / share / 1e3
        print(f"{words} {seconds:6.2f} s, {read / seconds:6.2f} GB/s, +{most - before:.0f} MB")
    archive.close()
    options.archive.unlink()


if __name__ == "__main__":
    main()
