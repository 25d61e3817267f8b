import gc
import mmap
import os
import sys
import time
import weakref
from pathlib import Path

import pytest

from lcc.runtime import model as model_module
from lcc.runtime.resident import page_out, paged_out, trim
from lcc.runtime.text import reading

SIZE = 32 << 20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident(word: str = "VmRSS") -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(word))


def mapped(path: Path) -> mmap.mmap:
    """A file of ones, each of its pages read."""
    with path.open("wb+") as file:
        file.write(b"\x01" * SIZE)
        file.flush()
        os.fsync(file.fileno())
        pages = mmap.mmap(
            file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
    assert sum(pages[:: mmap.PAGESIZE]) == SIZE // mmap.PAGESIZE
    return pages


def test_what_was_freed_goes_back_to_the_system():
    trim()
    before = resident()
    blocks = [bytearray(5000) for _ in range(SIZE // 5000)]
    last = bytearray(5000)  # above them, so that the heap cannot simply end earlier
    assert resident() - before > SIZE * 0.9
    blocks.clear()
    trim()
    assert resident() - before < SIZE * 0.1
    assert len(last) == 5000


def test_pages_that_were_read_are_dropped_and_come_back(tmp_path):
    (tmp_path / "in").mkdir()
    pages, others = mapped(tmp_path / "in/weights.bin"), mapped(tmp_path / "other.bin")
    before = resident("RssFile")
    page_out(tmp_path / "in")
    assert before - SIZE * 1.1 < resident("RssFile") < before - SIZE * 0.9  # the other file stays
    assert pages[:] == b"\x01" * SIZE
    assert others[0] == 1


def test_pages_are_dropped_while_others_are_read(tmp_path):
    before = resident("RssFile")
    with paged_out(tmp_path):
        pages, end = mapped(tmp_path / "weights.bin"), time.monotonic() + 20
        while resident("RssFile") - before > SIZE * 0.1 and time.monotonic() < end:
            time.sleep(0.01)
        assert resident("RssFile") - before < SIZE * 0.1
        assert sum(pages[:: mmap.PAGESIZE]) == SIZE // mmap.PAGESIZE
    assert resident("RssFile") - before < SIZE * 0.1


def test_what_was_written_stays(tmp_path):
    pages = mapped(tmp_path / "weights.bin")
    pages[SIZE // 2] = 7
    page_out(tmp_path)
    assert pages[SIZE // 2] == 7


def test_a_deleted_session_gives_its_memory_back(make_model, monkeypatch):
    """Its buffers alone, where others use the model; then what the model took, too."""
    gc.collect()  # of sessions that other tests have left in cycles of references
    model, trimmed = make_model(), []
    session, other = model.session(), model.session()
    session.feed("some text")
    held = {"executor": weakref.ref(session._executor), "engine": weakref.ref(model.engine)}

    def note():
        trimmed.append([name for name, each in held.items() if each() is None])

    monkeypatch.setattr(reading, "trim", note)
    monkeypatch.setattr(model_module, "trim", note)
    del session
    gc.collect()
    assert trimmed == [["executor"]]
    del other, model
    gc.collect()
    assert ["executor", "engine"] in trimmed[1:]
