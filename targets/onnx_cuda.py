"""Programs -> ONNX files for ONNX Runtime on an NVIDIA GPU: half precision, cache on the device.

What the `lcc::` operators become is as for `onnxruntime:cpu`: GroupQueryAttention has a kernel for
CUDA in float16, with a bias since ONNX Runtime 1.31. How it is run: `cuda_provider.py`.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from lcc.ir.program import Program
from lcc.passes.programs.half_precision import half
from lcc.targets.onnx_runtime import OnnxRuntime

_KEPT = {"kept_key": "key", "kept_value": "value"}


class OnnxCuda(OnnxRuntime):
    """Target `onnxruntime:cuda`: the programs of `onnxruntime:cpu` in half precision.

    Sizes stay symbolic, as they are there. An eviction gives a whole layer of the cache, which
    takes the place of the layer that it was made from: nothing of the cache passes through the
    host. It is compiled without a GPU, and runs on none but one: or on the CPU, if told to.
    """

    name = "onnxruntime:cuda"
    dtype = "float16"
    precisions = ("fp32",)
    kv_precisions = ("fp32",)
    note = "in half precision; run on a CPU, never on a GPU"

    def cast(self, programs: list[Program]) -> list[Program]:
        """Weights, keys and values in half precision, and evictions that give whole layers."""
        halves = [half(program) for program in programs]
        return [_with_layers(each) if "kept_key" in each.outputs else each for each in halves]


class _WithLayers(nn.Module):
    """An eviction whose kept entries are the first ones of a layer; the rest means nothing.

    before  kept_key    [1, Hkv, budget, D]     and kept_value
    after   key_out     [1, Hkv, slots, D]      and value_out
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.body = program.exported.module(check_guards=False)
        self.inputs, self.outputs = program.inputs, program.outputs

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.inputs, inputs, strict=True))
        results = []
        for name, result in zip(self.outputs, self.body(*inputs), strict=True):
            if name in _KEPT:
                old = given[_KEPT[name]]
                result = torch.cat((result, old[:, :, result.shape[2] :]), dim=2)
            results.append(result)
        return tuple(results)


def _with_layers(program: Program) -> Program:
    """An eviction that writes a layer, of the same precision as it reads."""
    inputs = program.exported.example_inputs[0]
    nodes = program.exported.graph.find_nodes(op="placeholder")[-len(program.inputs) :]
    sizes = tuple(
        {
            axis: torch.export.Dim.DYNAMIC
            for axis, size in enumerate(node.meta["val"].shape)
            if not isinstance(size, int)
        }
        for node in nodes
    )
    with torch.no_grad():
        exported = torch.export.export(_WithLayers(program), inputs, dynamic_shapes=(sizes,))
    names = tuple(f"{_KEPT[name]}_out" if name in _KEPT else name for name in program.outputs)
    return replace(program, exported=exported, outputs=names)
