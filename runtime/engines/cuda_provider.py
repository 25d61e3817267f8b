"""ONNX Runtime on an NVIDIA GPU: its options, and whether a program really runs there.

ONNX Runtime falls back to the CPU without a word: where a library of CUDA is missing, with the
whole program; where an operator has no kernel, with a part of it. Neither may pass for the GPU.
"""

from typing import Any

NAME = "CUDAExecutionProvider"

OPTIONS = {
    # The first one; CUDA_VISIBLE_DEVICES says which that is.
    "device_id": "0",
    # Each program's memory grows by what it asks for; otherwise it doubles, and is never given
    # back. There is no gpu_mem_limit: the memory table knows no kernel's workspace, and a limit
    # that is too low by it would end a text in the middle.
    "arena_extend_strategy": "kSameAsRequested",
    # Products in float32 are those of scores, which are compared: not to be cut to 10 bits.
    "use_tf32": "0",
}
# `session.disable_cpu_ep_fallback` would refuse every program that computes with sizes, which ONNX
# Runtime puts on the CPU on purpose. So the places of all nodes are recorded, and looked at.
RECORD = "session.record_ep_graph_assignment_info"

# Operators that read weights, entries of the cache or all of a chunk, and hardly anything else.
# Those that work on sizes, too (Gather, Concat, Slice), may run on the CPU: they look the same.
LARGE = {
    *("MatMul", "Gemm", "FusedMatMul", "GroupQueryAttention", "RotaryEmbedding", "Softmax"),
    *("LogSoftmax", "RMSNormalization", "SimplifiedLayerNormalization", "LayerNormalization"),
    *("SkipSimplifiedLayerNormalization", "SkipLayerNormalization", "Sigmoid", "QuickGelu"),
    *("Gelu", "FastGelu", "BiasGelu", "TopK", "CumSum", "MaxPool", "AveragePool"),
    *("GatherElements", "GatherND", "ScatterND"),
}


def misplaced(session: Any) -> list[str]:
    """Operators of `LARGE` that a session, made with `RECORD`, runs somewhere else."""
    return sorted(
        {
            node.op_type
            for part in session.get_provider_graph_assignment_info()
            if part.ep_name != NAME
            for node in part.get_nodes()
            if node.op_type in LARGE
        }
    )
