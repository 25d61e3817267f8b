"""Scanning an archive takes the memory of a block, however large the file is."""

import subprocess
import sys

import pytest

SCAN = """
import os, sys
from pathlib import Path
from lcc.runtime.archive import Archive, Column
from lcc.runtime.archive import headers
import numpy as np, zlib

path, keep = sys.argv[1], sys.argv[2] == "keep"
columns = tuple(Column(f"key_{i}", "float32", (4, "rows", 64)) for i in range(8))
rows, blocks = 256, 160
def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

# Holes for columns of zeros: the file takes no space on the disk, and is read as any other.
with Archive.open(path, "f", columns, rows) as archive:
    layout, start = archive.layout, archive.file_bytes
crcs = [zlib.crc32(bytes(layout.column_bytes(column))) for column in columns]
with open(path, "r+b") as file:
    file.truncate(start + blocks * layout.block_bytes)
    for block in range(blocks):
        file.seek(start + block * layout.block_bytes)
        header = headers.BlockHeader(block, block * rows, rows)
        file.write(headers.encode_block_header(layout, header, crcs))
with Archive.open(path, "f", columns, rows) as archive:
    assert archive.length == blocks * rows
    kept, first, most = [], held(), 0
    for block in archive.blocks:
        for column in columns:
            array = archive.column(block, column.name)
            assert not array.any()
            most = max(most, held())
            if keep:
                kept.append(array)
    print(archive.file_bytes, most - first)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("keep", ["keep", "drop"])
def test_memory_of_a_scan(tmp_path, keep):
    command = [sys.executable, "-c", SCAN, str(tmp_path / "book.lccarchive"), keep]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    file_bytes, growth = map(int, result.stdout.split())
    assert file_bytes > 330_000_000
    if keep == "keep":  # the case occurs: arrays that are kept hold the file
        assert growth > 300_000_000
    else:
        assert growth < 16_000_000
