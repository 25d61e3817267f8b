"""Weights that a program computes of weights alone, computed when it is compiled."""

import copy
from dataclasses import replace

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

from lcc.errors import PassError
from lcc.ir.program import Program, with_graph
from lcc.passes.programs.base import ProgramPass
from lcc.targets.tvm_cpu.weights import weights_of_experts

SMALL = 1 << 20  # numbers that are worth a place in the file, rather than computed in every step


class FoldWeights(ProgramPass):
    """Weights of experts that a model keeps the other way round or in several parts; small ones.

        before   up -> transpose -> experts             a_log -> exp -> neg -> mul
        after    up_folded -> experts                   neg_folded -> mul

    A transposed one is another view of the same memory; it is packed when it is written. Of other
    weights those are folded that have `SMALL` numbers at most, as the decays of a Mamba.
    """

    def rewrite(self, program: Program) -> list[Program] | None:
        """The same program over folded weights; None where there is nothing to fold."""
        return [_folded(program)] if _computed(program.exported) else None

    def ensures(self, program: Program) -> None:
        """Every weight of experts is a parameter, and every small one."""
        for node in _computed(program.exported):
            raise PassError(f"fold_weights: {program.file_stem}: {node} is computed")


def _computed(exported: ExportedProgram) -> list[fx.Node]:
    """What is to be folded, in the order of the graph."""
    experts = {each for each in weights_of_experts(exported.graph) if each.op != "placeholder"}
    names = {spec.arg.name for spec in exported.graph_signature.input_specs if spec.target}
    known: set[fx.Node] = set()  # when the program is compiled
    for node in exported.graph.nodes:
        inputs, value = node.all_input_nodes, node.meta.get("val")
        small = isinstance(value, torch.Tensor) and value.numel() <= SMALL
        if node.name in names or (small and inputs and known.issuperset(inputs)):
            known.add(node)
    last = {node for node in known if not known.issuperset(node.users)}
    return [n for n in exported.graph.nodes if n in experts | last and n.op == "call_function"]


def _folded(program: Program) -> Program:
    old = program.exported
    graph, signature = copy.deepcopy(old.graph), copy.deepcopy(old.graph_signature)
    stored = {**old.state_dict, **old.constants}
    tensors = {each.arg.name: stored[each.target] for each in signature.input_specs if each.target}
    constants = dict(old.constants)
    copies = {node.name: node for node in graph.nodes}
    for each in _computed(old):
        node, name = copies[each.name], f"{each.name}_folded"
        constants[name] = tensors[name] = _value(node, tensors)
        with graph.inserting_before(next(iter(graph.nodes))):
            weight = graph.placeholder(name)
        weight.meta = {"val": node.meta["val"]}
        node.replace_all_uses_with(weight)
        spec = InputSpec(InputKind.BUFFER, TensorArgument(name), name, persistent=False)
        signature.input_specs.insert(0, spec)
    graph.eliminate_dead_code()
    used = {node.name for node in graph.find_nodes(op="placeholder") if node.users}
    inputs = [s for s in signature.input_specs if s.target is None or s.arg.name in used]
    for node in graph.find_nodes(op="placeholder"):
        if node.name not in {spec.arg.name for spec in inputs}:
            graph.erase_node(node)
    signature.input_specs[:] = inputs
    kept = {spec.target for spec in inputs}
    exported = with_graph(
        old,
        graph,
        signature,
        state_dict={name: each for name, each in old.state_dict.items() if name in kept},
        constants={name: each for name, each in constants.items() if name in kept},
    )
    return replace(program, exported=exported)


def _value(node: fx.Node, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a node computes of weights.

    Raises PassError where an input of the program is among them.
    """
    if node.op == "placeholder":
        if node.name not in weights:
            raise PassError(
                f"fold_weights: {node.name}: weights of experts that the model computes as it "
                "reads; wanted constants"
            )
        return weights[node.name]
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda each: _value(each, weights))
    with torch.no_grad():
        result: torch.Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    return result
