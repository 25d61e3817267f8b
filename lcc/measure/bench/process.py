"""A child process, from the parent's side: ask, watch the time, understand how it ended."""

import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any

from lcc.errors import LccError

Progress = Callable[[str, float], object]

COMMAND = (sys.executable, "-m", "lcc.measure.bench.child")


def ask(
    page: dict[str, Any], *, timeout: float | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Start `lcc.measure.bench.child` with a page, and return its answer.

    timeout     seconds; None = as long as it takes

    Raises:
        LccError: what it could not do, in its own words; or how it ended without an answer.
    """
    late, last = threading.Event(), dict[str, Any]()
    with tempfile.TemporaryFile("w+") as question, tempfile.TemporaryFile("w+b") as errors:
        json.dump(page, question)
        question.seek(0)
        process = subprocess.Popen(
            COMMAND,
            stdin=question,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
        )

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout or threading.TIMEOUT_MAX, stop)
        timer.daemon = True
        timer.start()
        try:
            for line in process.stdout or ():
                last = json.loads(line)
                if progress is not None and "step" in last:
                    progress(last["step"], last["done"])
            process.wait()
        finally:
            timer.cancel()
            process.kill()  # after Ctrl-C, or a line that is not ours
            process.wait()
        if late.is_set():
            raise LccError(f"not done in {timeout:g} s")
        if "error" in last:
            raise LccError(last["error"])
        if process.returncode or not last or "step" in last:
            raise LccError(_ended(process.returncode, errors))
    return last


def _ended(code: int, errors: IO[bytes]) -> str:
    """How a process ended that gave no answer, and the last line it wrote."""
    errors.seek(0)
    lines = errors.read().decode("utf-8", errors="replace").split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    how = f"ended with code {code}"
    if code < 0:
        name = signal.Signals(-code).name
        how = f"ended by {name}{', out of memory?' if name == 'SIGKILL' else ''}"
    return f"{how}: {said}" if said else how
