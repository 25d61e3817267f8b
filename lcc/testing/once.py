"""Programs that are exported and converted once a process, however many tests compile them.

Both are most of compiling a tiny model, and most tests compile the same few programs.
"""

import copy
import hashlib
import io
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from lcc.ir.lazy_tensor import whole

LARGEST = 20_000_000  # bytes of a program's weights: those of SmolLM2 are not kept


class Exports:
    """`torch.export.export`, once for equal modules of lcc's own, and for equal models.

    Equal modules have the same class, code, settings and constants; weights are referred to by what
    is exported, so those of the module at hand take the place of those it was made with.
    """

    def __init__(self, anew: Callable[..., ExportedProgram], test: Callable[[], str]) -> None:
        """`anew` exports, `test` names the test that runs."""
        self.anew, self.test = anew, test
        # With the module: no other gets its address.
        self.made: dict[bytes, tuple[ExportedProgram, nn.Module]] = {}

    def __call__(self, module: nn.Module, args: tuple, *more: Any, **how: Any) -> ExportedProgram:
        """A program of its own, whose tensors are those of the module."""
        key = self._content(module, (args, more, str(how)))
        if key is None:
            return self.anew(module, args, *more, **how)
        if key not in self.made:
            self.made[key] = self.anew(module, args, *more, **how), module
        return _with_tensors_of(module, self.made[key][0])

    def _content(self, module: nn.Module, given: Any) -> bytes | None:
        """Equal for modules that export to the same; None of what a test has made."""
        if isinstance(module, fx.GraphModule):
            names = [str(node.target) for node in module.graph.find_nodes(op="get_attr")]
            told: Any = str(module.graph), [(name, _attribute(module, name)) for name in names]
        elif type(module).__module__.startswith("lcc.passes."):
            told = [(name, type(each), _settings(each)) for name, each in module.named_modules()]
        elif (config := getattr(getattr(module, "model", None), "config", None)) is not None:
            parts = [
                (name, type(each), type(each).forward, _settings(each))
                for name, each in module.named_modules()
            ]
            if (key := _digest((parts, given))) is not None:
                return key
            told = self.test(), id(module.model), str(config)  # functions that have no name
        else:
            return None
        return _digest((told, given))


def _settings(module: nn.Module) -> dict[str, Any]:
    skipped = ("_modules", "_backward_hooks", "_forward_hooks")
    return {name: value for name, value in vars(module).items() if name not in skipped}


def _digest(given: Any) -> bytes | None:
    class Numbers(pickle.Pickler):
        def reducer_override(self, each: Any) -> Any:
            if isinstance(each, nn.Parameter):
                return str, (f"{each.dtype} {tuple(each.shape)}",)
            if isinstance(each, Tensor):
                numbers = whole(each).detach().contiguous().flatten().view(torch.uint8).numpy()
                return bytes, (f"{each.dtype} {tuple(each.shape)}".encode() + numbers.tobytes(),)
            return NotImplemented

    told = io.BytesIO()
    try:
        Numbers(told).dump(given)
    except (AttributeError, TypeError, pickle.PicklingError):
        return None
    return hashlib.sha256(told.getvalue()).digest()


def _with_tensors_of(module: nn.Module, exported: ExportedProgram) -> ExportedProgram:
    graph = copy.deepcopy(exported.graph)
    for old, new in zip(exported.graph.nodes, graph.nodes, strict=True):
        new.name = old.name  # `input` would get another one
    tables = [
        {name: _own(module, name, value) for name, value in table.items()}
        for table in (exported.state_dict, exported.constants)
    ]
    return exported._update(
        fx.GraphModule(exported.graph_module, graph),
        copy.deepcopy(exported.graph_signature),
        state_dict=tables[0],
        constants=tables[1],
    )


def _own(module: nn.Module, name: str, made: Any) -> Any:
    try:
        own = _attribute(module, name)
    except AttributeError:  # made while it was traced
        return made
    return own if isinstance(own, Tensor) and own.shape == made.shape else made


def _attribute(module: nn.Module, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part)
    return value


def converted_content(program: Any, lowered: dict | None = None, *more: Any) -> str | None:
    """Equal for programs that become the same file; None for one that is too large to keep."""
    exported = program.exported
    tensors = {**exported.state_dict, **exported.constants}
    if sum(each.nbytes for each in tensors.values()) > LARGEST:
        return None
    operators = {str(k): f"{v.__module__}.{v.__qualname__}" for k, v in (lowered or {}).items()}
    parts = [str(exported), str(program.names), str(program.inputs), str(program.outputs)]
    digest = hashlib.sha256("\n".join([*parts, str(operators), str(more)]).encode())
    for name, tensor in tensors.items():
        numbers = whole(tensor).detach().contiguous().flatten()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(numbers.view(torch.uint8).numpy().tobytes() if len(numbers) else b"")
    return digest.hexdigest()
