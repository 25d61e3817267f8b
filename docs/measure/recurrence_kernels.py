"""Kernels of linear_attention: ONNX Runtime's and those of tvm:cpu, of shapes that models have.

TVM_NUM_THREADS=1 python docs/measure/recurrence_kernels.py [--tokens 256] [--rounds 5]

One thread, float32, the state where it lies; both in turn, the least time of all rounds.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import Tensor, nn

from lcc.ir.program import Input, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.targets.onnx_runtime import to_onnx
from lcc.targets.tvm_cpu.build import describe
from lcc.targets.tvm_cpu.linear_attention import linear_attention
from lcc.targets.tvm_cpu.linear_attention_parts import Recurrence
from lcc.targets.tvm_cpu.platforms import platform
from lcc.targets.tvm_cpu.tir import TILES
from lcc.testing.tvm_kernels import BEST

# heads, groups of keys, K, V; whether a decay is a channel's; whether there is a beta
SHAPES = {
    "gated delta rule, Qwen3.5-0.8B": (16, 16, 128, 128, False, True),
    "Kimi delta attention": (16, 16, 128, 128, True, True),
    "Mamba 2, Granite-4.0-H-350M": (48, 1, 128, 32, False, False),
    "lightning attention": (16, 16, 128, 128, False, False),
    "RG-LRU, 2,560 channels": (2560, 1, 1, 1, False, False),
}


class Attend(nn.Module):
    """The operator with q, k, v, decay, perhaps beta, and the state, in this order."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        q, k, v, decay, *beta, state = inputs
        return torch.ops.lcc.linear_attention(q, k, v, decay, beta[0] if beta else None, state, 1.0)


def inputs_of(shape: tuple, tokens: int) -> dict[str, np.ndarray]:
    """Numbers as models have them."""
    heads, groups, keys, values, of_channel, has_beta = shape
    draw = np.random.default_rng(0)
    made = {
        "q": draw.standard_normal((1, tokens, groups, keys)),
        "k": draw.standard_normal((1, tokens, groups, keys)) / keys**0.5,
        "v": draw.standard_normal((1, tokens, heads, values)),
        "decay": -draw.random((1, tokens, heads, keys if of_channel else 1)),
    }
    if has_beta:
        made["beta"] = draw.random((1, tokens, heads))
    made["state"] = np.zeros((1, heads, keys, values))
    return {name: each.astype(np.float32) for name, each in made.items()}


def by_onnx_runtime(given: dict[str, np.ndarray]) -> Callable[[], None]:
    """What runs the program once."""
    inputs = [Input(Port(name, Role.HIDDEN), torch.from_numpy(a)) for name, a in given.items()]
    outputs = [Port("out", Role.HIDDEN), Port("state_out", Role.STATE)]
    program = export(Attend(), ("step",), inputs, outputs, {"state_out": "state"})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = ir.to_proto(to_onnx(program)).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    binding, state, out = session.io_binding(), given["state"].copy(), np.zeros_like(given["v"])
    for name, array in (given | {"state": state}).items():
        binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    for name, array in (("out", out), ("state_out", state)):
        binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    held = (given, state, out)
    return lambda: held and session.run_with_iobinding(binding)


def by_tvm(given: dict[str, np.ndarray], shape: tuple) -> Callable[[], None]:
    """The same with the kernel of tvm:cpu."""
    import tvm

    heads, groups, keys, values, of_channel, has_beta = shape
    layer = Recurrence(
        heads, groups, keys, values, 1.0, "channel" if of_channel else "head", has_beta
    )
    function = linear_attention(layer, TILES[BEST]).with_attr("global_symbol", "kernel")
    target = tvm.target.Target(describe(BEST, platform("cpu")))
    kernel = tvm.compile(tvm.IRModule({"kernel": function}), target=target)["kernel"]
    tensors = [tvm.runtime.tensor(each) for each in (*given.values(), np.zeros_like(given["v"]))]
    return lambda: kernel(*tensors)


def main() -> None:
    """See the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for name, shape in SHAPES.items():
        least: dict[tuple[str, int], float] = {}
        for tokens in (1, args.tokens):
            given = inputs_of(shape, tokens)
            calls = {"onnxruntime": by_onnx_runtime(given), "tvm": by_tvm(given, shape)}
            for _ in range(args.rounds):
                for engine, call in calls.items():
                    begin = time.perf_counter()
                    call()
                    seconds = time.perf_counter() - begin
                    least[engine, tokens] = min(seconds, least.get((engine, tokens), 1e9))
        cells = [f"{engine} {n}: {s * 1e3:.3f} ms" for (engine, n), s in least.items()]
        print(f"{name:32} {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
