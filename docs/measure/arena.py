"""What ONNX Runtime's arenas and threads cost.

python docs/measure/arena.py m.lcc BOOK.txt [--rounds 3]

Each variant in a process of its own, in turns: reads 4,096 tokens, writes 64. `shared` is how lcc
does it: one arena for all programs, 64 MB its first region. `kept`:
nothing goes back after loading. `one pool`: all programs share the threads of the process.
"""

import argparse
import contextlib
import itertools
import subprocess
import sys
import time

VARIANTS = ("own", "none", "shared", "small first", "as asked", "kept", "one pool")
ARENAS = {"small first": {}, "as asked": {"arena_extend_strategy": 1}}  # how they grow


def change(variant: str) -> None:
    """Make ONNX Runtime and the runtime be as the variant says."""
    import onnxruntime

    import lcc.runtime
    from lcc.runtime.engines import onnx_runtime as engine_onnxruntime

    class Options(onnxruntime.SessionOptions):
        def add_session_config_entry(self, name: str, value: str) -> None:
            if name != "session.use_env_allocators":
                super().add_session_config_entry(name, value)
            if variant == "none":
                self.enable_cpu_mem_arena = False

    class Pooled(onnxruntime.SessionOptions):
        def __init__(self) -> None:
            super().__init__()
            self.use_per_session_threads = False

        def add_session_config_entry(self, name: str, value: str) -> None:
            if name != "session.force_spinning_stop":
                super().add_session_config_entry(name, value)

    if variant in ("own", "none"):
        onnxruntime.SessionOptions = Options
    if variant == "kept":
        lcc.runtime.trim = lambda: None
        lcc.runtime.page_out = lambda folder: None
    if variant == "one pool":
        onnxruntime.set_global_thread_pool_sizes(2, 1)
        onnxruntime.SessionOptions = Pooled
    if variant in ARENAS:
        kind, memory = onnxruntime.OrtAllocatorType, onnxruntime.OrtMemType
        place = onnxruntime.OrtMemoryInfo("Cpu", kind.ORT_ARENA_ALLOCATOR, 0, memory.DEFAULT)
        config = onnxruntime.OrtArenaCfg(ARENAS[variant])
        engine_onnxruntime.arena = lambda limit: contextlib.nullcontext()
        onnxruntime.create_and_register_allocator(place, config)


def run(artifact: str, book: str, variant: str) -> None:
    """Print prefill and decode in tokens/s, and the peak in MB."""
    import lcc.runtime
    from lcc.runtime.stats import peak_rss_bytes

    change(variant)
    session = lcc.runtime.open(artifact, threads=2, verify="size")
    with open(book, encoding="utf-8") as file:
        ids = session.encode(file.read(40_000))[:4096]
    times = [time.perf_counter()]
    session.feed(ids)
    times.append(time.perf_counter())
    list(session.generate_ids(max_new_tokens=64, eos=[]))
    times.append(time.perf_counter())
    read, wrote = (b - a for a, b in itertools.pairwise(times))
    print(f"{len(ids) / read:.0f}, {64 / wrote:.1f}, {peak_rss_bytes() / 1e6:.0f}")


def main() -> None:
    """Run all variants, or the one that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact")
    parser.add_argument("book")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variant", choices=VARIANTS)
    options = parser.parse_args()
    if options.variant:
        run(options.artifact, options.book, options.variant)
        return
    for _ in range(options.rounds):
        for variant in VARIANTS:
            print(f"{variant:<9}", end=" ", flush=True)
            command = [sys.executable, __file__, options.artifact, options.book]
            subprocess.run([*command, "--variant", variant], check=True)


if __name__ == "__main__":
    main()
