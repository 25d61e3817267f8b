"""Which program runs next, in pure integers: the whole of what a native runtime has to port.

Tokens are read until no slot is left for the next one; then a cycle makes room, and reading goes
on. Reading one token of generated text follows the same rule.

    capacity 8, budget 4, chunk 4, nothing reserved; 13 tokens into an empty cache
    read 4, read 4, cycle (8 -> 4), read 4, cycle (8 -> 4), read 1
"""

from collections.abc import Iterator
from dataclasses import dataclass

from lcc.errors import CacheError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The numbers that decide, counted in entries per KV head, or in tokens.

    capacity    slots of the cache
    budget      entries kept by a cycle
    chunk_size  tokens read by one step, at most
    reserved    slots at the end that text never takes: they are the catalyst's
    evicts      False: the artifact has no cycle, so the cache only fills
    """

    capacity: int
    budget: int
    chunk_size: int
    reserved: int = 0
    evicts: bool = True

    @property
    def usable(self) -> int:
        """Slots that tokens of the text may take."""
        return self.capacity - self.reserved


CYCLE = 0


def next_step(remaining: int, used: int, limits: Limits) -> int:
    """How many of the `remaining` tokens (at least 1) to read now; `CYCLE` = make room first.

    Raises:
        CacheError: there is no room, and no program that could make any.
    """
    room = limits.usable - used
    if room > 0:
        return min(remaining, limits.chunk_size, room)
    if not limits.evicts:
        raise CacheError(
            f"the cache is full: {used} entries in {limits.usable} slots, {remaining} more tokens "
            "to read, and the artifact's policy never evicts; compile with another policy or a "
            "larger capacity"
        )
    return CYCLE


def plan(tokens: int, used: int, limits: Limits) -> Iterator[int]:
    """Every step of reading `tokens` tokens into a cache with `used` entries."""
    while tokens > 0:
        step = next_step(tokens, used, limits)
        yield step
        tokens, used = (tokens, limits.budget) if step == CYCLE else (tokens - step, used + step)


def check_protected(size: int, recent_size: int, budget: int) -> None:
    """Refuse a protected beginning of `size` entries that leaves a cycle nothing to choose."""
    if size + recent_size >= budget:
        raise CacheError(
            f"protected tokens + recent_size ({size} + {recent_size} = {size + recent_size}) must "
            f"be smaller than budget ({budget}); protect less text or raise the budget"
        )
