"""A folder takes the place of another in one step, and killed writers leave nothing for long."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcc.artifact import replace
from lcc.artifact.replace import being_loaded, folder_beside, put_in_place, write_pieces

WRITER = """
import os, signal, sys
from pathlib import Path
from lcc.artifact import replace

moment, folder = sys.argv[1], Path(sys.argv[2])

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if moment == "old folder moved away":
    replace._exchanging = lambda: None
    rename, calls = Path.rename, []
    Path.rename = lambda self, to: die() if calls else (calls.append(1), rename(self, to))
if moment == "exchanged":
    replace.flush_folder = die
    replace._flush = lambda root: None
with replace.folder_beside(folder) as new:
    (new / "name").write_text("half")
    if moment == "filling":
        die()
    replace.put_in_place(folder, new)
"""


def write(folder: Path, name: str) -> None:
    with folder_beside(folder) as new:
        (new / "inside").mkdir()
        (new / "inside" / "name").write_text(name)
        (new / "name").write_text(name)
        put_in_place(folder, new)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir()]


@pytest.mark.parametrize("exchanges", [True, False])
def test_one_takes_the_place_of_the_other(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(replace, "_exchanging", lambda: None)
    for name in ("a", "b", "c"):
        write(tmp_path / "x", name)
        assert (tmp_path / "x" / "name").read_text() == name
        assert names(tmp_path / "x") == ["x"]


@pytest.mark.skipif(replace._exchanging() is None, reason="the system exchanges no folders")
def test_there_is_no_moment_without_one(tmp_path: Path) -> None:
    write(tmp_path / "x", "0")
    missing, stop = [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                (tmp_path / "x" / "name").read_text()
            except FileNotFoundError as error:
                missing.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(100):
        write(tmp_path / "x", str(i))
    stop.set()
    reader.join()
    assert not missing


@pytest.mark.skipif(sys.platform == "win32", reason="no process is known to be dead there")
@pytest.mark.parametrize(
    ("moment", "there"),
    [("filling", "before"), ("exchanged", "half"), ("old folder moved away", None)],
)
def test_what_a_killed_writer_leaves_goes(moment: str, there: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write(folder, "before")
    run = subprocess.run([sys.executable, "-c", WRITER, moment, str(folder)], check=False)
    assert run.returncode == -signal.SIGKILL
    assert (folder / "name").read_text() == there if there else not folder.exists()
    assert len(names(folder)) == 2
    with folder_beside(folder):  # another writer, which writes nothing
        assert (folder / "name").read_text() == (there or "before")
    assert names(folder) == ["x"]


def test_a_writer_that_lives_keeps_its_folder(tmp_path: Path) -> None:
    with folder_beside(tmp_path / "x") as one:
        (one / "name").write_text("one")
        with folder_beside(tmp_path / "x") as other:
            assert (one / "name").read_text() == "one"
            put_in_place(tmp_path / "x", other)
        put_in_place(tmp_path / "x", one)
    assert (tmp_path / "x" / "name").read_text() == "one"
    assert names(tmp_path / "x") == ["x"]


def test_folders_of_others_stay(tmp_path: Path) -> None:
    strangers = [".x.partial", ".x.0123456.partial", ".y.01234567.partial", ".x.01234567.backup"]
    for name in strangers:
        (tmp_path / name).mkdir()
    write(tmp_path / "x", "new")
    assert sorted(names(tmp_path / "x")) == sorted([*strangers, "x"])


@pytest.mark.skipif(sys.platform == "win32", reason="no process is known to be dead there")
def test_a_file_takes_the_place_of_another(tmp_path: Path) -> None:
    """And what a killed writer has left goes; what one leaves that fails, too."""
    place = tmp_path / "x"
    (tmp_path / ".x.01234567.partial").write_bytes(b"half")
    write_pieces(place, [b"one ", b"two"])
    assert place.read_bytes() == b"one two"
    assert names(place) == ["x"]

    def failing() -> Iterator[bytes]:
        yield b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_pieces(place, failing())
    assert place.read_bytes() == b"one two"
    assert names(place) == ["x"]


@pytest.mark.skipif(sys.platform == "win32", reason="no folder is locked there")
def test_a_writer_waits_for_loads(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write(folder, "old")
    writer = threading.Thread(target=write, args=(folder, "new"))
    with being_loaded(folder):
        with being_loaded(folder):
            writer.start()
        writer.join(0.5)
        assert writer.is_alive()
        assert (folder / "name").read_text() == "old"
    writer.join()
    assert (folder / "name").read_text() == "new"
    assert names(folder) == ["x"]


def test_a_writer_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replace, "LOADS_END", 0.1)
    write(tmp_path / "x", "old")
    with being_loaded(tmp_path / "x"):
        write(tmp_path / "x", "new")
        assert (tmp_path / "x" / "name").read_text() == "new"
    assert names(tmp_path / "x") == ["x"]


@pytest.mark.skipif(sys.platform == "win32", reason="no folder is locked there")
def test_a_load_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For who holds a folder alone, for a pipe that nobody writes to, for a folder to come."""
    monkeypatch.setattr(replace, "EXCHANGE_ENDS", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with folder_beside(tmp_path / "x") as new:
        for path in (new, tmp_path / "pipe", tmp_path / "none"):
            with being_loaded(path):
                assert path.exists() == (path.name != "none")
