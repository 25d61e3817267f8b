"""Programs: what a specialized model is split into, by name, shape and dtype."""

from dataclasses import dataclass, field

from torch.export import ExportedProgram

PREFILL_CHUNK, DECODE, HEAD = "prefill_chunk", "decode", "head"


@dataclass(frozen=True, kw_only=True)
class Program:
    """One entry point: a graph without hidden state, and the names of its inputs and outputs.

    names       what the runtime may call it: one graph of dynamic length serves two of them
    inputs      names of the graph's inputs, in order
    outputs     names of its outputs, in order
    updates     output -> the input whose storage it replaces
    """

    names: tuple[str, ...]
    exported: ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    updates: dict[str, str] = field(default_factory=dict)

    @property
    def file_stem(self) -> str:
        """Name of the file without its ending: `step` for prefill_chunk and decode."""
        return "step" if {PREFILL_CHUNK, DECODE} <= set(self.names) else self.names[0]
