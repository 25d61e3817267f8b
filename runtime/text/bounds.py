"""What a chat template may take: steps, memory, time and text, by the size of what it is given.

A template is code of others. A meter counts each round of a loop, each call and each operation, and
the bytes of what they make; what would be too large is refused before it is made.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from lcc.errors import ConfigError

STEPS, STEPS_EACH = 500_000, 2_000  # in all, and for each value that a template is given
BYTES, TIMES = 16 << 20, 100  # made in all, and as many times the size of what it is given
TEXT = 1 << 16  # characters that come out, beside as many times: all of them are read by the model
SECONDS, SECONDS_EACH = 5.0, 0.001  # of the processor: for what a single step may take
SOURCE = 1 << 16  # characters; the longest in use has 30,000
NESTED = 50  # statements within statements
LOOK = 64  # steps from one look at the clock to the next
NUMBER_BITS = 4096
WIDTH = 100_000  # of a field, a list of lists, an indentation
CONTAINERS: tuple[type, ...] = (
    list,
    tuple,
    dict,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)


class TemplateLimitError(ConfigError):
    """A template takes more than it may."""


class Meter:
    """What a rendering may still take."""

    def __init__(self, given: Any) -> None:
        """`given`: what the template is told, as JSON's own types."""
        values, size = _size(given, None)
        self._steps = self.most_steps = STEPS + STEPS_EACH * values
        self.bytes = self.most_bytes = BYTES + TIMES * size
        self.most_text = TEXT + TIMES * size
        self.seconds = SECONDS + SECONDS_EACH * values
        self._end = time.thread_time() + self.seconds

    def step(self, count: int = 1) -> None:
        """Count steps."""
        self._steps -= count
        if self._steps < 0:
            raise TemplateLimitError(f"takes more than {self.most_steps:,} steps")
        if self._steps % LOOK == 0 and time.thread_time() > self._end:
            raise TemplateLimitError(f"takes more than {self.seconds:.0f} s")

    def need(self, size: float) -> None:
        """Refuse what would have more bytes than are left."""
        if size > self.bytes:
            raise TemplateLimitError(f"makes more than {self.most_bytes:,} bytes of text and lists")

    def made(self, value: Any) -> None:
        """Count a step and what it made."""
        self.step()
        if isinstance(value, (str, *CONTAINERS)):
            size = sys.getsizeof(value)
            self.need(size)
            self.bytes -= size

    def shown(self, text: str) -> str:
        """Refuse a text that takes much longer to read than what it was made of."""
        if len(text) > self.most_text:
            raise TemplateLimitError(
                f"makes a text of {len(text):,} characters, more than {self.most_text:,} for what "
                "it is given"
            )
        return text

    def whole(self, value: Any) -> int:
        """Bytes of all that a container holds, 0 for anything else; refused beyond what is left.

        Lists may hold the same list many times, and so be larger as a text, or to compare, than the
        memory that they take.
        """
        if not isinstance(value, CONTAINERS):
            return 0
        values, size = _size(value, self)
        self.step(values)
        return size


def _size(value: Any, meter: Meter | None) -> tuple[int, int]:
    """Values in a tree and bytes of it; refused where it has more than the meter has left."""
    values, size, waiting = 0, 0, list[Any]([value])
    while waiting:
        each = waiting.pop()
        values += 1
        size += 8
        if isinstance(each, str):
            size += len(each)
        elif isinstance(each, dict):
            waiting += each
            waiting += each.values()
        elif isinstance(each, CONTAINERS):
            parts: Any = each
            waiting += parts
        if meter is not None:
            meter.need(size + 8 * len(waiting))
    return values, size


_METER: ContextVar[Meter] = ContextVar("meter")


@contextmanager
def metered(given: Any) -> Iterator[Meter]:
    """Bound what runs inside; `given`: what the template is told."""
    meter = Meter(given)
    token = _METER.set(meter)
    try:
        yield meter
    finally:
        _METER.reset(token)


def meter() -> Meter:
    """The one of what is running."""
    return _METER.get()
