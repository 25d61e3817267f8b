"""A block_sparse layer as ONNX Runtime computes it is the operator, whatever is in its cache."""

import msgspec
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from lcc.ir.plan import BlockSparse
from lcc.ir.program import PREFILL_CHUNK, Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.targets.onnx_runtime import to_onnx

CACHE = (Role.KEY, Role.VALUE)
HEADS, KV_HEADS, SIZE, SLOTS, CHUNK = 6, 2, 8, 40, 16
ROLES = {
    "q": Role.HIDDEN,
    "k": Role.HIDDEN,
    "v": Role.HIDDEN,
    "key_0": Role.KEY,
    "value_0": Role.VALUE,
    "used": Role.COUNTER,
    "places_1": Role.TOKEN_POSITION,
}
NAMES = tuple(ROLES)
OUT = ("out", "key_0_out", "value_0_out")


class Layer(nn.Module):
    """One call of the operator."""

    def __init__(self, kind: BlockSparse, softcap: float) -> None:
        super().__init__()
        self.numbers = (*msgspec.structs.astuple(kind), 0.4, softcap, -1)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = torch.ops.lcc.cached_block_sparse(*given, *self.numbers)
        return results


def inputs(kind: BlockSparse, used: int, length: int) -> tuple[Tensor, ...]:
    """Of heads that hold other tokens where they see others; a row more than there are."""
    draw = torch.Generator().manual_seed(7)
    q = torch.randn(1, length, HEADS, SIZE, generator=draw)
    k, v = (torch.randn(1, length, KV_HEADS, SIZE, generator=draw) for _ in range(2))
    key, value = (torch.randn(1, KV_HEADS, SLOTS, SIZE, generator=draw) for _ in range(2))
    key[:, :, used:] = value[:, :, used:] = torch.nan
    read = 100
    places = torch.full((KV_HEADS + 1, SLOTS), 7)
    for head in places:
        head[:used] = torch.randperm(read, generator=draw)[:used].sort().values
        head[used : used + length] = torch.arange(read, read + length)
    if not kind.shift:
        places = places[:1].repeat(KV_HEADS + 1, 1)
    return q, k, v, key, value, torch.tensor([used], dtype=torch.int32), places


def program_of(layer: nn.Module, given: tuple[Tensor, ...]) -> Program:
    """Of any number of tokens."""
    sizes = {1: ("tokens", torch.export.Dim("Q", min=1, max=CHUNK))}
    inputs = [
        Input(Port(name, ROLES[name]), value, sizes if name in ("q", "k", "v") else {})
        for name, value in zip(NAMES, given, strict=False)
    ]
    outputs = [Port(name, role) for name, role in zip(OUT, (Role.HIDDEN, *CACHE), strict=True)]
    return export(layer, (PREFILL_CHUNK,), inputs, outputs)


def session_of(program: Program) -> onnxruntime.InferenceSession:
    content = ir.to_proto(to_onnx(program)).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("kind", "softcap"),
    [
        (BlockSparse(block=4, stride=3, local=2, reach=9), 0.0),
        (BlockSparse(block=2, stride=5, local=3, sink=4, reach=40, offset=1, shift=2), 0.0),
        (BlockSparse(block=8, stride=2, local=1, sink=0, shift=1), 2.0),
    ],
    ids=str,
)
def test_the_kernel_is_the_operator(kind: BlockSparse, softcap: float) -> None:
    """Empty caches, half full ones, and a cache that is full."""
    layer = Layer(kind, softcap)
    session = session_of(program_of(layer, inputs(kind, 3, 5)))
    for used, count in [(0, 16), (0, 1), (2, 7), (SLOTS - 16, 16), (SLOTS - 1, 1)]:
        given = inputs(kind, used, count)
        wanted = layer(*given)
        got = session.run(list(OUT), {n: x.numpy() for n, x in zip(NAMES, given, strict=True)})
        np.testing.assert_allclose(got[0], wanted[0].numpy(), atol=2e-6)
        for one, other in zip(got[1:], wanted[1:], strict=True):
            np.testing.assert_array_equal(one[:, :, : used + count], other[:, :, : used + count])


class Full(nn.Module):
    """The operator of full layers, of the same inputs."""

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = torch.ops.lcc.cached_attention(*given, 0.4, 0, 0.0, -1)
        return results


class Window(nn.Module):
    """A window that nothing has left: its first tokens are met by the angle of all others."""

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        q, *rest = given
        moved = q + 0.0  # another value to the compiler, the same numbers
        numbers = (2, SLOTS, 1, 0.4, 0.0, -1)
        results: tuple[Tensor, ...] = torch.ops.lcc.cached_sink_window(q, moved, *rest, *numbers)
        return results


def test_what_hides_nothing_is_a_full_layer_bit_for_bit() -> None:
    wide = BlockSparse(block=4, stride=7, local=12, shift=1)
    results = []
    for layer, places in ((Full(), False), (Window(), False), (Layer(wide, 0.0), True)):
        names = NAMES if places else NAMES[:-1]
        session = session_of(program_of(layer, inputs(wide, 3, 5)[: len(names)]))
        rows = []
        for used, count in [(0, 16), (0, 1), (7, 9), (SLOTS - 1, 1)]:
            values = inputs(wide, used, count)
            values[-1][:] = torch.arange(SLOTS)
            arrays = {n: x.numpy() for n, x in zip(names, values, strict=False)}
            rows.append(session.run(["out"], arrays)[0].copy())
        results.append(rows)
    for other in results[1:]:
        for one, wanted in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(one, wanted)
