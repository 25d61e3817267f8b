"""Runs a case in a forked child, with limits on time and memory, and says how it ended."""

import contextlib
import faulthandler
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lcc.errors import LccError

CPU_SECONDS, ASLEEP_SECONDS = 10, 20  # the second is for what waits for something for ever
MOST_BYTES = 1 << 30  # of resident memory, beyond what the parent has
ADDRESS_BYTES = 4 << 30  # of address space, likewise
FILE_BYTES = 64 << 20  # of a file that a child writes
WORDS_OF_MEMORY = ("bad_alloc", "Failed to allocate memory", "Unable to allocate", "out of memory")

Say = Callable[[str], None]
Job = Callable[[Say], Any]


@dataclass(frozen=True)
class Ending:
    """How a case ended.

    outcome     works; refused: an LccError of one line; message: an LccError that is not one line
                of printable text; exception: any other; memory; crash; hang
    step        what it was doing
    kind        type of the exception, or name of the signal
    text        of the exception
    place       where lcc raised it, or let it pass
    seconds     of CPU
    held_bytes  most resident memory
    output      what the job returned
    """

    outcome: str
    step: str = "begin"
    kind: str = ""
    text: str = ""
    place: str = ""
    seconds: float = 0.0
    held_bytes: int = 0
    output: Any = None

    @property
    def fine(self) -> bool:
        """Whether it may end so."""
        return self.outcome in ("works", "refused")


def run(job: Job, log: Path) -> Ending:
    """Fork, do the job, wait. The parent should have one thread.

    log     file for what the child prints
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        _be_child(job, writing, log)
    os.close(writing)
    with contextlib.closing(os.fdopen(reading, "rb")) as pipe:
        text, in_time = _read_until_end(pipe.fileno(), child)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    lines = [json.loads(line) for line in text.decode(errors="replace").splitlines()]
    page = {key: value for line in lines for key, value in line.items()}
    page |= {"seconds": used.ru_utime + used.ru_stime, "held_bytes": used.ru_maxrss * 1024}
    code = os.waitstatus_to_exitcode(status)
    if not in_time or code == -signal.SIGXCPU:
        page["outcome"] = "hang"
    elif code < 0 or "outcome" not in page:
        name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        page |= {"outcome": "crash", "kind": name, "place": _python_frame(log)}
    elif page["held_bytes"] > MOST_BYTES + _bytes_of(os.getpid(), "rss"):
        page["outcome"] = "memory"
    return Ending(**page)


def _read_until_end(pipe: int, child: int) -> tuple[bytes, bool]:
    """What the child writes, and whether it has ended; False = it has long been asleep."""
    text, end = b"", time.monotonic() + ASLEEP_SECONDS
    while (left := end - time.monotonic()) > 0:
        if select.select([pipe], [], [], min(left, 0.3))[0]:
            if not (piece := os.read(pipe, 65536)):
                return text, True
            text += piece
        elif _runs(child):  # its limit of CPU time will end it, however busy the machine is
            end = time.monotonic() + ASLEEP_SECONDS
    return text, False


def _runs(process: int) -> bool:
    """Whether it, or a process that it has begun, computes, or would if it had a core."""
    states = dict[int, tuple[int, str]]()  # process -> its parent, and what it does
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            states[int(path.parent.name)] = int(parent), state
    family = {process}
    while more := {each for each, (parent, _) in states.items() if parent in family} - family:
        family |= more
    return any(states[each][1] in "RD" for each in family & states.keys())


def _be_child(job: Job, pipe: int, log: Path) -> NoReturn:
    try:
        number = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(number, stream)
        sys.stdout = sys.stderr = open(number, "w", closefd=False)
        faulthandler.enable(file=number, all_threads=False)
        _limit()

        def say(step: str) -> None:
            os.write(pipe, json.dumps({"step": step}).encode() + b"\n")

        os.write(pipe, json.dumps(_ended(job, say)).encode() + b"\n")
        os._exit(0)
    finally:
        os._exit(99)


def _limit() -> None:
    room = ADDRESS_BYTES + _bytes_of(os.getpid(), "size")
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _ended(job: Job, say: Say) -> dict[str, Any]:
    try:
        return {"outcome": "works", "output": job(say)}
    except LccError as error:
        text = str(error)
        # A path may hold anything; what is shown of it must not move the cursor or begin a line.
        outcome = "refused" if text.isprintable() and text else "message"
        return {"outcome": outcome, "kind": type(error).__name__, "text": text[:500]}
    except BaseException as error:
        text = f"{error}"[:500]
        memory = isinstance(error, MemoryError) or any(words in text for words in WORDS_OF_MEMORY)
        return {
            "outcome": "memory" if memory else "exception",
            "kind": type(error).__name__,
            "text": text,
            "place": _place(error),
        }


def _place(error: BaseException) -> str:
    """The last line of lcc that an exception came through."""
    frames = [*_frames(error)]
    return frames[-1] if frames else ""


def _frames(error: BaseException) -> Iterator[str]:
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if {"lcc", "runtime", "targets"} & {*path.parts} and "fuzz" not in path.parts:
            if "site-packages" not in path.parts:
                yield f"{path.parent.name}/{path.name}:{frame.lineno}"


def _python_frame(log: Path) -> str:
    """The innermost line of Python of a process that a signal has ended, as faulthandler says."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line.strip() for line in lines if line.strip().startswith("File ")), "")


def _bytes_of(process: int, what: str) -> int:
    pages = Path(f"/proc/{process}/statm").read_text().split()
    return int(pages[("size", "rss").index(what)]) * resource.getpagesize()
