"""Programs in half precision, for GPUs."""

import torch
from torch import nn
from torch.export import ExportedProgram

from lcc.program import Program

_HALF = ("key", "value", "queries", "hidden")


def _halve(module: nn.Module) -> None:
    """Give a module weights of its own in half precision; those it shares with others stay."""
    made: dict[int, torch.Tensor] = {}
    for owner in module.modules():
        for own in (owner._parameters, owner._buffers):
            for name, tensor in own.items():
                if tensor is None or tensor.dtype != torch.float32:
                    continue
                if id(tensor) not in made:
                    half = tensor.detach().half()
                    parameter = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(half, False) if parameter else half
                own[name] = made[id(tensor)]  # type: ignore[assignment]  # of its own kind


def half(program: Program) -> ExportedProgram:
    """The program with weights, keys, values and states in half precision."""
    exported = program.exported
    nodes = exported.graph.find_nodes(op="placeholder")[-len(program.inputs) :]
    args, named = exported.example_inputs
    values = dict(named or zip(program.inputs, args, strict=True))
    names = dict(zip(values, program.inputs, strict=True))
    for key, name in names.items():
        if name.startswith(_HALF) and values[key].dtype == torch.float32:
            values[key] = values[key].half()
    shapes = {
        key: {
            axis: torch.export.Dim.DYNAMIC
            for axis, size in enumerate(node.meta["val"].shape)
            if not isinstance(size, int)
        }
        for key, node in zip(values, nodes, strict=True)
    }
    module = exported.module(check_guards=False)
    for node in list(module.graph.nodes):
        if node.target is torch.ops.aten._assert_tensor_metadata.default:  # that it was float32
            module.graph.erase_node(node)
    _halve(module)
    with torch.no_grad():
        if named:
            return torch.export.export(module, (), kwargs=values, dynamic_shapes=shapes)
        given = tuple(values.values())
        return torch.export.export(module, given, dynamic_shapes=tuple(shapes.values()))
