"""The sizes of a session: as compiled, or lower where no program has them as numbers."""

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from lcc.artifact.schedule import Block, Run, TensorSpec, lists
from lcc.config import CacheConfig
from lcc.errors import CacheError

if TYPE_CHECKING:
    from lcc.artifact.manifest import Manifest


LOWERED = ("capacity", "budget", "chunk_size")


def lowered_constants(manifest: "Manifest", sizes: CacheConfig) -> dict[str, int]:
    """The constants of a session that asks for these sizes.

    Raises:
        CacheError: a size is larger than compiled, or lower where a program has it as a number.
    """
    asked = {name: getattr(sizes, name) for name in LOWERED}
    for name, size in asked.items():
        built = manifest.constants[name]
        fixed = dict(_fixed(manifest)).get(name) if size < built else None
        if size > built or fixed is not None:
            reason = "" if fixed is None else f", and {fixed} has it as a number"
            raise CacheError(
                f"{name} is {size}, the artifact was compiled for {built}{reason}; leave it out, "
                f"or compile with --{name.replace('_', '-')} {size}"
            )
    return manifest.constants | asked


def _fixed(manifest: "Manifest") -> Iterator[tuple[str, str]]:
    """Constants that programs have as numbers, each with a tensor: "program.tensor"."""
    for _, blocks in lists(manifest.schedule):
        pairs = [(block, run) for block in blocks for run in block.do]
        for block, run in pairs:
            for name in {run.run, run.one or run.run}:
                entry = manifest.programs[name]
                for spec in [*entry.inputs, *entry.outputs]:
                    for constant in _fixed_in(manifest, block, run, spec):
                        yield constant, f"{name}.{spec.name}"


def _fixed_in(manifest: "Manifest", block: Block, run: Run, spec: TensorSpec) -> Iterator[str]:
    """Constants that one tensor of a run has as numbers."""
    what = run.bind.get(spec.name) or run.ints.get(spec.name)
    if spec.name in run.bind and isinstance(what, str):
        shape = _shape(manifest, what.replace("*", str(run.each[0]) if run.each else "*"))
        pairs = zip(shape, spec.shape, strict=True)
        yield from (own for own, size in pairs if isinstance(own, str) and isinstance(size, int))
    elif isinstance(what, tuple) and not any(isinstance(size, str) for size in spec.shape):
        if what[-1] in manifest.constants:
            yield what[-1]
        elif block.over is not None and what[-1] == "n":
            row = _shape(manifest, what[0])[1:] if spec.name in run.bind else ()
            sizes = [manifest.constants[size] if isinstance(size, str) else size for size in row]
            # A program for one token at a time is for all chunks alike.
            if prod(size for size in spec.shape if isinstance(size, int)) > prod(sizes):
                yield block.over.most


def _shape(manifest: "Manifest", buffer: str) -> tuple[int | str, ...]:
    return next(each.shape for each in manifest.buffers if each.name == buffer)
