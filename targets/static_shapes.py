"""Programs whose sizes are numbers, for what cannot do with names."""

from dataclasses import replace

import torch

from lcc.program import DECODE, PREFILL_CHUNK, Program


def static(program: Program) -> list[Program]:
    """The same program with the largest sizes that it may have; a step as two of them.

    Those are prefill_chunk, which always reads a whole chunk, and decode, which reads one token.
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
        if given == "query_rows" and length is not None:
            shape[0] = length
        values[given] = torch.zeros(shape, dtype=traced[given].dtype)
    module = program.exported.module(check_guards=False)
    with torch.no_grad():
        if named:
            exported = torch.export.export(module, (), kwargs=values)
        else:
            exported = torch.export.export(module, tuple(values.values()))
    return replace(program, names=(name,), exported=exported)
