"""A graph as stable text: one line a node, for the eye, for dumps, for diffs and golden files."""

from typing import Any

import torch
from torch import fx


def _size(size: Any, names: dict[str, str]) -> str:
    if isinstance(size, int):
        return str(size)
    text = str(size)
    for symbol, name in names.items():
        text = text.replace(symbol, name)
    return text


def _value(node: fx.Node, names: dict[str, str]) -> str:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        sizes = ", ".join(_size(s, names) for s in value.shape)
        return f"{str(value.dtype).removeprefix('torch.')}[{sizes}]"
    return "" if value is None else type(value).__name__


def _argument(value: Any) -> str:
    if isinstance(value, fx.Node):
        return value.name
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_argument(v) for v in value) + "]"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def show(graph: fx.Graph, *, symbols: dict[str, str] | None = None) -> str:
    """Lines `name = operator(arguments) : dtype[shape]`; weights are shown where they are used.

    symbols     what to call symbolic sizes, e.g. {"s70": "Q"}; by default the last size of the
                first input is Q
    """
    names = dict(symbols or {})
    for node in graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if not names and isinstance(value, torch.Tensor) and value.dim() == 2:
            names[str(value.shape[1])] = "Q"
    lines = []
    for node in graph.nodes:
        if node.op == "placeholder":
            lines.append(f"{node.name} : {_value(node, names)}")
        elif node.op == "call_function":
            target = getattr(node.target, "__name__", str(node.target))
            if isinstance(node.target, torch._ops.OpOverload):
                target = str(node.target).removesuffix(".default")
            arguments = [_argument(a) for a in node.args]
            arguments += [f"{k}={_argument(v)}" for k, v in node.kwargs.items()]
            lines.append(f"{node.name} = {target}({', '.join(arguments)}) : {_value(node, names)}")
        elif node.op == "output":
            lines.append(f"return {_argument(node.args[0])}")
    return "\n".join(lines) + "\n"
