"""What an app allows an artifact to take: memory when it is loaded, time of a program's call."""

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

from lcc.artifact.manifest import Manifest
from lcc.errors import ConfigError, LimitError

TICK = 0.02  # seconds between looks at the clock
SIZES = {"float32": 4, "float16": 2, "int32": 4, "int64": 8}


def check_limits(memory: int | None, seconds: float | None) -> None:
    """Raise ConfigError for limits that are none."""
    if memory is not None and memory < 1:
        raise ConfigError(f"memory_limit is {memory}, wanted bytes, 1 or more")
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"time_limit is {seconds}, wanted seconds, more than 0")


def check_memory(manifest: Manifest, limit: int) -> None:
    """Refuse an artifact that takes more than `limit` bytes by its own table, or by its buffers.

    Raises:
        LimitError: says how much it takes, and how much is allowed.
    """
    table = sum(max(0, row.bytes) for row in manifest.memory)
    needed = max(table, buffers_bytes(manifest))
    if needed > limit:
        raise LimitError(
            f"{manifest.model.name} takes {needed:,} bytes, memory_limit is {limit:,}; allow more, "
            f"or compile it with --memory {limit // 1000000}MB"
        )


def buffers_bytes(manifest: Manifest) -> int:
    """Bytes of the buffers of one session, as compiled."""
    numbers = manifest.constants | dict.fromkeys(manifest.counters, 1)
    return sum(
        SIZES[spec.dtype] * prod(numbers[s] if isinstance(s, str) else s for s in spec.shape)
        for spec in manifest.buffers
    )


class Watch:
    """Ends calls of ONNX Runtime that take longer than allowed, from a thread of its own.

    It ends them between two operators, those in the body of a loop included.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: dict[int, tuple[float, Any]] = {}
        self._done = threading.Event()
        threading.Thread(target=_watch, args=(weakref.ref(self), self._done), daemon=True).start()

    def __del__(self) -> None:
        self._done.set()

    @contextmanager
    def over(self, options: Any) -> Iterator[None]:
        """A call with these RunOptions, which are this thread's.

        Raises:
            LimitError: in place of the call's own error, where it was ended.
        """
        options.terminate = False
        key = id(options)
        self._running[key] = time.monotonic() + self.seconds, options
        try:
            yield
        except Exception as error:
            if options.terminate:
                raise LimitError(
                    f"a program ran longer than time_limit, {self.seconds:g} s"
                ) from error
            raise
        finally:
            del self._running[key]

    def look(self) -> None:
        """End what has run too long."""
        now = time.monotonic()
        for end, options in list(self._running.values()):
            if now > end:
                options.terminate = True


def _watch(found: "weakref.ref[Watch]", done: threading.Event) -> None:
    while not done.wait(TICK):
        if (watch := found()) is None:
            return
        watch.look()
        del watch
