"""The graph that passes rewrite, and the few things every pass needs to do with it.

Passes work on the *unlifted* graph of an ExportedProgram: weights are attributes, inputs are
placeholders, and a new input or output needs no entry in a signature. `split_programs` exports the
result again, which validates it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from lcc.errors import PassError
from lcc.ir.plan import Kind
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.rotation import Rotation

aten = torch.ops.aten


@dataclass
class ModelGraph:
    """A captured model on its way through the passes.

    module      logits = module(input_ids [1, Q] int64, position_ids [1, Q] int64)
    rotations   distinct rotary embeddings; `lcc.attention` names them by index
    inputs      what the graph takes, in order; each placeholder bears the name of its port
    outputs     what the graph gives, in order
    plan        the kind of each layer, once HybridLayers has run; None = all are full
    positions_end   the first position for which its angles do not hold; None = they hold for all
    """

    module: fx.GraphModule
    rotations: tuple[Rotation, ...] = ()
    inputs: tuple[Port, ...] = (Port("tokens", Role.TOKENS), Port("positions", Role.POSITIONS))
    outputs: tuple[Port, ...] = (Port("logits", Role.LOGITS),)
    plan: tuple[Kind, ...] | None = None
    positions_end: int | None = None

    @property
    def graph(self) -> fx.Graph:
        """The nodes."""
        return self.module.graph

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        return int(shape(self.graph.output_node().args[0][0])[-1])

    def copy(self) -> "ModelGraph":
        """Another graph over the same weights."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        output = graph.graph_copy(self.graph, copies)
        last = self.graph.output_node()
        graph.output(output).meta = dict(last.meta)
        for old, new in copies.items():
            new.meta = dict(old.meta)
        module = fx.GraphModule(self.module, graph)
        return replace(self, module=module)

    def to(self, device: torch.device) -> None:
        """Move the graph, and the weights that it shares with its model, to another device."""
        self.module.to(device)
        for node in self.graph.nodes:
            if "device" in node.kwargs:
                node.update_kwarg("device", device)
        self.module.recompile()

    def calls(self, target: Callable) -> list[fx.Node]:
        """Calls of one operator, in order."""
        return self.graph.find_nodes(op="call_function", target=target)

    def placeholder(self, name: str) -> fx.Node:
        """An input by its name."""
        for node in self._placeholders():
            if node.name == name:
                return node
        raise PassError(f"the graph has no input named {name}")

    def input(self, role: Role, layer: int | None = None) -> fx.Node:
        """The input of a role, of a layer where it is one."""
        for port, node in zip(self.inputs, self._placeholders(), strict=True):
            if (port.role, port.layer) == (role, layer):
                return node
        where = "" if layer is None else f" of layer {layer}"
        raise PassError(f"the graph has no input for {role}{where}")

    def add_input(self, port: Port, value: torch.Tensor, *, after: fx.Node) -> fx.Node:
        """A new input behind another one; `value` is an example of it, perhaps a fake one."""
        mode = self._placeholders()[0].meta["val"].fake_mode
        place = next(i for i, node in enumerate(self._placeholders()) if node is after) + 1
        with self.graph.inserting_after(after):
            node = self.graph.placeholder(port.name)
        if not isinstance(value, torch._subclasses.FakeTensor):
            value = mode.from_tensor(value, static_shapes=True)
        node.meta["val"] = value
        self.inputs = (*self.inputs[:place], port, *self.inputs[place:])
        return node

    def constant(self, name: str, value: torch.Tensor) -> fx.Node:
        """A tensor of the graph's own, at its insertion point; equal ones are one."""
        for number in range(1 << 20):
            known = self.module._buffers.get(f"{name}_{number}")
            if known is None:
                self.module.register_buffer(f"{name}_{number}", value, persistent=False)
            if known is None or (known.shape == value.shape and torch.equal(known, value)):
                break
        node = self.graph.get_attr(f"{name}_{number}")
        mode = self._placeholders()[0].meta["val"].fake_mode
        node.meta["val"] = mode.from_tensor(value, static_shapes=True)
        return node

    def drop_input(self, node: fx.Node) -> None:
        """Take an input away that nothing reads."""
        place = next(i for i, other in enumerate(self._placeholders()) if other is node)
        self.graph.erase_node(node)
        self.inputs = (*self.inputs[:place], *self.inputs[place + 1 :])

    def results(self) -> list[tuple[Port, fx.Node]]:
        """What the graph gives, with the nodes that compute it."""
        return list(zip(self.outputs, self.graph.output_node().args[0], strict=True))

    def give(self, results: Iterable[tuple[Port, fx.Node]]) -> None:
        """Set what the graph gives."""
        pairs = list(results)
        self.graph.output_node().args = (tuple(node for _, node in pairs),)
        self.outputs = tuple(port for port, _ in pairs)

    def _placeholders(self) -> list[fx.Node]:
        return self.graph.find_nodes(op="placeholder")

    def clean(self) -> None:
        """Drop what nothing uses and recompile."""
        self.graph.eliminate_dead_code()
        self.graph.lint()
        self.module.recompile()


