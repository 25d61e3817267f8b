"""What the runtime asks of whatever executes the programs."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from lcc.artifact.manifest import ProgramEntry
from lcc.ir.roles import Role
from lcc.runtime.engines.device_array import Buffer


class Runner(Protocol):
    """A loaded program with bindings and scratch memory of its own. For one thread at a time.

    An array under the name of an input is read, under the name of an output is written. It is
    C-contiguous and of the signature's dtype and shape. Its address is what is bound: nothing is
    copied where the engine can avoid it. An output that is neither bound nor given is not wanted;
    one that the signature lists in `updates` is written to the array of its input.
    """

    def bind(self, arrays: Mapping[str, Buffer]) -> None:
        """Keep these arrays as inputs and outputs until they are bound anew."""

    def __call__(self, arrays: Mapping[str, Buffer]) -> None:
        """Run once with these inputs and outputs besides the bound ones.

        When it returns, the results lie in the arrays.
        """


class Engine(Protocol):
    """The programs of one artifact, loaded once, for any number of sessions and threads."""

    def load_all(self) -> None:
        """Load every program: a cycle must not depend on what later becomes of a file."""

    def program(self, name: str) -> ProgramEntry:
        """The signature of a program by its name in the manifest."""

    def runner(self, program: str) -> Runner:
        """A new runner of a program, which is loaded first where it was not."""

    def zeros(self, shape: Sequence[int], dtype: str, role: Role) -> Buffer:
        """A new buffer of zeros; keys and values lie where the programs want them."""
