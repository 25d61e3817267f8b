"""Two writers take turns at one artifact while a reader loads it; prints what the reader saw.

python exchanged_artifacts.py MODEL.lcc FOLDER SECONDS

The writers write MODEL.lcc and a copy with other weights. Each load must give one of the two, as a
whole, or an LccError.
"""

import json
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import lcc.runtime
from lcc.artifact.folder import write_artifact
from lcc.artifact.manifest import MANIFEST, Manifest, read_manifest
from lcc.errors import LccError

LOADS = 5  # at least, however busy the machine is
TEXT = "The cat sat on the mat. Where was it? Nobody knew; the key is 4711. " * 4


def write(place: Path, source: Path, *, changed: bool = False) -> None:
    """An artifact with the files of another one; `changed`: with other weights."""

    def fill(folder: Path) -> Manifest:
        for path in source.iterdir():
            if path.name != MANIFEST:
                shutil.copyfile(path, folder / path.name)
        if changed:
            data = bytearray((folder / "weights.bin").read_bytes())
            middle = len(data) // 8 * 4
            data[: middle // 2 * 2] = data[middle // 2 * 2 :][: middle // 2 * 2]
            (folder / "weights.bin").write_bytes(data)
        return read_manifest(source)

    write_artifact(place, fill)


def told(artifact: Path) -> bytes:
    """What the model makes of a text."""
    session = lcc.runtime.open(artifact, threads=1)
    session.feed(TEXT)
    return session.next_logits().tobytes()


def write_for(seconds: float, place: Path, source: Path) -> None:
    """Write the same again and again."""
    end, chance, written = time.monotonic() + seconds, Random(os.getpid()), 0
    while time.monotonic() < end:
        write(place, source)
        written += 1
        time.sleep(chance.uniform(0, 0.02))
    place.with_name(f"written_{source.stem}").write_text(str(written))


def main() -> None:
    """Fork the writers, load until they have ended."""
    one, folder, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    other, place = folder / "other.lcc", folder / "x.lcc"
    write(other, one, changed=True)
    write(place, one)
    outputs = {told(one): "one", told(other): "other"}
    assert len(outputs) == 2, "the two artifacts say the same"
    writers = []
    for source in (one, other):
        if (child := os.fork()) == 0:
            write_for(seconds, place, source)
            os._exit(0)
        writers.append(child)
    seen, loads, end = Counter[str](), 0, time.monotonic() + seconds
    while time.monotonic() < end or loads < LOADS:
        loads += 1
        try:
            seen[outputs.get(told(place), "neither")] += 1
        except LccError as error:
            text = str(error)
            seen["refused" if text.isprintable() else "not one line"] += 1
            seen[f"as {text.rpartition('/')[2][:60]}"] += 1
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in writers]
    written = [int((folder / f"written_{each.stem}").read_text()) for each in (one, other)]
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    in_the_end = outputs.get(told(place), "neither")
    page = {"seen": seen, "codes": codes, "written": written, "left": left, "end": in_the_end}
    print(json.dumps(page))


if __name__ == "__main__":
    main()
