"""Programs whose sizes are numbers, for what cannot do with names."""

from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from lcc.ir.program import DECODE, PREFILL_CHUNK, Program


def static(program: Program) -> list[Program]:
    """The same program with the largest sizes that it may have; a step as two of them.

    Those are prefill_chunk, which always reads a whole chunk, and decode, which reads one token;
    both hand out the queries of all rows, and have no `query_rows`: accelerators gather no rows.
    Sizes without a bound are those that it was traced with.
    """
    if PREFILL_CHUNK in program.names:
        return [_of_length(program, PREFILL_CHUNK, None), _of_length(program, DECODE, 1)]
    return [_of_length(program, program.names[0], None)]


def _of_length(program: Program, name: str, length: int | None) -> Program:
    bounds = program.exported.range_constraints
    nodes = program.exported.graph.find_nodes(op="placeholder")[-len(program.inputs) :]
    args, named = program.exported.example_inputs
    traced = named or dict(zip(program.inputs, args, strict=True))
    values = {}
    for given, node in zip(program.inputs, nodes, strict=True):
        shape = list(traced[given].shape)
        for axis, size in enumerate(node.meta["val"].shape):
            if not isinstance(size, int):
                bound = bounds[size.node.expr].upper
                shape[axis] = int(bound) if bound.is_Integer else shape[axis]
        if given in ("tokens", "positions") and length is not None:
            shape[1] = length
        values[given] = torch.zeros(shape, dtype=traced[given].dtype)
    module: nn.Module = program.exported.module(check_guards=False)
    if values.pop("query_rows", None) is not None:
        module = _AllRows(module, program.inputs.index("query_rows"))
    with torch.no_grad():
        if named:
            exported = torch.export.export(module, (), kwargs=values)
        else:
            exported = torch.export.export(module, tuple(values.values()))
    return replace(program, names=(name,), inputs=tuple(values), exported=exported)


class _AllRows(nn.Module):
    """A step that hands out the queries of every row, without the input that names some.

    place       of `query_rows` among the inputs
    """

    def __init__(self, step: fx.GraphModule, place: int) -> None:
        super().__init__()
        rows = step.graph.find_nodes(op="placeholder")[place]
        for node in list(rows.users):
            node.replace_all_uses_with(node.args[0])
            step.graph.erase_node(node)
        step.recompile()
        self.step, self.place = step, place

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        unread = torch.zeros(1, dtype=torch.int64)
        outputs: tuple[Tensor, ...] = self.step(
            *inputs[: self.place], unread, *inputs[self.place :]
        )
        return outputs
