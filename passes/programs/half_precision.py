"""Programs in half precision, for GPUs: what is large is float16, what is compared is not.

In float16 are weights, keys and values, and the operands of matrix products and attention. In
float32 stays what adds up or spreads widely: the sum of the layers, norms, angles (a float16 has 11
bits: not enough to tell positions apart), retaining heads, logits, likelihoods, and all that
scoring and selection compute. Inputs and outputs are float32 but for keys and values.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from lcc.errors import PassError
from lcc.ir.program import Program, ports, re_export
from lcc.ir.roles import Role
from lcc.passes.programs.base import ProgramPass

_CACHE = (Role.KEY, Role.VALUE)
# Place of the weight among a product's arguments: it decides in what it is computed.
_PRODUCTS = {"aten.linear": 1, "aten.addmm": 2, "aten.mm": 1, "aten.matmul": 1, "aten.bmm": 1}
_MOVES = {
    f"aten.{name}"
    for name in (
        *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"),
        *("transpose", "permute", "t", "expand", "slice", "select", "index_select", "gather"),
        *("split", "split_with_sizes", "chunk", "cat", "clone", "contiguous", "alias"),
    )
}
_PLAIN = {  # safe in float16, of what a product gives
    f"aten.{name}" for name in ("add", "sub", "mul", "neg", "silu", "sigmoid", "gelu", "relu")
}


class HalfPrecision(ProgramPass):
    """Weights, keys and values in float16, and the operands of products."""

    def rewrite(self, program: Program) -> list[Program] | None:
        """The same program in half precision."""
        return [half(program)]

    def ensures(self, program: Program) -> None:
        """What goes in and out is float32 but for the cache."""
        for spec in (*program.inputs, *program.outputs):
            if (spec.dtype == "float16") != (spec.role in _CACHE):
                raise PassError(f"half_precision: {program.file_stem}: {spec.name}: {spec.dtype}")


def half(program: Program) -> Program:
    """The same program in half precision; it has weights of its own."""
    exported = program.exported
    values = {
        spec.name: value.half() if spec.role in _CACHE else value
        for spec, value in zip(program.inputs, exported.example_inputs[0], strict=True)
    }
    module = _Half(exported.module(check_guards=False), [spec.role for spec in program.outputs])
    return re_export(program, module, values, outputs=ports(program.outputs))


class _Half(nn.Module):
    """A graph whose calls are given operands of the right dtype."""

    def __init__(self, graph: fx.GraphModule, outputs: list[Role]) -> None:
        super().__init__()
        for node in list(graph.graph.nodes):
            if node.target is torch.ops.aten._assert_tensor_metadata.default:  # it was float32
                graph.graph.erase_node(node)
        self.body, self.outputs = graph, outputs
        self.weightless = not _halve(graph)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of `_CACHE` in float16, all other numbers in float32, in and out."""
        results = _Caster(self.body, weightless=self.weightless).run(
            *inputs, enable_io_processing=False
        )
        return tuple(
            _cast(result, torch.float16 if role in _CACHE else torch.float32)
            for role, result in zip(self.outputs, results, strict=True)
        )


class _Caster(fx.Interpreter):
    def __init__(self, graph: fx.GraphModule, *, weightless: bool) -> None:
        super().__init__(graph)
        self.weightless = weightless

    def call_function(self, target: Any, args: tuple, kwargs: dict) -> Any:
        """One call; numbers that meet are of one dtype, which ONNX and TVM ask for."""
        if not isinstance(target, torch._ops.OpOverload):  # arithmetic of sizes, getitem
            return super().call_function(target, args, kwargs)
        name = str(target).rpartition(".")[0]
        wanted = self._dtype(name, args)
        if wanted is not None:
            args, kwargs = pytree.tree_map(lambda x: _cast(x, wanted), (args, kwargs))
        result = super().call_function(target, args, kwargs)
        return _cast(result, torch.float32) if name == "aten.embedding" else result

    def _dtype(self, name: str, args: tuple) -> torch.dtype | None:
        """Of the floating operands; None = as they are."""
        if name == "lcc.rotate":
            return args[0].dtype  # type: ignore[no-any-return]
        if name.startswith("lcc.cached_"):
            return torch.float16
        if name in _PRODUCTS and not self.weightless:
            return args[_PRODUCTS[name]].dtype  # type: ignore[no-any-return]
        if name == "aten.embedding":
            return None
        floats = [x for x in pytree.tree_leaves(args) if _is_float(x)]
        found = {x.dtype for x in floats if x.dim()} or {x.dtype for x in floats}
        stays = name in _MOVES or (name in _PLAIN and not self.weightless)
        return found.pop() if len(found) == 1 and stays else torch.float32


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.float16, torch.float32)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if _is_float(value) and value.dtype != dtype else value


def _halve(module: nn.Module) -> int:
    """Give a module parameters of its own in half precision; how many tensors it has now."""
    made: dict[int, nn.Parameter] = {}
    for owner in module.modules():
        for name, tensor in owner._parameters.items():
            if tensor is not None and tensor.dtype == torch.float32:
                if id(tensor) not in made:
                    made[id(tensor)] = nn.Parameter(tensor.detach().half(), False)
                owner._parameters[name] = made[id(tensor)]
    return len(made)
