"""A tokenizer.json of others, tried in a process of its own before this one reads it.

On some files the tokenizers library ends its process (a panic that is no exception), takes all
memory, or never returns. So a file that was never met is read, and used on a few texts, by another
process with limits. What has passed is remembered by its hash: the next time costs nothing. The
artifact's tables need none of this: they are read by lcc's own code.
"""

import hashlib
import importlib.metadata
import signal
import subprocess
import sys
from pathlib import Path

from lcc.env import cache_folder
from lcc.errors import LccError

CHILD = Path(__file__).with_name("trial_child.py")
SECONDS = 300  # of the clock, on a busy machine; the child stops after 10 of the processor
NATIVE = "where liblcc is installed, an artifact with tables is read without the library"
_passed: set[str] = set()


def tried(data: bytes, where: str, error: type[LccError]) -> None:
    """Refuse a tokenizer that the library cannot be trusted with.

    Args:
        data: tokenizer.json.
        where: its name, for messages.
        error: what is raised, with the library's words where it has some.
    """
    name = f"{hashlib.sha256(data).hexdigest()}-{importlib.metadata.version('tokenizers')}"
    note = cache_folder() / "tokenizers" / name
    if name in _passed or note.is_file():
        return
    if (fault := _fault(data)) is not None:
        raise error(f"{where}: {fault}")
    _passed.add(name)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        note.touch()
    except OSError:  # then it is tried again
        pass


def _fault(data: bytes) -> str | None:
    """What is wrong with a tokenizer; None = nothing."""
    if getattr(sys, "frozen", False) or not sys.executable:  # it would start the app once more
        return f"this program is no Python that could try it in another process; {NATIVE}"
    command = [sys.executable, "-P", str(CHILD)]
    try:
        result = subprocess.run(
            command, check=False, capture_output=True, input=data, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"the tokenizers library takes more than {SECONDS} s for it"
    except OSError as fault:
        return f"no process could be started to try it in ({fault}); {NATIVE}"
    if result.returncode == 0:
        return None
    if result.returncode == 1:
        return result.stdout.decode("utf-8", "replace").strip()
    lines = [line for line in result.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    return f"the tokenizers library {_end(result.returncode)} ({' '.join(lines[:2])[:200]})"


def _end(code: int) -> str:
    if code == -getattr(signal, "SIGXCPU", 0) or code == -getattr(signal, "SIGKILL", 0):
        return "takes too long for it"
    try:
        return f"ends the process with it: {signal.Signals(-code).name}"
    except ValueError:
        return f"ends the process with it: {code}"
