"""A sparse layer as ONNX Runtime computes it is the operator, whatever is in its cache."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from lcc.capture.export import capture
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.ir.plan import SinkWindow
from lcc.ir.program import PREFILL_CHUNK, Input, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.passes.policies import make_policy
from lcc.passes.specialize import Subject, specialize
from lcc.targets.onnx_runtime import to_onnx
from lcc.testing.tiny import tiny_model

HEADS, KV_HEADS, SIZE, CHUNK = 6, 2, 8, 16
ROLES = {
    "q": Role.HIDDEN,
    "sink_q": Role.HIDDEN,
    "k": Role.HIDDEN,
    "v": Role.HIDDEN,
    "key_0": Role.KEY,
    "value_0": Role.VALUE,
    "used": Role.COUNTER,
}
NAMES = tuple(ROLES)
OUT = ("out", "key_0_out", "value_0_out")


class Layer(nn.Module):
    """One call of the operator."""

    def __init__(self, kind: SinkWindow, softcap: float, same: bool) -> None:
        super().__init__()
        self.kind, self.softcap, self.same = kind, softcap, same

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        q, sink_q, *rest = given
        kind = self.kind
        numbers = (kind.sink, kind.window, kind.block, 0.4, self.softcap, -1)
        sink_q = q if self.same else sink_q
        results: tuple[Tensor, ...] = torch.ops.lcc.cached_sink_window(q, sink_q, *rest, *numbers)
        return results


def inputs(kind: SinkWindow, used: int, length: int) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(7)
    of_queries = [torch.randn(1, length, HEADS, SIZE, generator=draw) for _ in range(2)]
    of_keys = [torch.randn(1, length, KV_HEADS, SIZE, generator=draw) for _ in range(2)]
    caches = [torch.randn(1, KV_HEADS, kind.slots(CHUNK), SIZE, generator=draw) for _ in range(2)]
    return (*of_queries, *of_keys, *caches, torch.tensor([used], dtype=torch.int32))


def compiled(kind: SinkWindow, softcap: float, same: bool) -> onnxruntime.InferenceSession:
    sizes = {1: ("tokens", torch.export.Dim("Q", min=1, max=CHUNK))}
    ports = [
        Input(Port(name, role), value, sizes if role == Role.HIDDEN else {})
        for (name, role), value in zip(ROLES.items(), inputs(kind, 3, 5), strict=True)
    ]
    roles = (Role.HIDDEN, Role.KEY, Role.VALUE)
    outputs = [Port(name, role) for name, role in zip(OUT, roles, strict=True)]
    model = to_onnx(export(Layer(kind, softcap, same), (PREFILL_CHUNK,), ports, outputs))
    return onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )


PLAIN = SinkWindow(sink=3, window=9)


@pytest.mark.parametrize(
    ("kind", "same", "softcap"),
    [
        (PLAIN, False, 0.0),
        (PLAIN, True, 0.0),
        (PLAIN, False, 2.0),
        (SinkWindow(sink=5, window=2), False, 0.0),  # a chunk is longer than the window
        (SinkWindow(sink=0, window=7), False, 2.0),
        (SinkWindow(sink=20, window=4), False, 0.0),  # the first entries come in two chunks
        (SinkWindow(sink=4, window=12, block=4), False, 0.0),
    ],
    ids=str,
)
def test_the_kernel_is_the_operator(kind: SinkWindow, same: bool, softcap: float) -> None:
    """Empty caches, first entries half there, all of them, and a cache that is full."""
    session, layer = compiled(kind, softcap, same), Layer(kind, softcap, same)
    full = kind.slots(CHUNK)
    for used, length in [(0, 16), (0, 1), (2, 7), (4, 16), (full - 16, 16), (full - 1, 1)]:
        given = inputs(kind, used, length)
        wanted = layer(*given)
        feeds = {n: x.numpy() for n, x in zip(NAMES, given, strict=True)}
        names = {each.name for each in session.get_inputs()}
        got = session.run(list(OUT), {n: x for n, x in feeds.items() if n in names})
        for one, other in zip(got, wanted, strict=True):
            if one.shape[2] == full:  # GroupQueryAttention leaves what lies behind undefined
                one, other = one[:, :, : used + length], other[:, :, : used + length]
            np.testing.assert_allclose(one, other.numpy(), atol=2e-6)


def test_layers_of_one_kind_share_their_mask() -> None:
    cache = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
    plan = "0: full; 1-3: sink_window(sink=2, window=1200)"  # long constants, which differ by name
    config = CompileConfig(cache=cache, policy=PolicyConfig(name="knorm"), plan=plan)
    subject = Subject(capture(tiny_model("llama", num_hidden_layers=4)), "m", "llama")
    model = to_onnx(specialize(subject, config, make_policy(config.policy)).programs[0])
    kinds = [node.op_type for node in model.graph]
    assert kinds.count("GroupQueryAttention") == 4
    assert kinds.count("Tile") == 1
    assert kinds.count("Greater") + kinds.count("GreaterOrEqual") == 1
    assert "RMSNormalization" in kinds
