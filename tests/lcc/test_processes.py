"""The command in a process of its own: Ctrl-C, SIGTERM, a full disk, a closed pipe."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lcc.testing.tiny import save_tiny

SMALL = ("--capacity", 128, "--chunk-size", 16, "--catalyst-size", 32, "--recent-size", 8)
SMALL = (*SMALL, "--catalyst", "What matters?")


@pytest.fixture
def start():
    """Start Python code in a process that hears Ctrl-C, whoever runs the tests, and ends with them.

    A shell lets its background jobs, and what they start, ignore it.
    """
    started: list[subprocess.Popen] = []

    def run(code: str, *arguments: object) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_interrupt(start, tiny_artifact: Path, tmp_path: Path) -> None:
    long = tmp_path / "long.txt"
    long.write_text("word " * 1_000_000)
    code = "from lcc.cli import main; main()"
    process = start(code, "run", tiny_artifact, "--file", long, "--prompt", "Who?")
    loaded = Path(f"/proc/{process.pid}/maps")  # not before the command itself runs
    while "onnxruntime" not in loaded.read_text() and process.poll() is None:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "lcc: stopped"
    assert "Traceback" not in err


def compiling(start, folder: Path, before: str = "") -> subprocess.Popen:
    """`lcc compile` of a tiny model in a process of its own; `before`: Python to run first."""
    save_tiny(folder / "model")
    code = f"import sys\nfrom lcc.cli import main\n{before}\nmain()"
    return start(code, "compile", folder / "model", "-o", folder / "m.lcc", *SMALL, "-q")


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_compile_on_a_disk_that_fills_up(start, tmp_path: Path) -> None:
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    process = compiling(start, tmp_path, before=limit)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert err.splitlines()[-1].startswith("lcc: error: ")
    assert "m.lcc: cannot write the artifact (File too large)" in err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [(signal.SIGINT, 130, ["lcc: stopped"]), (signal.SIGTERM, 143, [])],
    ids=lambda value: getattr(value, "name", ""),
)
def test_interrupt_while_an_artifact_is_written(
    start, tmp_path: Path, sent: signal.Signals, code: int, words: list[str]
) -> None:
    process = compiling(start, tmp_path)
    while not list(tmp_path.glob(".m.lcc.*.partial")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err
    assert [line for line in err.splitlines() if line.startswith("lcc:")] == words
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_closed_pipe(tiny_artifact: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "from lcc.cli import main; main()"]
    result = subprocess.run(
        [*command, "inspect", str(tiny_artifact)],
        stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")
