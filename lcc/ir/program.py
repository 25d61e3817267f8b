"""Programs: what a specialized model is split into, with signatures."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram, ExportGraphSignature

from lcc.ir.roles import Role
from lcc.ir.signature import Port, Size, TensorSpec
from lcc.ir.stand_ins import stand_ins

PREFILL_CHUNK, DECODE, HEAD = "prefill_chunk", "decode", "head"


@dataclass(frozen=True, kw_only=True)
class Program:
    """One entry point: a graph without hidden state, and its signature.

    names       what the schedule calls it: one graph of dynamic length serves two of them
    inputs      of the graph, in order
    outputs     likewise
    updates     output -> the input whose storage it replaces
    """

    names: tuple[str, ...]
    exported: ExportedProgram
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    updates: dict[str, str] = field(default_factory=dict)

    @property
    def file_stem(self) -> str:
        """Name of the file without its ending: `step` for prefill_chunk and decode."""
        return "step" if {PREFILL_CHUNK, DECODE} <= set(self.names) else self.names[0]

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, in order."""
        return [spec.name for spec in self.inputs]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in order."""
        return [spec.name for spec in self.outputs]

    @property
    def is_step(self) -> bool:
        """Whether it reads token ids through the model's layers."""
        return bool({PREFILL_CHUNK, DECODE} & set(self.names))

    def with_role(self, *roles: Role) -> list[TensorSpec]:
        """The inputs of these roles, in order."""
        return [spec for spec in self.inputs if spec.role in roles]

    def input_node(self, name: str) -> fx.Node:
        """The placeholder of an input."""
        return input_nodes(self.exported)[self.input_names.index(name)]


def input_nodes(exported: ExportedProgram) -> list[fx.Node]:
    """The placeholders of a program's inputs, in order, without those of its weights."""
    nodes = {node.name: node for node in exported.graph.find_nodes(op="placeholder")}
    return [nodes[str(name)] for name in exported.graph_signature.user_inputs]


@dataclass(frozen=True)
class Input:
    """An input to export a program with.

    value   an example of it
    sizes   axis -> its name and torch.export's dimension, where the call decides its size
    """

    port: Port
    value: Tensor
    sizes: Mapping[int, tuple[str, Any]] = field(default_factory=dict)


def with_graph(
    old: ExportedProgram, graph: fx.Graph, signature: ExportGraphSignature, **changes: Any
) -> ExportedProgram:
    """A copy of an exported program with another graph; `changes` replace other fields."""
    same = ("state_dict", "range_constraints", "example_inputs", "constants")
    return ExportedProgram(
        root=fx.GraphModule(old.graph_module, graph),
        graph=graph,
        graph_signature=signature,
        module_call_graph=copy.deepcopy(old.module_call_graph),
        **{name: getattr(old, name) for name in same} | changes,
    )


def export(
    module: nn.Module,
    names: tuple[str, ...],
    inputs: Sequence[Input],
    outputs: Sequence[Port],
    updates: Mapping[str, str] | None = None,
) -> Program:
    """Export a module that takes the inputs in order and returns a tensor or a tuple of them.

    Raises whatever torch.export raises. Examples are copied: one tensor given twice would be taken
    for one input.
    """
    dynamic = tuple({axis: dim for axis, (_, dim) in each.sizes.items()} for each in inputs)
    with torch.no_grad(), stand_ins(module) as made:
        exported = torch.export.export(
            module,
            tuple(each.value.clone() for each in inputs),
            dynamic_shapes=_shapes(module, dynamic),
        )
        made.put_back(exported)
    symbols: dict[str, str] = {}
    for each, node in zip(inputs, input_nodes(exported), strict=True):
        for axis, (name, _) in each.sizes.items():
            symbols[str(node.meta["val"].shape[axis])] = name
    return Program(
        names=names,
        exported=exported,
        inputs=_specs([each.port for each in inputs], input_nodes(exported), symbols),
        outputs=_specs(outputs, list(exported.graph.output_node().args[0]), symbols),
        updates=dict(updates or {}),
    )


def re_export(
    program: Program, module: nn.Module, values: Mapping[str, Tensor], *, outputs: Sequence[Port]
) -> Program:
    """Export a module in place of a program's, with the same sizes left to the call.

    values      of the inputs that it has, in order
    """
    specs = {spec.name: spec for spec in program.inputs}
    inputs = []
    for name, value in values.items():
        spec = specs[name]
        sizes = {
            axis: (size, torch.export.Dim.DYNAMIC)
            for axis, size in enumerate(spec.shape)
            if isinstance(size, str)
        }
        inputs.append(Input(Port(spec.name, spec.role, spec.layer), value, sizes))
    return export(module, program.names, inputs, outputs, program.updates)


def examples(program: Program) -> dict[str, Tensor]:
    """The inputs that a program was exported with, by name."""
    return dict(zip(program.input_names, program.exported.example_inputs[0], strict=True))


def ports(specs: Sequence[TensorSpec]) -> list[Port]:
    """The same inputs or outputs, without dtype and shape."""
    return [Port(spec.name, spec.role, spec.layer) for spec in specs]


def _shapes(module: nn.Module, dynamic: tuple[dict, ...]) -> tuple:
    """Dimensions as torch.export wants them; of a forward(*inputs) in a tuple of their own."""
    code = type(module).forward.__code__
    return (dynamic,) if code.co_flags & 0x04 and code.co_argcount == 1 else dynamic


def _specs(
    ports: Sequence[Port], nodes: Sequence[fx.Node], symbols: Mapping[str, str]
) -> tuple[TensorSpec, ...]:
    specs = []
    for port, node in zip(ports, nodes, strict=True):
        value = node.meta["val"]
        sizes: list[Size] = [s if isinstance(s, int) else symbols[str(s)] for s in value.shape]
        dtype = str(value.dtype).removeprefix("torch.")
        specs.append(
            TensorSpec(
                name=port.name, role=port.role, layer=port.layer, dtype=dtype, shape=tuple(sizes)
            )
        )
    return tuple(specs)
