"""Which target is fastest on this machine: where that was measured, and what it rests on."""

from dataclasses import dataclass

import msgspec

from lcc.artifact.cpu import best_level
from lcc.config import CompileConfig, Precision
from lcc.targets import missing

FASTEST, DEFAULT, OTHER = "fastest", "onnxruntime:cpu", "tvm:cpu"
# (level of CPU, precision) -> how many times as fast as DEFAULT it reads, and writes: SmolLM2,
# docs/results/tvm.md; 4,096 tokens and two threads, int4 1,024, level x86-64-v3 2,048 and one
# thread. What is not here was not measured.
MEASURED: dict[tuple[str, Precision], tuple[float, float]] = {
    ("cooperlake", "int8"): (1.7, 1.9),
    ("cooperlake", "int4"): (2.0, 1.1),
    ("cooperlake", "fp32"): (1.05, 1.3),
    ("x86-64-v3", "int8"): (1.3, 1.5),
}


@dataclass(frozen=True)
class Fastest:
    """One target, and why it is that one."""

    name: str
    why: str


def fastest(precision: Precision) -> Fastest:
    """The fastest target for this machine and these weights."""
    level = best_level()
    times = MEASURED.get((level, precision))
    if times is None:
        why = f"{OTHER} was not measured in {precision} on a CPU of level {level}"
        return Fastest(DEFAULT, f"{DEFAULT}: {why}")
    reads, writes = times
    why = f"{OTHER}: reads {reads} and writes {writes} times as fast as {DEFAULT} on CPUs like this"
    if lacks := missing(OTHER):
        return Fastest(DEFAULT, f"{DEFAULT}, because {', '.join(lacks)} is not installed ({why})")
    return Fastest(OTHER, f"{why}; its machine code runs where you allow it (--allow-native)")


def resolved(config: CompileConfig) -> tuple[CompileConfig, Fastest | None]:
    """The same with a target in place of `fastest`, and which one; None = nobody asks for it."""
    names = [config.target, *config.also]
    if FASTEST not in names:
        return config, None
    best = fastest(config.precision)
    first, *also = dict.fromkeys(best.name if name == FASTEST else name for name in names)
    return msgspec.structs.replace(config, target=first, also=tuple(also)), best
