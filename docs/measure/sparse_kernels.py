"""One sparse layer: the kernels of tvm:cpu against ONNX Runtime's best forms of the same layer.

python docs/measure/sparse_kernels.py [--tokens 4096 16384] [--repetitions 20] [--threads 2]

A token, then a chunk of 256, behind the tokens read, in layers of SmolLM2's shape: first tokens and
a window; every seventh block. Forms, all in float32 and with the cache in place:

    tvm         our kernel over a buffer of all tokens: what is not seen is not read
    bias        com.microsoft.GroupQueryAttention over the same buffer, -inf where nothing is seen
    sparse      com.microsoft.SparseAttention over the same buffer
    compacted   GroupQueryAttention, with a bias, over a buffer of what these queries see: lcc's own

What they give is compared first, with the operator in eager PyTorch. Then they run in turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import msgspec
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper

from lcc.artifact.cpu import best_level
from lcc.ir.plan import BlockSparse
from lcc.passes import ops  # noqa: F401 - defines lcc::
from lcc.runtime.engines.host_array import zeros
from lcc.runtime.engines.tvm_relax import _runtime, _set_threads
from lcc.targets.tvm_cpu.attention import cached_attention
from lcc.targets.tvm_cpu.attention_rows import Layer
from lcc.targets.tvm_cpu.build import describe
from lcc.targets.tvm_cpu.platforms import platform
from lcc.targets.tvm_cpu.tir import TILES

HEADS, KV_HEADS, SIZE, BLOCK, CHUNK = 9, 3, 64, 64, 256
SCALE = SIZE**-0.5
# In blocks, so that SparseAttention can say the same: the first block and the newest eight.
WINDOW = {"sink": BLOCK, "window": 8 * BLOCK, "block": BLOCK}
BLOCKS = BlockSparse(block=BLOCK, stride=7, local=8, sink=1)
TOLERANCE = 1e-5
Run = Callable[[], None]


class Step:
    """Queries and entries of a step behind `used` tokens, and a buffer that holds those.

    q [1, Q, Hq, D]; k, v [1, Q, Hkv, D]; keys, values [1, Hkv, S, D]; mask [Q, used + Q] bool
    """

    def __init__(self, kind: str, used: int, length: int) -> None:
        self.kind, self.used, self.length = kind, used, length
        draw = np.random.default_rng(used + length)

        def drawn(*shape: int) -> np.ndarray:
            array = zeros(shape)
            array[...] = draw.standard_normal(shape, np.float32)
            return array

        self.q = drawn(1, length, HEADS, SIZE)
        self.k, self.v = (drawn(1, length, KV_HEADS, SIZE) for _ in range(2))
        self.keys, self.values = (drawn(1, KV_HEADS, used + CHUNK, SIZE) for _ in range(2))
        self.places = zeros((KV_HEADS, used + CHUNK), np.int64)
        self.places[:] = np.arange(used + CHUNK)
        query, slot = np.arange(used, used + length)[:, None], np.arange(used + length)[None]
        self.mask = (slot <= query) & blocks_seen(kind, query // BLOCK, slot // BLOCK)

    def wanted(self) -> np.ndarray:
        """[1, Q, Hq, D] by the operator itself."""
        q, k, v, keys, values = (
            torch.from_numpy(each.copy())
            for each in (self.q, self.k, self.v, self.keys, self.values)
        )
        used = torch.tensor([self.used], dtype=torch.int32)
        if self.kind == "window":
            numbers = (*WINDOW.values(), SCALE, 0.0, -1)
            out = torch.ops.lcc.cached_sink_window(q, q, k, v, keys, values, used, *numbers)
        else:
            numbers = (*msgspec.structs.astuple(BLOCKS), SCALE, 0.0, -1)
            places = torch.from_numpy(self.places)
            out = torch.ops.lcc.cached_block_sparse(q, k, v, keys, values, used, places, *numbers)
        result: np.ndarray = out[0].numpy()
        return result


def blocks_seen(kind: str, query: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Whether queries of a block see a block that is not after it; both broadcast."""
    near, first = query - block < 8, block < 1
    if kind == "window":
        return near | first
    return near | first | ((block + BLOCKS.offset) % BLOCKS.stride == 0)


def tvm_kernel(kind: str) -> object:
    """Our kernel for this machine's level."""
    import tvm

    shape = (HEADS, KV_HEADS, SIZE, SCALE)
    layer = Layer(*shape, **WINDOW) if kind == "window" else Layer(*shape, blocks=BLOCKS)
    level = best_level()
    function = cached_attention(layer, TILES[level]).with_attr("global_symbol", "kernel")
    target = tvm.target.Target(describe(level, platform("cpu")))
    return tvm.compile(tvm.IRModule({"kernel": function}), target=target)["kernel"]


