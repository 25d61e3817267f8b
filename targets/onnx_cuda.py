"""Programs -> ONNX files for ONNX Runtime on an NVIDIA GPU: half precision, cache on the device.

What the `lcc::` operators become is as for `onnxruntime:cpu`: GroupQueryAttention has a kernel for
CUDA in float16, with a bias since ONNX Runtime 1.31. How it is run: `cuda_provider.py`.
"""

from lcc.passes.programs.base import ProgramPass
from lcc.passes.programs.half_precision import HalfPrecision
from lcc.targets.base import BIAS, EXPERTS, STATES
from lcc.targets.onnx_runtime import OnnxRuntime


class OnnxCuda(OnnxRuntime):
    """Target `onnxruntime:cuda`: the programs of `onnxruntime:cpu` in half precision.

    Sizes stay symbolic, as they are there. An eviction gives a whole layer of the cache, which
    takes the place of the layer that it was made from: nothing of the cache passes through the
    host. It is compiled without a GPU, and runs on none but one: or on the CPU, if told to.
    """

    name = "onnxruntime:cuda"
    archives = False  # nobody has tried it on a GPU
    dtype = "float16"
    precisions = ("fp32",)
    kv_precisions = ("fp32",)
    lacks = (EXPERTS, BIAS, STATES)
    note = "in half precision; run on a CPU, never on a GPU"

    def passes(self) -> list[ProgramPass]:
        """Weights, keys and values in half precision."""
        return [HalfPrecision()]
