"""Programs whose sizes are numbers, for what cannot do with names."""

from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from lcc.errors import PassError
from lcc.ir.program import DECODE, PREFILL_CHUNK, Input, Program, examples, export, ports
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.programs.base import ProgramPass


class StaticShapes(ProgramPass):
    """Numbers in place of names, in programs that have inputs of some roles; see `static`.

    before   step(tokens [1, tokens], ..., query_rows [rows])
    after    prefill_chunk(tokens [1, 256], ...), decode(tokens [1, 1], ...)
    """

    def __init__(self, *roles: Role) -> None:
        self.roles = roles

    def rewrite(self, program: Program) -> list[Program] | None:
        """The programs of one size each; None where no input has one of the roles."""
        return static(program) if program.with_role(*self.roles) else None

    def ensures(self, program: Program) -> None:
        """No size is left to the call."""
        for spec in program.inputs:
            if any(isinstance(size, str) for size in spec.shape):
                raise PassError(f"static_shapes: {program.file_stem}: {spec.name}: {spec.shape}")


def static(program: Program) -> list[Program]:
    """The same program with the largest sizes that it may have; a step as two of them.

    Those are prefill_chunk, which always reads a whole chunk, and decode, which reads one token;
    both hand out the queries of all rows, and have no `query_rows`: accelerators gather no rows.
    Sizes without a bound are those that it was traced with.
    """
    if program.is_step:
        return [_of_length(program, PREFILL_CHUNK, None), _of_length(program, DECODE, 1)]
    return [_of_length(program, program.names[0], None)]


def _of_length(program: Program, name: str, length: int | None) -> Program:
    bounds = program.exported.range_constraints
    inputs = []
    for spec, traced in zip(program.inputs, examples(program).values(), strict=True):
        shape = list(traced.shape)
        for axis, size in enumerate(program.input_node(spec.name).meta["val"].shape):
            if not isinstance(size, int):
                bound = bounds[size.node.expr].upper
                shape[axis] = int(bound) if bound.is_Integer else shape[axis]
        if spec.role in (Role.TOKENS, Role.POSITIONS) and length is not None:
            shape[1] = length
        port = Port(spec.name, spec.role, spec.layer)
        inputs.append(Input(port, torch.zeros(shape, dtype=traced.dtype)))
    module: nn.Module = program.exported.module(check_guards=False)
    roles = [each.port.role for each in inputs]
    if Role.ROWS in roles:
        place = roles.index(Role.ROWS)
        module = _AllRows(module, place)
        del inputs[place]
    else:
        module = _Plain(module)
    made = export(module, (name,), inputs, ports(program.outputs), program.updates)
    return replace(made, names=(name,))


class _Plain(nn.Module):
    """A program's module, called with its inputs in order."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = self.body(*inputs)
        return outputs


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