def with_tvm(step: Step, kernel: Callable) -> tuple[Run, np.ndarray]:
    """Run our kernel on the buffers of a step."""
    import tvm_ffi

    out = zeros(step.q.shape)
    used = zeros((1,), np.int32)
    used[0] = step.used
    caches = [step.keys.copy(), step.values.copy()]
    queries = [step.q, step.q] if step.kind == "window" else [step.q]
    more = [] if step.kind == "window" else [step.places]
    arrays = [*queries, step.k, step.v, *map(aligned, caches), used, *more, out]
    tensors = [tvm_ffi.from_dlpack(array) for array in arrays]
    return lambda: kernel(*tensors), out


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy where vectors can be loaded."""
    copy = zeros(array.shape, array.dtype)
    copy[...] = array
    return copy


def with_node(
    step: Step,
    operator: str,
    arrays: dict[str, np.ndarray],
    threads: int,
    *,
    places: tuple[str, ...],
    **attributes: object,
) -> tuple[Run, np.ndarray]:
    """Run one node of ONNX Runtime's, past and present in one buffer.

    places      the node's inputs in order, "" where there is none
    """
    out = zeros((1, step.length, HEADS * SIZE))
    kinds = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
    infos = [
        helper.make_tensor_value_info(name, kinds[str(a.dtype)], a.shape)
        for name, a in arrays.items()
    ]
    cache = arrays["past_key"].shape
    results = [helper.make_tensor_value_info("out", TensorProto.FLOAT, out.shape)]
    results += [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, cache)
        for name in ("present_key", "present_value")
    ]
    node = helper.make_node(
        operator,
        list(places),
        ["out", "present_key", "present_value"],
        domain="com.microsoft",
        num_heads=HEADS,
        kv_num_heads=KV_HEADS,
        scale=SCALE,
        **attributes,
    )
    domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([node], "layer", infos, results)
    model = helper.make_model(graph, opset_imports=domains, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    content = onnx.ModelProto.SerializeToString(model)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in arrays.items():
        assert array.flags.c_contiguous, name
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        if name.startswith("past"):
            present = name.replace("past", "present")
            binding.bind_output(present, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    binding.bind_output("out", "cpu", 0, out.dtype, out.shape, out.ctypes.data)

    def run(keep: object = arrays) -> None:  # the arrays live as long as what is bound to them
        session.run_with_iobinding(binding)

    return run, out.reshape(step.q.shape)


def flat(array: np.ndarray) -> np.ndarray:
    """[1, Q, H, D] -> [1, Q, H*D]."""
    return array.reshape(*array.shape[:2], -1)


GQA = ("query", "key", "value", "past_key", "past_value", "last", "total", "", "", "", "bias")


def with_bias(step: Step, threads: int, kept: np.ndarray | None = None) -> tuple[Run, np.ndarray]:
    """GroupQueryAttention over all tokens, or over the `kept` ones before the step, in order."""
    kept = np.arange(step.used) if kept is None else kept
    total = kept.size + step.length
    seen = step.mask[:, [*kept, *range(step.used, step.used + step.length)]]
    buffers = [zeros((1, KV_HEADS, kept.size + CHUNK, SIZE)) for _ in range(2)]
    for buffer, whole in zip(buffers, (step.keys, step.values), strict=True):
        buffer[:, :, : kept.size] = whole[:, :, kept]
    arrays = {
        "query": flat(step.q),
        "key": flat(step.k),
        "value": flat(step.v),
        "past_key": buffers[0],
        "past_value": buffers[1],
        "last": np.array([total - 1], np.int32),
        "total": np.array(total, np.int32),
        "bias": np.where(seen, 0, -np.inf).astype(np.float32, order="C")[None, None],
    }
    return with_node(step, "GroupQueryAttention", arrays, threads, places=GQA)


def with_compacted(step: Step, threads: int) -> tuple[Run, np.ndarray]:
    """The same, where the cache holds only what these queries see."""
    kept = np.flatnonzero(step.mask[:, : step.used].any(axis=0))
    return with_bias(step, threads, kept)


def with_sparse(step: Step, threads: int) -> tuple[Run, np.ndarray]:
    """SparseAttention; rows and columns of the blocks in CSR."""
    count = (step.used + CHUNK) // BLOCK
    block = np.arange(count)
    seen = (block[None] <= block[:, None]) & blocks_seen(step.kind, block[:, None], block[None])
    rows = np.concatenate([[0], seen.sum(axis=1).cumsum()])
    arrays = {
        "query": flat(step.q),
        "key": flat(step.k),
        "value": flat(step.v),
        "past_key": aligned(step.keys),
        "past_value": aligned(step.values),
        "rows": rows[None].astype(np.int32),
        "columns": np.nonzero(seen)[1][None].astype(np.int32),
        "total": np.array(step.used + step.length, np.int32),
        "lengths": np.array([step.used + step.length], np.int32),
    }
    names = tuple(arrays)
    return with_node(
        step, "SparseAttention", arrays, threads, places=names, sparse_block_size=BLOCK
    )


def main() -> None:
    """Compare, then measure in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if wrong := [count for count in options.tokens if count % BLOCK]:
        parser.error(f"--tokens {wrong}: wanted multiples of {BLOCK}")
    _set_threads(_runtime(), options.threads)
    for kind in ("window", "blocks"):
        kernel = tvm_kernel(kind)
        for tokens in options.tokens:
            for length in (1, CHUNK):
                step = Step(kind, tokens, length)
                forms = {
                    "tvm": with_tvm(step, kernel),
                    "bias": with_bias(step, options.threads),
                    "sparse": with_sparse(step, options.threads),
                    "compacted": with_compacted(step, options.threads),
                }
                report(step, forms, options.repetitions)


def report(step: Step, forms: dict[str, tuple[Run, np.ndarray]], repetitions: int) -> None:
    """One line: medians, and how they compare with the first form's."""
    wanted = step.wanted()
    for name, (run, out) in forms.items():
        run()
        error = float(np.abs(out - wanted).max())
        if not error <= TOLERANCE:
            raise SystemExit(f"{step.kind}, {name}: differs by {error:.1e}, wanted {TOLERANCE:.0e}")
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repetitions):
        for name, (run, _) in forms.items():
            begin = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: 1e3 * statistics.median(each) for name, each in seconds.items()}
    first = next(iter(medians.values()))
    seen = int(step.mask.sum(axis=1).max())
    cells = [f"{name} {ms:.3f} ms ({ms / first:.2f})" for name, ms in medians.items()]
    head = f"{step.kind}, {step.length} behind {step.used:,}, at most {seen:,} seen"
    print(f"{head}: {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
