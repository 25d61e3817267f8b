"""Programs over a cache in float16: half of the memory; what is computed stays float32."""

import copy
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import fx
from torch.export import ExportedProgram

from lcc.ir.program import Program

_INPUTS = ("key", "value")  # beginnings of the names of what lies in a cache
_OUTPUTS = (*_INPUTS, "kept_key", "kept_value")


def half_cache(program: Program) -> Program:
    """The same program, over keys and values in float16.

        before   key -> attention -> key_out
        after    key (half) -> float -> attention -> half -> key_out

    New entries, and those that an eviction rotates to another place, are rounded once more: one
    part in 2048 of a number each time. Queries, scores and everything else stay float32.
    """
    halved = [name.startswith(_INPUTS) for name in program.inputs]
    if not any(halved):
        return program
    old = program.exported
    graph = copy.deepcopy(old.graph)
    nodes = graph.find_nodes(op="placeholder")[-len(program.inputs) :]
    for node, half in zip(nodes, halved, strict=True):
        if half:
            _widen(graph, node)
    signature = copy.deepcopy(old.graph_signature)
    output = graph.output_node()
    results = list(output.args[0])
    for place, name in enumerate(program.outputs):
        if name.startswith(_OUTPUTS):
            with graph.inserting_before(output):
                results[place] = _cast(graph, results[place], torch.float16)
            signature.output_specs[place].arg.name = results[place].name
    output.args = (tuple(results),)
    exported = ExportedProgram(
        root=fx.GraphModule(old.graph_module, graph),
        graph=graph,
        graph_signature=signature,
        state_dict=old.state_dict,
        range_constraints=old.range_constraints,
        module_call_graph=copy.deepcopy(old.module_call_graph),
        example_inputs=_example(old, halved),
        constants=old.constants,
    )
    return replace(program, exported=exported)


def _widen(graph: fx.Graph, node: fx.Node) -> None:
    """Make an input float16, and what reads it read it as float32, from where it is first read."""
    node.meta["val"] = node.meta["val"].half()
    first = next(each for each in graph.nodes if each in node.users)
    with graph.inserting_before(first):
        wide = _cast(graph, node, torch.float32)
    node.replace_all_uses_with(wide, delete_user_cb=lambda user: user is not wide)


def _cast(graph: fx.Graph, node: fx.Node, dtype: torch.dtype) -> fx.Node:
    new = graph.call_function(torch.ops.aten._to_copy.default, (node,), {"dtype": dtype})
    new.meta["val"] = node.meta["val"].to(dtype)
    return new


def _example(old: ExportedProgram, halved: Iterable[bool]) -> tuple[tuple, dict]:
    """The inputs it was traced with, in their new types."""
    args, named = old.example_inputs
    values = named.values() if named else args
    cast = [x.half() if half else x for x, half in zip(values, halved, strict=True)]
    return ((), dict(zip(named, cast, strict=True))) if named else (tuple(cast), {})
