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
import math
import operator
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode
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

aten = torch.ops.aten

_registry = functools.cache(_registration.ONNXRegistry.from_torchlib)


@contextlib.contextmanager
def decomposed_in_place(lowered: dict, *, whole: bool = False) -> Iterator[None]:
    """Within, exporting decomposes these operators, too, and traces no more than it must.

    lowered     operator -> what it becomes
    whole       trace whole graphs. Then a product within an operator stays one node; traced alone
                it gets views around it, and an accelerator may lack them
    """

    def decompose(exported: ExportedProgram, _registry: Any) -> ExportedProgram:
        written, table = _operators()
        table = {**table, **lowered}
        if whole or any(_needs_whole_graph(node) for node in exported.graph.nodes):
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
    graph = _copied(exported.graph)
    signature = copy.deepcopy(exported.graph_signature)
    parts: dict[str, fx.Graph] = {}
    sizes = _sizes_of_inputs(graph)
    for node in list(graph.nodes):
        if _changes_nothing(node):
            _replace(node, node.args[0], signature)
        elif isinstance(node.target, OpOverload) and node.target not in written:
            call = _Call(node)
            if call.told not in parts:
                parts[call.told] = call.decomposed(table)
            _put_in_place(node, call.inputs, parts[call.told], sizes, signature)
    graph.eliminate_dead_code()
    module = fx.GraphModule(exported.graph_module, graph)
    module.meta.update(exported.graph_module.meta)
    return exported._update(module, signature)


def _copied(graph: fx.Graph) -> fx.Graph:
    """A copy whose inputs keep their names: `input` would get another one."""
    made = copy.deepcopy(graph)
    for old, new in zip(graph.nodes, made.nodes, strict=True):
        if old.op == "placeholder":
            new.name, new.target = old.name, old.target
    return made


class _Call:
    """An operator and its arguments; each node among them is one input, however often it stands.

    told    equal for calls that decompose into the same nodes
    """

    def __init__(self, node: fx.Node) -> None:
        """Nothing is traced yet."""
        assert isinstance(node.target, OpOverload)
        self.target = node.target
        self.leaves, self.how = _pytree.tree_flatten((node.args, node.kwargs))
        self.inputs = list(dict.fromkeys(x for x in self.leaves if isinstance(x, fx.Node)))
        self.told = f"{node.target} {[self._told(leaf) for leaf in self.leaves]} {self.how}"

    def _told(self, leaf: Any) -> str:
        if not isinstance(leaf, fx.Node):
            return f"{type(leaf).__name__} {leaf!r}"
        value, place = leaf.meta["val"], self.inputs.index(leaf)
        if not isinstance(value, Tensor):
            return f"{place}: {value!r}"
        return f"{place}: {value.dtype} {tuple(value.shape)} {value.stride()}"

    def decomposed(self, table: dict) -> fx.Graph:
        """What it becomes, as a graph of its inputs."""

        def call(*values: Any) -> Any:
            given = dict(zip(self.inputs, values, strict=True))
            leaves = [given[x] if isinstance(x, fx.Node) else x for x in self.leaves]
            args, kwargs = _pytree.tree_unflatten(leaves, self.how)
            # Operators that are composed of others are taken apart before tracing looks at `table`.
            result = table.get(self.target, lambda *_, **__: NotImplemented)(*args, **kwargs)
            return self.target(*args, **kwargs) if result is NotImplemented else result

        # Copies of a part have the same values, and tracing knows a node by its value.
        values = [each.meta["val"] for each in self.inputs]
        values = [each.detach() if isinstance(each, Tensor) else each for each in values]
        with detect_fake_mode(values) or contextlib.nullcontext():  # what it makes is fake, too
            traced = make_fx(call, decomposition_table=table)(*values)
        for node in traced.graph.find_nodes(op="call_function", target=aten.sym_numel.default):
            _multiply_sizes(node)
        traced.graph.eliminate_dead_code()
        assert not list(traced.graph.find_nodes(op="get_attr")), f"{self.target} makes constants"
        return traced.graph


def _changes_nothing(node: fx.Node) -> bool:
    """A view of all of what it is a view of."""
    if node.target not in (aten.expand.default, aten.slice.Tensor):
        return False
    # As text: comparing sizes would decide what they may be.
    shapes = [str(tuple(each.meta["val"].shape)) for each in (node, node.all_input_nodes[0])]
    return shapes[0] == shapes[1]


def _multiply_sizes(numel: fx.Node) -> None:
    """The number of elements as ONNX has it: a product."""
    (tensor,) = numel.args
    assert isinstance(tensor, fx.Node)
    graph, sizes = numel.graph, tensor.meta["val"].shape
    with graph.inserting_before(numel):
        product: Any = math.prod(size for size in sizes if isinstance(size, int))
        value: Any = product
        for axis, size in enumerate(sizes):
            if isinstance(size, int):
                continue
            one = graph.call_function(aten.sym_size.int, (tensor, axis))
            one.meta["val"], value = size, value * size
            product = graph.call_function(operator.mul, (product, one))
            product.meta["val"] = value
    numel.replace_all_uses_with(product)


def _sizes_of_inputs(graph: fx.Graph) -> dict[str, fx.Node]:
    """Each size that the call decides -> a node of it, before all others."""
    inputs, sizes = graph.find_nodes(op="placeholder"), dict[str, fx.Node]()
    with graph.inserting_after(inputs[-1]):
        for each in inputs:
            shape = each.meta["val"].shape if isinstance(each.meta.get("val"), Tensor) else ()
            for axis, size in enumerate(shape):
                if isinstance(size, torch.SymInt) and str(size) not in sizes:
                    sizes[str(size)] = node = graph.call_function(aten.sym_size.int, (each, axis))
                    node.meta |= {"val": size, "nn_module_stack": {}}
    return sizes


def _put_in_place(
    node: fx.Node,
    inputs: list[fx.Node],
    part: fx.Graph,
    sizes: dict[str, fx.Node],
    signature: ExportGraphSignature,
) -> None:
    """Copy a graph in front of a node and let its results be read instead.

    sizes   that are known there; those of the copy are added
    """
    copies = dict(zip(part.find_nodes(op="placeholder"), inputs, strict=True))
    with node.graph.inserting_before(node):
        for each in part.nodes:
            if each.op != "call_function":
                continue
            if _changes_nothing(each):
                copies[each] = copies[each.all_input_nodes[0]]
                continue
            size = each.meta.get("val")
            if isinstance(size, torch.SymInt) and str(size) in sizes:
                copies[each] = sizes[str(size)]
                continue
            copies[each] = copied = node.graph.node_copy(each, copies.__getitem__)
            copied.meta["nn_module_stack"] = node.meta.get("nn_module_stack", {})
            if isinstance(size, torch.SymInt):
                sizes[str(size)] = copied
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