def shape(node: fx.Node) -> tuple:
    """Shape of a node's value, with symbolic sizes."""
    return tuple(node.meta["val"].shape)


def attribute(graph: ModelGraph, node: fx.Node) -> torch.Tensor:
    """The tensor of a get_attr node."""
    value: Any = graph.module
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value


def emit(graph: fx.Graph, target: Callable, *args: Any, **kwargs: Any) -> fx.Node:
    """Insert a call at the graph's insertion point, with the fake value that tells its shape."""
    node = graph.call_function(target, args, kwargs)
    fake = fx.node.map_arg((args, kwargs), lambda n: n.meta["val"])
    node.meta["val"] = target(*fake[0], **fake[1])
    return node


def is_call(node: Any, *targets: Callable) -> bool:
    """Whether a value is a call of one of these operators."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def ancestors(node: fx.Node) -> list[fx.Node]:
    """A node and all it is computed from, inputs first."""
    seen: dict[fx.Node, None] = {}
    stack = [(node, False)]
    while stack:
        current, done = stack.pop()
        if done:
            seen[current] = None
        elif current not in seen:
            stack.append((current, True))
            stack.extend((i, False) for i in current.all_input_nodes if i not in seen)
    return list(seen)


def reached_from(
    graph: fx.Graph, sources: Iterable[fx.Node], *, but: Callable[[fx.Node], bool] | None = None
) -> set[fx.Node]:
    """All nodes whose *values* depend on one of these; a size taken of a tensor does not count.

    but     nodes that the search does not go through
    """
    reached = set(sources)
    for node in graph.nodes:
        if is_call(node, aten.sym_size.int) or (but is not None and but(node)):
            continue
        if any(i in reached for i in node.all_input_nodes):
            reached.add(node)
    return reached


def evaluate(
    graph: ModelGraph, wanted: fx.Node, given: Mapping[fx.Node, Any], *, double: bool = False
) -> Any:
    """Run only what one node needs.

    given       values of nodes, placeholders included; nothing above them is run
    double      compute all floating point in float64, constants and casts included
    """
    values: dict[fx.Node, Any] = dict(given)

    def widen(value: Any) -> Any:
        is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.double() if double and is_float else value

    stack = [wanted]
    while stack:
        node = stack[-1]
        if node in values:
            stack.pop()
            continue
        missing = [i for i in node.all_input_nodes if i not in values]
        if missing:
            stack.extend(missing)
            continue
        if node.op == "get_attr":
            values[node] = widen(attribute(graph, node))
        elif node.op == "call_function":
            args = fx.node.map_arg(node.args, values.__getitem__)
            kwargs = dict(fx.node.map_arg(node.kwargs, values.__getitem__))
            if double and kwargs.get("dtype") in (torch.float32, torch.float16, torch.bfloat16):
                kwargs["dtype"] = torch.float64
            values[node] = widen(node.target(*args, **kwargs))
        else:
            raise PassError(f"{wanted.name} depends on input {node.name}, which has no value here")
        stack.pop()
    return values[wanted]
