"""A program -> the manifest's record of it: names, dtypes and shapes of what goes in and out."""

from typing import get_args

from lcc.artifact.manifest import ProgramEntry, Scalar, TensorEntry
from lcc.ir.program import Program


def program_entry(program: Program, file: str) -> ProgramEntry:
    """The manifest's record of a program."""
    graph = program.exported.graph
    inputs = graph.find_nodes(op="placeholder")[-len(program.inputs) :]
    outputs = list(graph.output_node().args[0])
    return ProgramEntry(
        file=file,
        inputs=_tensors(program, program.inputs, inputs),
        outputs=_tensors(program, program.outputs, outputs),
        updates=program.updates,
    )


def _tensors(program: Program, names: tuple[str, ...], nodes: list) -> list[TensorEntry]:
    entries = []
    for name, node in zip(names, nodes, strict=True):
        value = node.meta["val"]
        sizes: list[int | str] = [
            s if isinstance(s, int) else _symbol(program, name, axis)
            for axis, s in enumerate(value.shape)
        ]
        dtype = str(value.dtype).removeprefix("torch.")
        entries.append(TensorEntry(name=name, dtype=dtype, shape=sizes))
    return entries


def _symbol(program: Program, name: str, axis: int) -> str:
    """What to call a size that the runtime chooses."""
    if name == "query_rows" or name.startswith("queries_"):
        return "rows"
    if name in ("new_slots", "kept", "kept_key", "kept_value"):
        return "budget"
    if name.startswith(("key", "value")) or name in get_args(Scalar):
        return "n" if "logits" in program.outputs else "slots"
    return "n" if "logits" in program.outputs or "attention" in program.outputs else "tokens"
