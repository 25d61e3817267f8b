"""Where the time of one prefill chunk and of one decode step goes, against what the machine can do.

python docs/measure/profile_programs.py model.lcc [--used 1536] [--chunk 256] [--threads 2]

Two passes: the times come from plain runs, the shares of the operators from profiled ones.
"""

import argparse
import collections
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from lcc.artifact.manifest import Manifest, read_manifest
from lcc.config import HEAD_ROWS
from lcc.ir.roles import Role

OURS = {
    "MatMul": "matrix products",  # of `int4`, those of sums and offsets
    "MatMulNBits": "products in few bits",
    "MatMulIntegerToFloat": "products in few bits",
    "Add": "additions",
    "GroupQueryAttention": "attention",
    "LinearAttention": "recurrences",
    "CausalConvWithState": "short convolutions",
}


def session(path: Path, threads: int, profile: str | None = None) -> onnxruntime.InferenceSession:
    """A session like the runtime's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_mem_pattern = threads, False
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def step(
    loaded: onnxruntime.InferenceSession, manifest: Manifest, used: int, count: int
) -> Callable[[], None]:
    """One call of the step: `count` tokens behind `used` entries, the cache in place."""
    binding, shared = loaded.io_binding(), []
    buffers = {each.name: each for each in manifest.buffers}
    slots = {group.used: group.slots for group in manifest.groups}
    for tensor in manifest.programs["prefill_chunk"].inputs:
        if tensor.role in (Role.KEY, Role.VALUE, Role.TOKEN_POSITION, Role.STATE):
            sizes = buffers[tensor.name].shape
            shape = [manifest.constants[s] if isinstance(s, str) else s for s in sizes]
            value = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, tensor.dtype))
            binding.bind_ortvalue_input(tensor.name, value)
            if tensor.role != Role.TOKEN_POSITION:
                binding.bind_ortvalue_output(f"{tensor.name}_out", value)
            shared.append(value)
        elif tensor.role in (Role.TOKENS, Role.POSITIONS):
            of_text = min(1000, manifest.model.vocab_size - count)
            first = of_text if tensor.role == Role.TOKENS else used
            binding.bind_cpu_input(tensor.name, np.arange(first, first + count)[None])
        elif tensor.role == Role.ROWS:
            binding.bind_cpu_input(tensor.name, np.array([count - 1]))
        else:
            room = slots.get(tensor.name, "capacity")
            room = manifest.constants[room] if isinstance(room, str) else room
            filled = min(used, room - manifest.cache.chunk_size)
            binding.bind_cpu_input(tensor.name, np.array([filled], tensor.dtype))
    hidden = np.zeros((1, count, manifest.model.hidden_size), np.float32)
    binding.bind_output("hidden", "cpu", 0, np.float32, hidden.shape, hidden.ctypes.data)

    def run() -> None:
        assert shared is not None
        assert hidden is not None  # both must outlive the binding
        loaded.run_with_iobinding(binding)

    return run


def head(loaded: onnxruntime.InferenceSession, manifest: Manifest, rows: int) -> Callable[[], None]:
    """Negative log likelihood of `rows` tokens, or the logits of one."""
    feeds = {
        "hidden": np.ones((rows, manifest.model.hidden_size), np.float32),
        "next_tokens": np.zeros(rows, np.int64),
    }
    return lambda: loaded.run(["nll" if rows > 1 else "logits"], feeds)


def median_ms(run: Callable[[], object], times: int = 15) -> float:
    """The median of some runs after two that do not count."""
    seconds = []
    for _ in range(times + 2):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(seconds[2:])


def shares(loaded: onnxruntime.InferenceSession, run: Callable[[], None], runs: int) -> str:
    """How many operators there are, and the share of every kind in the time of all of them."""
    for _ in range(runs):
        run()
    spent: collections.Counter[str] = collections.Counter()
    count = 0
    for event in json.loads(Path(loaded.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            spent[OURS.get(event["args"]["op_name"], "the rest")] += event["dur"]
            count += 1
    parts = [f"{name} {took / spent.total():.1%}" for name, took in spent.most_common()]
    return f"{count // runs} operators: {', '.join(parts)}"


def main() -> None:
    """Print it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--used", type=int, default=1536)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    manifest = read_manifest(options.artifact)
    files = {name: options.artifact / manifest.programs[name].file for name in ("decode", "head")}
    torch.set_num_threads(options.threads)
    a, b, long = torch.rand(256, 576), torch.rand(576, 1536), torch.rand(64 << 20)
    gemm = 2e-6 * 256 * 576 * 1536 / median_ms(lambda: a @ b, 200)
    read = 4e-6 * long.numel() / median_ms(long.sum)
    print(
        f"this machine, {options.threads} threads: sgemm {gemm:.0f} GFLOP/s, read {read:.0f} GB/s"
    )
    loaded = session(files["decode"], options.threads)
    with tempfile.TemporaryDirectory() as folder:
        for count in (options.chunk, 1):
            taken = median_ms(step(loaded, manifest, options.used, count))
            traced = session(files["decode"], options.threads, f"{folder}/{count}")
            runs = 5 if count > 1 else 40
            parts = shares(traced, step(traced, manifest, options.used, count), runs)
            print(f"{count} tokens behind {options.used}: {taken:.1f} ms; {parts}")
    of_head = session(files["head"], options.threads)
    chunks = options.chunk / HEAD_ROWS
    taken = chunks * median_ms(head(of_head, manifest, HEAD_ROWS))
    print(f"negative log likelihood of {options.chunk} tokens: {taken:.1f} ms")
    print(f"logits of one token: {median_ms(head(of_head, manifest, 1)):.1f} ms")


if __name__ == "__main__":
    main()
