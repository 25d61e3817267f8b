"""What a target is: it turns programs into files that an engine of the runtime can run."""

from abc import ABC, abstractmethod
from pathlib import Path

from lcc.config import KvPrecision, Precision
from lcc.ir.program import Program
from lcc.passes.programs.base import ProgramPass


class Target(ABC):
    """One compiler backend on one kind of device.

    name    what the user types
    cpu     level of `lcc.artifact.cpu.LEVELS` that what it builds needs; None = any CPU runs it
    levels  that `cpu` may be set to, the best one first
    dtype   of weights, keys and values
    note    what nobody has tried of what it builds; None = nothing
    precision   what the weights are stored in, and `precisions` that it may be set to
    kv_precisions   of keys and values in the cache, that it can run
    hands_out_every_row     its steps give the queries of all rows: see `static_shapes.py`
    archives    it can build the programs that write an archive and call back from it
    lacks   traits of a model, as `traits_of` names them, that it cannot build
    """

    name: str
    cpu: str | None = None
    levels: tuple[str, ...] = ()
    dtype: str = "float32"
    note: str | None = None
    precision: Precision = "fp32"
    precisions: tuple[Precision, ...] = ("fp32",)
    kv_precisions: tuple[KvPrecision, ...] = ("fp32",)
    hands_out_every_row: bool = False
    archives: bool = True
    lacks: tuple[str, ...] = ()

    def refusals(self, programs: list[Program]) -> list[str]:
        """Every reason why these programs cannot be built; empty = accepted."""
        return [
            f"it cannot build {trait}; onnxruntime:cpu can"
            for trait in sorted(traits_of(programs) & set(self.lacks))
        ]

    def passes(self) -> list[ProgramPass]:
        """What rewrites the programs for this target, in order."""
        return []

    @abstractmethod
    def build(self, programs: list[Program], folder: Path) -> dict[str, str]:
        """Write the programs into a folder; returns program name -> file name."""


STATES = "layers that carry a state from token to token"
EXPERTS, SINKS, BIAS = "mixtures of experts", "attention sinks", "a bias by distance (ALiBi)"
_SINKS = 10  # where lcc::cached_attention has sinks; a bias comes next


def traits_of(programs: list[Program]) -> set[str]:
    """What programs hold that not every target can build."""
    found = set()
    for node in (node for each in programs for node in each.exported.graph.nodes):
        if str(node.target) == "lcc.experts.default":
            found.add(EXPERTS)
        if str(node.target) in ("lcc.causal_conv.default", "lcc.linear_attention.default"):
            found.add(STATES)
        elif str(node.target) == "lcc.cached_attention.default":
            more = zip(node.args[_SINKS:], (SINKS, BIAS), strict=False)
            found |= {trait for value, trait in more if value is not None}
    return found
