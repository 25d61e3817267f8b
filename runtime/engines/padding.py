"""Steps of one length only: shorter ones are padded, and what comes of the padding is cut off."""

from collections.abc import Mapping, Sequence

import numpy as np

from lcc.artifact.manifest import ProgramEntry
from lcc.runtime.engines.base import Runner
from lcc.runtime.engines.device_array import Buffer

_TOKEN_AXIS = {"tokens": 1, "positions": 1, "hidden": 1, "queries": 1, "retaining": 1}


def fixed_length(entry: ProgramEntry) -> int | None:
    """Tokens that a program reads, always; None = it reads as many as it is given, or none."""
    for tensor in entry.inputs:
        if tensor.name == "tokens" and isinstance(length := tensor.shape[1], int):
            return length
    return None


class PaddedRunner:
    """A step of fixed length, as one of any length up to it.

    Padding is written behind the entries of the step, where nothing counts, or beyond the end of
    the cache, where the program drops it; no token of the step sees it.
    """

    def __init__(self, runner: Runner, length: int) -> None:
        self._runner, self._length = runner, length

    def bind(self, arrays: Mapping[str, Buffer]) -> None:
        """See `Runner.bind`."""
        self._runner.bind(arrays)

    def __call__(
        self, feeds: Mapping[str, np.ndarray], fetch: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """See `Runner.__call__`."""
        count = feeds["tokens"].shape[1]
        given = dict(feeds)
        for name in ("tokens", "positions"):
            given[name] = np.zeros((1, self._length), feeds[name].dtype)
            given[name][:, :count] = feeds[name]
        results = self._runner(given, fetch)
        return {name: _first(array, name, count) for name, array in results.items()}


def _first(array: np.ndarray, name: str, count: int) -> np.ndarray:
    axis = _TOKEN_AXIS[name.rstrip("0123456789").rstrip("_")]
    return np.ascontiguousarray(array[(slice(None),) * axis + (slice(count),)])
