"""Programs over a cache in float16: half of the memory; what is computed stays float32."""

import copy
from collections.abc import Iterable
from dataclasses import replace

import msgspec
import torch
from torch import fx
from torch.export import ExportedProgram

from lcc.errors import PassError
from lcc.ir.program import Program, with_graph
from lcc.ir.roles import Role
from lcc.ir.signature import TensorSpec
from lcc.passes.programs.base import ProgramPass

CACHE = (Role.KEY, Role.VALUE)


class HalfCache(ProgramPass):
    """Keys and values in float16.

        before   key -> attention -> key_out
        after    key (half) -> float -> attention -> half -> key_out

    New entries, and those that an eviction rotates to another place, are rounded once more: one
    part in 2048 of a number each time. Queries, scores and everything else stay float32.
    """

    def rewrite(self, program: Program) -> list[Program] | None:
        """The same program over a cache in float16."""
        return [half_cache(program)] if program.with_role(*CACHE) else None

    def ensures(self, program: Program) -> None:
        """What lies in a cache is float16."""
        specs = [each for each in (*program.inputs, *program.outputs) if each.role in CACHE]
        if wrong := [each.name for each in specs if each.dtype != "float16"]:
            raise PassError(f"half_cache: {program.file_stem}: {wrong[0]} is not float16")


def half_cache(program: Program) -> Program:
    """The same program, over keys and values in float16; see `HalfCache`."""
    halved = [spec.role in CACHE for spec in program.inputs]
    old = program.exported
    graph = copy.deepcopy(old.graph)
    placeholders = {node.name: node for node in graph.find_nodes(op="placeholder")}
    nodes = [placeholders[str(name)] for name in old.graph_signature.user_inputs]
    for node, half in zip(nodes, halved, strict=True):
        if half:
            _widen(graph, node)
    signature = copy.deepcopy(old.graph_signature)
    output = graph.output_node()
    results = list(output.args[0])
    for place, spec in enumerate(program.outputs):
        if spec.role in CACHE:
            with graph.inserting_before(output):
                results[place] = _cast(graph, results[place], torch.float16)
            signature.output_specs[place].arg.name = results[place].name
    output.args = (tuple(results),)
    exported = with_graph(old, graph, signature, example_inputs=_example(old, halved))
    return replace(
        program,
        exported=exported,
        inputs=tuple(map(_halved, program.inputs)),
        outputs=tuple(map(_halved, program.outputs)),
    )


def _halved(spec: TensorSpec) -> TensorSpec:
    return msgspec.structs.replace(spec, dtype="float16") if spec.role in CACHE else spec


def _widen(graph: fx.Graph, node: fx.Node) -> None:
    """Make an input float16, and what reads it read it as float32, from where it is first read."""
    node.meta["val"] = node.meta["val"].half()
    if known := node.meta.get("tensor_meta"):
        node.meta["tensor_meta"] = known._replace(dtype=torch.float16)
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
