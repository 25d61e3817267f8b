"""States with a right digest that once were believed, or left a session broken."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lcc.testing.fuzz.of_sessions import StateFile

Change = Callable[[StateFile], None]


def _page(**fields: Any) -> Change:
    return lambda state: state.page.update(fields)


def _counters(**numbers: int) -> Change:
    return lambda state: state.page["counters"].update(numbers)


def _shape(name: str, change: Callable[[list[int]], list[int]]) -> Change:
    """Another shape of as many numbers."""

    def go(state: StateFile) -> None:
        state.header[name]["shape"] = change(state.header[name]["shape"])

    return go


def _filled(name: str, value: float, kind: str) -> Change:
    """A tensor full of a number."""

    def go(state: StateFile) -> None:
        begin, end = state.header[name]["data_offsets"]
        numbers = np.full((end - begin) // np.dtype(kind).itemsize, value, kind).tobytes()
        state.data = state.data[:begin] + numbers + state.data[end:]

    return go


def _exchanged(one: str, other: str) -> Change:
    """Two tensors in each other's places, by the header alone."""

    def go(state: StateFile) -> None:
        header = state.header
        header[one], header[other] = header[other], header[one]

    return go


def _unsigned(data: bytes) -> bytes:
    """The same with the digest as it was."""
    state = StateFile(data)
    digest = state.header["__metadata__"]["sha256"]
    _exchanged("key_0", "key_1")(state)
    return state.bytes(digest=digest)


LARGE = (2**31, 2**53, 2**63 - 1, 2**64, -1, -(2**63))
STATES: dict[str, tuple[Change, bool]] = {
    **{f"tokens {n}": (_counters(tokens=n), n not in (2**31, 2**53)) for n in LARGE},
    **{f"used {n}": (_counters(used=n), True) for n in (*LARGE, 97)},
    **{f"kept {n}": (_counters(kept=n), True) for n in (*LARGE, 97)},
    **{f"protected {n}": (_counters(protected=n), True) for n in (-9, -1, 2**31, 2**63 - 1)},
    **{f"state {n}": (_counters(state=n), False) for n in (-2, 97, 2**31)},
    **{f"known {n}": (_counters(known=n), False) for n in (-1, 97, 2**31)},
    **{f"seed {n}": (_counters(seed=n), True) for n in (2**31, 2**32, 2**53)},
    **{f"left {n}": (_counters(left=n), True) for n in (2**31, 2**53)},
    **{f"beginning {n}": (_page(beginning=[n] * 32), True) for n in (-1, 260, 10**9, 2**64)},
    "beginning of 33": (_page(beginning=[1] * 33), True),
    "beginning of none": (_page(beginning=[]), True),
    "an id of 10^6": (_filled("ids", 10**6, "i8"), True),
    "an id of -1": (_filled("ids", -1, "i8"), True),
    "ids of two axes": (_shape("ids", lambda shape: [1, *shape]), True),
    "hidden of one axis": (_shape("hidden", lambda shape: [shape[0] * shape[1]]), True),
    "hidden not a number": (_filled("hidden", np.nan, "f4"), False),
    "keys not a number": (_filled("key_0", np.nan, "f4"), False),
    "keys infinite": (_filled("key_0", np.inf, "f4"), False),
    "keys of other axes": (_shape("key_0", lambda s: [s[0], s[2], s[1], s[3]]), True),
    "keys exchanged": (_exchanged("key_0", "key_1"), True),
    "notes of another kind": (_page(notes=5), True),
    "archive of another kind": (_page(archive=[1]), True),
    "sizes of another session": (_page(sizes={}), False),
    "version 6": (_page(version=6), True),
    "another artifact": (_page(artifact="0" * 64), True),
}
RAW: dict[str, tuple[Callable[[bytes], bytes], bool]] = {
    "keys exchanged, digest as it was": (_unsigned, True),
    "no bytes": (lambda data: b"", True),
    "a header of 2^63": (lambda data: (2**63).to_bytes(8, "little") + data[8:], True),
    "a header 10^5 deep": (
        lambda data: (200_000).to_bytes(8, "little") + b"[" * 200_000 + data,
        True,
    ),
}
