"""PyTorch's ONNX exporter, without what costs it most.

It makes its registry of some thousand operators anew for every program, traces a whole graph to
decompose the few nodes that ONNX has no operator for, and runs it again to see whose arguments need
a cast. Here the registry is made once, only those nodes are traced, each kind of node once a
program, and dtypes are read where tracing wrote them. Together that was two thirds of writing a
small model.
"""

import contextlib
import copy
import functools
import operator
from collections.abc import Iterator
from typing import Any
from unittest import mock

from torch import Tensor, fx
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature
from torch.fx.experimental.proxy_tensor import make_fx
from torch.onnx._internal.exporter import _decomp, _fx_passes, _registration
from torch.onnx._internal.fx.passes.type_promotion import (
    _TypePromotionInterpreter as _Promotion,
)
from torch.onnx._internal.fx.passes.type_promotion import get_type_promotion_rule
from torch.utils import _pytree

_registry = functools.cache(_registration.ONNXRegistry.from_torchlib)


@contextlib.contextmanager
def decomposed_in_place(lowered: dict) -> Iterator[None]:
    """Within, exporting decomposes these operators, too, and traces no more than it must.

    lowered     operator -> what it becomes
    """

    def decompose(exported: ExportedProgram, _registry: Any) -> ExportedProgram:
        written, table = _operators()
        table = {**table, **lowered}
        if any(_needs_whole_graph(node) for node in exported.graph.nodes):
            return exported.run_decompositions(table)
        return _decomposed(exported, written - set(lowered), table)

    with (
        mock.patch.object(_registration.ONNXRegistry, "from_torchlib", staticmethod(_registry)),
        mock.patch.object(_fx_passes, "decompose_with_registry", decompose),
        mock.patch.object(_Promotion, "run_node", _promoted),
    ):
        yield


@functools.cache
def _operators() -> tuple[frozenset, dict]:
    """What ONNX has, and how the rest is decomposed."""
    written = frozenset(_decomp.get_onnx_implemented_overloads(_registry()))
    return written, _decomp.create_onnx_friendly_decomposition_table(set(written))


def _promoted(interpreter: _Promotion, node: fx.Node) -> Any:
    """Cast a node's arguments where it needs that; its value is the one that tracing noted."""
    with interpreter._set_current_node(node):
        if rule := get_type_promotion_rule(node, interpreter.type_promotion_table):
            interpreter._maybe_promote_node(node, rule)
    if node in interpreter.env:  # it was changed, and run
        return interpreter.env[node]
    return node.meta["val"] if "val" in node.meta else fx.Interpreter.run_node(interpreter, node)


def _needs_whole_graph(node: fx.Node) -> bool:
    """Writes into an argument, or holds a graph of its own."""
    if isinstance(node.target, OpOverload):
        return node.target._schema.is_mutable
    return isinstance(node.target, HigherOrderOperator)


def _decomposed(exported: ExportedProgram, written: frozenset, table: dict) -> ExportedProgram:
    """The program with each node that ONNX has not as nodes that it has."""
    graph = copy.deepcopy(exported.graph)
    signature = copy.deepcopy(exported.graph_signature)
    parts: dict[str, fx.Graph] = {}
    for node in list(graph.nodes):
        if isinstance(node.target, OpOverload) and node.target not in written:
            leaves, how = _pytree.tree_flatten((node.args, node.kwargs))
            told = f"{node.target} {[_told(leaf) for leaf in leaves]} {how}"
            if told not in parts:
                parts[told] = _part(node.target, leaves, how, table)
            _put_in_place(
                node, [x for x in leaves if isinstance(x, fx.Node)], parts[told], signature
            )
    module = fx.GraphModule(exported.graph_module, graph)
    module.meta.update(exported.graph_module.meta)
    return exported._update(module, signature)


def _told(leaf: Any) -> str:
    """Equal for arguments with which an operator decomposes into the same nodes."""
    value = leaf.meta["val"] if isinstance(leaf, fx.Node) else leaf
    if not isinstance(value, Tensor):
        return f"{type(leaf).__name__} {value!r}"
    return f"{value.dtype} {tuple(value.shape)} {value.stride()}"


def _part(target: OpOverload, leaves: list, how: _pytree.TreeSpec, table: dict) -> fx.Graph:
    """What an operator becomes with these arguments; those that are nodes are its inputs."""

    def call(*values: Any) -> Any:
        given = iter(values)
        filled = [next(given) if isinstance(leaf, fx.Node) else leaf for leaf in leaves]
        args, kwargs = _pytree.tree_unflatten(filled, how)
        return target(*args, **kwargs)

    values = [leaf.meta["val"] for leaf in leaves if isinstance(leaf, fx.Node)]
    traced = make_fx(call, decomposition_table=table)(*values)
    traced.graph.eliminate_dead_code()
    assert not list(traced.graph.find_nodes(op="get_attr")), f"{target} makes constants"
    return traced.graph


def _put_in_place(
    node: fx.Node, inputs: list[fx.Node], part: fx.Graph, signature: ExportGraphSignature
) -> None:
    """Copy a graph in front of a node and let its results be read instead."""
    copies = dict(zip(part.find_nodes(op="placeholder"), inputs, strict=True))
    with node.graph.inserting_before(node):
        for each in part.nodes:
            if each.op == "call_function":
                copies[each] = node.graph.node_copy(each, copies.__getitem__)
                copies[each].meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
    results = part.output_node().args[0]
    if isinstance(results, fx.Node):
        _replace(node, copies[results], signature)
        return
    for user in list(node.users):
        assert user.target is operator.getitem, user
        _replace(user, copies[results[user.args[1]]], signature)
    node.graph.erase_node(node)


def _replace(node: fx.Node, by: fx.Node, signature: ExportGraphSignature) -> None:
    node.replace_all_uses_with(by)
    signature.replace_all_uses(node.name, by.name)
    node.graph.erase_node(node)
