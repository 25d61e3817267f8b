"""What traces a graph, and reads no numbers, gets ordinary tensors in place of lazy ones."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from lcc.ir.lazy_tensor import LazyTensor, lazy_ones

SMALL_BYTES = 1 << 16  # of a weight: smaller ones are read when a graph is traced


class StandIns:
    """Ordinary tensors in place of lazy ones: for what traces a graph, and reads no numbers.

    Their memory is never written, so it takes none. Small ones are read: exporters compute with
    them.
    """

    def __init__(self) -> None:
        self._made: dict[Hashable, Tensor] = {}
        self._meant: dict[int, LazyTensor] = {}

    def of(self, tensor: Tensor) -> Tensor:
        """The stand-in of a lazy tensor; any other tensor itself."""
        if not isinstance(tensor, LazyTensor):
            return tensor
        if tensor.key not in self._made:
            if tensor.nbytes < SMALL_BYTES:
                empty = tensor.whole()
            else:
                empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            if tensor.numel():
                self._meant[empty.data_ptr()] = tensor
            if isinstance(tensor, nn.Parameter):
                empty = nn.Parameter(empty, requires_grad=False)
            self._made[tensor.key] = empty
        return self._made[tensor.key]

    def meant(self, tensor: Tensor) -> Tensor:
        """The lazy tensor that a tensor stands for; any other tensor itself."""
        lazy = isinstance(tensor, LazyTensor)
        return tensor if lazy else self._meant.get(tensor.data_ptr(), tensor)

    def put_back(self, exported: ExportedProgram) -> None:
        """Let an exported program have the lazy tensors again."""
        for table in (exported.state_dict, exported.constants):
            for name, tensor in table.items():
                if isinstance(tensor, Tensor):
                    table[name] = self.meant(tensor)


@contextlib.contextmanager
def traced(exported: ExportedProgram) -> Iterator[StandIns]:
    """Within, an exported program has stand-ins for its lazy tensors."""
    made = StandIns()
    for table in (exported.state_dict, exported.constants):
        for name, tensor in table.items():
            if isinstance(tensor, Tensor):
                table[name] = made.of(tensor)
    try:
        yield made
    finally:
        made.put_back(exported)


@contextlib.contextmanager
def stand_ins(module: nn.Module) -> Iterator[StandIns]:
    """Within, a module has stand-ins for its lazy tensors."""
    made, before = StandIns(), lazy_ones(module)
    for table, name, tensor in before:
        table[name] = made.of(tensor)
    try:
        yield made
    finally:
        for table, name, tensor in before:
            table[name] = tensor
