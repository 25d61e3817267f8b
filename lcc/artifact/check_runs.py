"""Whether the runs of a schedule fit the programs and buffers that they name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from lcc.artifact.check_counters import INT32
from lcc.artifact.check_model import REPLACED
from lcc.artifact.schedule import BufferSpec, Run, Size, TensorSpec
from lcc.errors import ArtifactError
from lcc.ir.roles import Role

if TYPE_CHECKING:
    from lcc.artifact.manifest import Manifest, ProgramEntry

INTEGERS = ("int32", "int64")


def check_run(
    manifest: "Manifest",
    programs: Mapping[str, "ProgramEntry"],
    buffers: Mapping[str, BufferSpec],
    run: Run,
    where: str,
) -> None:
    """Refuse a run, for each of its layers, with an `ArtifactError` that begins with `where`."""
    for name in [run.run, *([] if run.one is None else [run.one])]:
        if name not in programs:
            raise ArtifactError(f"{where}: no program {name}")
        for layer in run.each or [None]:
            at = f"{where}, run {name}" + ("" if layer is None else f", layer {layer}")
            if layer is not None and layer not in range(len(manifest.model.layers)):
                raise ArtifactError(f"{at}: the model has no such layer")
            _Checker(manifest, programs[name], buffers, run, layer, at).check()
    versions = [manifest.programs, *(built.programs for built in manifest.also.values())]
    names = [each for each in (run.run, run.one) if each is not None]
    every = [each[name] for each in [*versions, programs] for name in names if name in each]
    known = {tensor.name for entry in every for tensor in [*entry.inputs, *entry.outputs]}
    for tensor in [*run.bind, *run.ints, *run.read]:
        if tensor not in known:
            raise ArtifactError(f"{where}, run {run.run}: it has no tensor {tensor}")


def check_swap(one: str, other: str, buffers: Mapping[str, BufferSpec], where: str) -> None:
    """Refuse two buffers that cannot exchange their memory."""
    for name in (one, other):
        if name not in buffers:
            raise ArtifactError(f"{where}: swap: no buffer {name}")
    pair = [buffers[one], buffers[other]]
    first, second = ((spec.role, spec.dtype, spec.shape, spec.axis) for spec in pair)
    if first != second:
        raise ArtifactError(
            f"{where}: swap: {one} is {_shown(pair[0])}, {other} is {_shown(pair[1])}; wanted two "
            "of one role, dtype, shape and axis"
        )


def _shown(spec: BufferSpec | TensorSpec) -> str:
    return f"{spec.role} {spec.dtype} {list(spec.shape)}"


@dataclass
class _Checker:
    """One run of one program, for one layer.

    symbols     what the strings of shapes stand for: a number, or the counter that says it
    """

    manifest: "Manifest"
    entry: "ProgramEntry"
    buffers: Mapping[str, BufferSpec]
    run: Run
    layer: int | None
    where: str
    symbols: dict[str, Size] = field(default_factory=dict)

    def check(self) -> None:
        run, inputs = self.run, {tensor.name: tensor for tensor in self.entry.inputs}
        outputs = {tensor.name: tensor for tensor in self.entry.outputs}
        for name in inputs:
            if (name in run.bind) + (name in run.ints) != 1:
                self.fail(f"input {name} is bound {'twice' if name in run.bind else 'to nothing'}")
        for name, tensor in {**inputs, **outputs}.items():
            if (what := run.bind.get(name)) is None:
                continue
            if isinstance(what, str):
                self.check_whole(tensor, self.buffer(what))
            else:
                self.check_rows(tensor, self.buffer(what[0]), what[2])
        for name in run.ints.keys() & inputs.keys():
            self.check_ints(inputs[name], run.ints[name])
        for name in run.ints.keys() & outputs.keys():
            self.fail(f"{name} is an output; integers are given to inputs")
        for name in run.read.keys() & (inputs.keys() | outputs.keys()):
            if name not in outputs or not _is_one_integer(outputs[name]) or name in run.bind:
                self.fail(f"read: wanted {name} to be an output of one integer that is not bound")
        for name, tensor in outputs.items():
            source = self.entry.updates.get(name)
            if tensor.role in REPLACED and name not in run.bind and source is None:
                self.fail(f"output {name} ({tensor.role}) is bound to nothing: it would be lost")
        for output, source in self.entry.updates.items():
            wanted = run.bind.get(source)
            if run.bind.get(output, wanted) != wanted:
                self.fail(f"{output} is bound to {run.bind[output]}, wanted {wanted}, as {source}")
        for one, other in run.swap:
            check_swap(self.name(one), self.name(other), self.buffers, self.where)

    def fail(self, message: str) -> None:
        raise ArtifactError(f"{self.where}: {message}")

    def name(self, buffer: str) -> str:
        return buffer if self.layer is None else buffer.replace("*", str(self.layer))

    def buffer(self, name: str) -> BufferSpec:
        if self.name(name) not in self.buffers:
            self.fail(f"no buffer {self.name(name)}")
        return self.buffers[self.name(name)]

    def check_kind(self, tensor: TensorSpec, buffer: BufferSpec) -> None:
        roles = tensor.role, buffer.role
        fits = roles[0] == roles[1] or roles == (Role.VALUE, Role.KEY)  # a value that is the key
        if not fits or tensor.dtype != buffer.dtype:
            self.unfit(tensor, buffer)

    def unfit(self, tensor: TensorSpec, buffer: BufferSpec) -> None:
        self.fail(
            f"{tensor.name} is {_shown(tensor)}, wanted what fits buffer {buffer.name}, "
            f"{_shown(buffer)}"
        )

    def check_whole(self, tensor: TensorSpec, buffer: BufferSpec) -> None:
        """A tensor that is a whole buffer, in the buffer's own shape."""
        self.check_kind(tensor, buffer)
        if len(tensor.shape) != len(buffer.shape):
            self.unfit(tensor, buffer)
        for size, own in zip(tensor.shape, self.sizes(buffer.shape), strict=True):
            if isinstance(size, str):
                self.stands_for(tensor, size, own)
            elif size != own:
                self.unfit(tensor, buffer)

    def check_rows(self, tensor: TensorSpec, buffer: BufferSpec, count: str) -> None:
        """A tensor that is some rows of a buffer, along the first axis."""
        self.check_kind(tensor, buffer)
        if buffer.role in (Role.KEY, Role.VALUE):
            self.fail(f"{tensor.name}: {buffer.name} may lie on a device, and is bound whole only")
        row = prod(int(size) for size in self.sizes(buffer.shape[1:]))  # constants, all of them
        numbers = self.numbers(tensor, count)
        if (numbers % row if self.is_fixed(tensor) else numbers != row) or numbers < row:
            self.unfit(tensor, buffer)

    def check_ints(self, tensor: TensorSpec, what: str | Sequence[str]) -> None:
        """A tensor that the runtime fills with counters."""
        if tensor.dtype not in INTEGERS:
            self.fail(f"{tensor.name} is {tensor.dtype}, wanted integers")
        if isinstance(what, str):
            if not _is_one_integer(tensor):
                self.fail(f"{tensor.name} is {list(tensor.shape)}, wanted one number")
            value = {**self.manifest.counters, **self.manifest.constants}[what]
            if tensor.dtype == "int32" and value > INT32:
                self.fail(f"{tensor.name} is an int32, and {what} is {value}")
        elif self.numbers(tensor, what[1]) != 1 and not self.is_fixed(tensor):
            self.fail(f"{tensor.name} is {list(tensor.shape)}, wanted a series of numbers")

    def numbers(self, tensor: TensorSpec, count: str) -> int:
        """Product of the sizes that are numbers; one string, at most, stands for `count`."""
        strings = [size for size in tensor.shape if isinstance(size, str)]
        if len(strings) > 1:
            self.fail(f"{tensor.name} is {list(tensor.shape)}, wanted one string at most")
        for size in strings:
            self.stands_for(tensor, size, self.manifest.constants.get(count, count))
        return prod(size for size in tensor.shape if isinstance(size, int))

    def is_fixed(self, tensor: TensorSpec) -> bool:
        return all(isinstance(size, int) for size in tensor.shape)

    def sizes(self, shape: Sequence[Size]) -> Iterator[Size]:
        """As numbers, but for those that are counters."""
        return (self.manifest.constants.get(s, s) if isinstance(s, str) else s for s in shape)

    def stands_for(self, tensor: TensorSpec, symbol: str, value: Size) -> None:
        """A string means one size in all tensors of a call."""
        if (known := self.symbols.setdefault(symbol, value)) != value:
            self.fail(f"{tensor.name}: {symbol} is {value}, in another tensor it is {known}")


def _is_one_integer(tensor: TensorSpec) -> bool:
    return tensor.dtype in INTEGERS and all(size == 1 for size in tensor.shape)
