"""What the runtime asks of whatever executes the programs."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from lcc.runtime.engines.device_array import Buffer


class Runner(Protocol):
    """One loaded program."""

    def bind(self, arrays: Mapping[str, Buffer]) -> None:
        """Keep these arrays as inputs and outputs until bound anew; they are used in place.

        An array under the name of an input is read, under the name of an output is written. An
        output that the signature lists in `updates` needs no entry: it is written to its input.
        """

    def __call__(
        self, feeds: Mapping[str, np.ndarray], fetch: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Run once with these inputs besides the bound ones; return the outputs named in `fetch`.

        What is returned may be the engine's own memory: it is valid until the next call of this
        runner.
        """


class Engine(Protocol):
    """Everything one artifact needs executed."""

    def runner(self, program: str) -> Runner:
        """Load a program by its name in the manifest, once; programs of one file share it."""

    def zeros(self, shape: Sequence[int], dtype: str) -> Buffer:
        """A new buffer for keys or values, where the programs want it: to be bound, not fed."""
