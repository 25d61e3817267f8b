"""What a session has done and what it holds."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(kw_only=True)
class Clock:
    """Counts that only grow; times in seconds. Cycles are part of the time they happened in."""

    load_seconds: float = 0.0
    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    first_token_seconds: float | None = None
    cycles: int = 0
    cycle_seconds: float = 0.0
    recalls: int = 0
    recall_seconds: float = 0.0


@dataclass(kw_only=True)
class Stats(Clock):
    """A moment of a session: its clock, and what it holds.

    prefill             tokens read as input, and the seconds they took
    decode              tokens generated after the first of each answer, and the seconds they took
    first_token_seconds from the last call of generate() or chat() to its first token
    tokens              read since the beginning
    entries             held now per KV head, of `capacity`
    cache_bytes         allocated for the cache, which never changes
    held_bytes          of them in use
    recalled            entries that the last question brought back; None = there was no recall
    archive_rows        tokens in the archive; None = there is none
    archive_bytes       of its file; it grows on disk, and no memory does
    archive_stopped     why nothing more is archived; None = archiving goes on
    peak_rss_bytes      the most the whole process ever took; None = the system does not say
    """

    tokens: int
    entries: int
    capacity: int
    cache_bytes: int
    held_bytes: int
    peak_rss_bytes: int | None
    recalled: int | None = None
    archive_rows: int | None = None
    archive_bytes: int | None = None
    archive_stopped: str | None = None

    @property
    def prefill_tokens_per_second(self) -> float:
        """0 where nothing was read."""
        return _rate(self.prefill_tokens, self.prefill_seconds)

    @property
    def decode_tokens_per_second(self) -> float:
        """0 where nothing was generated."""
        return _rate(self.decode_tokens, self.decode_seconds)

    def to_dict(self) -> dict[str, Any]:
        """Every number by name, for JSON."""
        rates = ("prefill_tokens_per_second", "decode_tokens_per_second")
        return asdict(self) | {name: getattr(self, name) for name in rates}

    def __str__(self) -> str:
        peak = "unknown" if self.peak_rss_bytes is None else f"{self.peak_rss_bytes / 1e6:,.0f} MB"
        first = self.first_token_seconds
        rows = [
            ("load", f"{self.load_seconds:.2f} s"),
            (
                "prefill",
                f"{self.prefill_tokens:,} tokens, {self.prefill_seconds:.2f} s, "
                f"{self.prefill_tokens_per_second:.1f} tokens/s",
            ),
            ("first token", "-" if first is None else f"{first * 1000:.0f} ms"),
            (
                "decode",
                f"{self.decode_tokens:,} tokens, {self.decode_seconds:.2f} s, "
                f"{self.decode_tokens_per_second:.1f} tokens/s",
            ),
            ("cycles", f"{self.cycles:,}, {self.cycle_seconds:.2f} s"),
            ("cache", f"{self.entries:,} of {self.capacity:,} entries for {self.tokens:,} tokens"),
            ("", f"{self.held_bytes / 1e6:,.1f} of {self.cache_bytes / 1e6:,.1f} MB"),
            ("peak memory", peak),
        ]
        if self.archive_rows is not None:
            size = (
                f"{self.archive_rows:,} tokens, {(self.archive_bytes or 0) / 1e6:,.1f} MB on disk"
            )
            rows.insert(-1, ("archive", size))
            back = "" if self.recalled is None else f", {self.recalled:,} entries in the last one"
            rows.insert(-1, ("recalls", f"{self.recalls:,}, {self.recall_seconds:.2f} s{back}"))
        if self.archive_stopped is not None:
            rows.insert(-1, ("", f"archiving has stopped: {self.archive_stopped}"))
        return "\n".join(f"{name:<12} {text}" for name, text in rows)


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def peak_rss_bytes() -> int | None:
    """The most resident memory this process ever had; None where the system does not say."""
    try:  # Linux: of this program alone; ru_maxrss would begin with the parent's
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
