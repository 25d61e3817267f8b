"""One run of one program, for one layer: its bindings, made once, and what is bound anew."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lcc.artifact.schedule import Run, TensorSpec
from lcc.errors import ArtifactError
from lcc.runtime.core.buffers import Buffers
from lcc.runtime.engines.base import Engine
from lcc.runtime.engines.device_array import Buffer
from lcc.runtime.engines.host_array import zeros

Source = str | np.ndarray


class _View:
    """Rows of a buffer, or whole numbers in a row, in the shape of a tensor."""

    def __init__(self, spec: TensorSpec, span: Sequence[str], source: Source, row: int = 1) -> None:
        """`source`: a buffer, with so many numbers a row, or memory for numbers that are counted.

        Where the shape has no string, its size says how many rows are taken, and not COUNT.
        """
        self.tensor, self.source, (self.first, self.count) = spec.name, source, span
        self.shape = tuple(-1 if isinstance(size, str) else size for size in spec.shape)
        self.fixed = None if -1 in self.shape else math.prod(self.shape) // row

    def __call__(self, numbers: Mapping[str, int], buffers: Buffers) -> np.ndarray:
        """What is bound now; ArtifactError where no buffer is as long."""
        first, count = numbers[self.first], self.fixed or numbers[self.count]
        if isinstance(self.source, str):
            return self._shaped(buffers.rows(self.source, first, first + count, 0))
        if not 0 <= count <= len(self.source):
            raise ArtifactError(f"{self.tensor}: {count} numbers, buffers have {len(self.source)}")
        self.source[:count] = np.arange(first, first + count)
        return self._shaped(self.source[:count])

    def _shaped(self, array: np.ndarray) -> np.ndarray:
        try:
            return array.reshape(self.shape)
        except ValueError:
            raise ArtifactError(
                f"{self.tensor}: is bound to numbers {list(array.shape)}, which have not its shape "
                f"{list(self.shape)}; compile it anew"
            ) from None


class Call:
    """A run of a program with names resolved: whole buffers stay bound from call to call.

    Whole buffers are bound again only where their memory has changed its name. Views of rows and
    of counted numbers are given with each call; single numbers are written in place.

    layer       what `*` stands for; None where the run has no `each`
    """

    def __init__(
        self, run: Run, program: str, layer: int | None, engine: Engine, buffers: Buffers
    ) -> None:
        """Make a runner. Tensors that this program does not have are left out."""
        entry = engine.program(program)
        specs = {spec.name: spec for spec in [*entry.inputs, *entry.outputs]}
        self.layer, self._run, self._buffers = layer, run, buffers
        self._runner = engine.runner(program)
        self._read = {tensor: what for tensor, what in run.read.items() if tensor in specs}
        self._whole, self._single = dict[str, str](), dict[str, str]()
        self._views: list[_View] = []
        for tensor in specs.keys() & run.bind.keys():
            if isinstance(what := run.bind[tensor], str):
                self._whole[tensor] = self._name(what)
            else:
                name, *span = self._name(what[0]), *what[1:]
                row = int(np.prod(buffers.arrays[name].shape[1:]))
                self._views.append(_View(specs[tensor], span, name, row))
        for tensor in specs.keys() & run.ints.keys():
            if isinstance(counter := run.ints[tensor], str):
                self._single[tensor] = counter
            else:
                memory = zeros([buffers.longest], specs[tensor].dtype)
                self._views.append(_View(specs[tensor], counter, memory))
        ones = [specs[tensor] for tensor in [*self._single, *self._read]]
        self._integers = {spec.name: zeros([1] * len(spec.shape), spec.dtype) for spec in ones}
        self._runner.bind(self._integers)
        self._bound: dict[str, Buffer] = {}
        self._version = -1

    def _name(self, buffer: str) -> str:
        return buffer if self.layer is None else buffer.replace("*", str(self.layer))

    def __call__(self, numbers: dict[str, int]) -> None:
        """Run once; reads counters, and sets those that the run reads."""
        if self._version != self._buffers.version:  # some memory has changed its name
            now = {tensor: self._buffers.arrays[name] for tensor, name in self._whole.items()}
            self._runner.bind({t: a for t, a in now.items() if self._bound.get(t) is not a})
            self._bound, self._version = now, self._buffers.version
        for tensor, counter in self._single.items():
            try:
                self._integers[tensor].fill(numbers[counter])
            except OverflowError:  # what another program has told
                told = f"{counter} is {numbers[counter]}, wanted a number of 32 bits"
                raise ArtifactError(f"{tensor}: {told}") from None
        self._runner({view.tensor: view(numbers, self._buffers) for view in self._views})
        for tensor, counter in self._read.items():
            numbers[counter] = int(self._integers[tensor].item())
        for one, other in self._run.swap:
            self._buffers.swap(self._name(one), self._name(other))
