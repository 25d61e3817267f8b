"""Nodes and constants added to an ONNX graph, in the place of others."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

MICROSOFT = "com.microsoft"


class Rewriter:
    """Adds nodes and constants to a graph; the quantized inputs of layers are shared."""

    def __init__(self, model: ir.Model) -> None:
        self.model, self.graph = model, model.graph
        self.shared: dict[tuple, Any] = {}
        self._nodes: list[ir.Node] = []

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """A new initializer; the same name twice is the same one."""
        return self.constant_of(ir.tensor(array, name=name))

    def constant_of(self, tensor: ir.TensorProtocol) -> ir.Value:
        """The same of a tensor, under its name."""
        name = str(tensor.name)
        if name in self.graph.initializers:
            return self.graph.initializers[name]
        value = ir.Value(
            name=name,
            const_value=tensor,
            shape=ir.Shape(tensor.shape),
            type=ir.TensorType(tensor.dtype),
        )
        self.graph.register_initializer(value)
        return value

    def add(
        self, operator: str, inputs: Sequence[ir.Value], domain: str = "", **attributes: Any
    ) -> ir.Value:
        """A new node; its only output."""
        node = ir.node(operator, inputs, attributes=attributes, domain=domain)
        self._nodes.append(node)
        return node.outputs[0]

    def put_in_place_of(self, node: ir.Node, value: ir.Value) -> None:
        """Use a value, made by the nodes added since the last call, instead of a node's output."""
        old = node.outputs[0]
        value.shape, value.type = old.shape, old.type
        value.meta.update(old.meta)
        self.graph.insert_before(node, self._nodes)
        self._nodes = []
        name = old.name
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)
        value.name = name

    def clean(self) -> None:
        """Drop what nothing uses any more."""
        for node in reversed(list(self.graph)):
            if not any(v.uses() or v.is_graph_output() for v in node.outputs):
                self.graph.remove(node, safe=True)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses():
                del self.graph.initializers[name]
        self.model.opset_imports[MICROSOFT] = 1
