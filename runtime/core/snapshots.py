"""What the states of recurrent layers were at some places of a text: a state cannot be undone.

To go back to a place, the nearest copy before it is put back, and what follows is read again.

    turn    where the last text, prompt or message begins, or behind a cycle since then
    near    the last two places where a step began, at least `GAP` tokens apart
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lcc.runtime.core.buffers import Buffers

GAP = 16  # tokens between two copies, at least


@dataclass
class _Copy:
    """One copy of all states.

    place   entries that the cache held then; None = nothing was copied so far
    hidden  the state after the final norm of the token before it; None = nothing was read
    """

    states: dict[str, np.ndarray]
    place: int | None = None
    hidden: np.ndarray | None = None


class Snapshots:
    """Copies of some buffers; all memory is taken at once."""

    def __init__(self, buffers: Buffers, names: Sequence[str]) -> None:
        """`names`: the buffers of states; without any, nothing is ever copied."""
        self._buffers, self._names = buffers, names
        self._turn, self._near, self._nearer = (
            _Copy({name: np.zeros_like(buffers.host(name)) for name in names}) for _ in range(3)
        )

    def __bool__(self) -> bool:
        """Whether there are states."""
        return bool(self._names)

    @property
    def oldest(self) -> int:
        """The first place that can be gone back to; without states any."""
        return min((copy.place for copy in self._copies() if copy.place is not None), default=0)

    def begin_turn(self, place: int, hidden: np.ndarray | None) -> None:
        """Copy what the states are now, where something new begins."""
        self._copy(self._turn, place, hidden)

    def pass_by(self, place: int, hidden: np.ndarray | None) -> None:
        """Copy what the states are now, if the last copy was made long enough ago."""
        last = max((copy.place for copy in self._copies() if copy.place is not None), default=None)
        if self._names and (last is None or place - last >= GAP):
            self._near, self._nearer = self._nearer, self._near
            self._copy(self._nearer, place, hidden)

    def back(self, place: int) -> tuple[int, np.ndarray | None]:
        """Put back the copy nearest to a place, and forget those behind it.

        returns     the copy's place, and the hidden state before it
        """
        for copy in self._copies():
            if copy.place is not None and copy.place > place:
                copy.place = None
        copy = max(self._copies(), key=lambda each: -1 if each.place is None else each.place)
        assert copy.place is not None  # `oldest` is the limit
        for name, array in copy.states.items():
            self._buffers.host(name)[...] = array
        return copy.place, copy.hidden

    def forget(self) -> None:
        """None of the places exists any more."""
        for copy in self._copies():
            copy.place = None

    def _copies(self) -> tuple[_Copy, _Copy, _Copy]:
        return self._turn, self._near, self._nearer

    def _copy(self, copy: _Copy, place: int, hidden: np.ndarray | None) -> None:
        for name, array in copy.states.items():
            array[...] = self._buffers.host(name)
        copy.place, copy.hidden = place, None if hidden is None else hidden.copy()
