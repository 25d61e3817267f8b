"""Kills sessions that read with an archive, and looks at what they leave; prints what it saw.

python killed_reader.py MODEL.lcc FOLDER KILLS

Each archive must open, and hold the rows of one that was not killed, as far as it goes.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

import lcc.runtime
from lcc.artifact.manifest import Manifest, read_manifest
from lcc.runtime.archive.rows import ArchiveRows

TEXT = np.random.default_rng(3).integers(60, 120, 6000).tolist()


def read(artifact: Path, archive: Path) -> None:
    """Read the whole text."""
    session = lcc.runtime.open(artifact, threads=1, archive=archive, verify="size")
    session.feed(TEXT)
    session.close()


def forked(artifact: Path, archive: Path) -> int:
    """A process that reads."""
    if child := os.fork():
        return child
    read(artifact, archive)
    os._exit(0)


def rows_of(manifest: Manifest, path: Path) -> dict[str, np.ndarray]:
    """Every column of an archive, as it is in the file."""
    archive, found = ArchiveRows.open(path, manifest).archive, {}
    for name in [column.name for column in archive.layout.columns]:
        parts = [archive.column(block, name)[: archive.count(block)] for block in archive.blocks]
        found[name] = np.concatenate(parts) if parts else np.zeros(0)
        del parts  # they keep the file locked
    archive.close()
    return found


def main() -> None:
    """Fork, wait, kill, look."""
    artifact, folder, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    manifest, chance = read_manifest(artifact), random.Random(0)
    begin = time.perf_counter()
    os.waitpid(forked(artifact, folder / "whole"), 0)
    seconds, whole = time.perf_counter() - begin, rows_of(manifest, folder / "whole")
    told = {"kills": 0, "rows": [], "of": len(whole["position"])}
    for _ in range(kills):
        path = folder / "killed"
        path.unlink(missing_ok=True)
        child = forked(artifact, path)
        time.sleep(chance.uniform(0.1, 1.0) * seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if path.exists():
            rows = rows_of(manifest, path)
            count = len(rows["position"])
            for name, wanted in whole.items():
                assert (rows[name] == wanted[:count]).all(), (count, name)
            told["rows"].append(count)
        told["kills"] += 1
    print(json.dumps(told))


if __name__ == "__main__":
    main()
