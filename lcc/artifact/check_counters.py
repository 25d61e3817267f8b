"""Whether the counters of a saved state can be those of a session."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lcc.artifact.schedule import lists
from lcc.errors import ArtifactError

if TYPE_CHECKING:
    from lcc.artifact.manifest import Manifest

LARGEST = 1 << 53  # what every reader of JSON keeps exactly
INT32 = (1 << 31) - 1  # the largest


def check_counters(
    manifest: "Manifest", constants: Mapping[str, int], counters: Mapping[str, int]
) -> None:
    """Refuse counters that no session with these constants can have.

    Raises:
        ArtifactError: names the first one that is out of its range.
    """
    if wrong := sorted(manifest.counters.keys() ^ counters.keys()):
        raise ArtifactError(f"counters: {wrong[0]} is missing, or not of this artifact")
    ranges = [(name, -1, LARGEST) for name in counters]
    ranges += [(name, -1, INT32) for name in sorted(counters.keys() & _in_32_bits(manifest))]
    for group in manifest.groups:
        slots = group.slots if isinstance(group.slots, int) else constants[group.slots]
        ranges += [(group.used, 0, slots), (group.kept, 0, counters[group.used])]
    used, hidden = counters["used"], next(b for b in manifest.buffers if b.name == "hidden")
    states = hidden.shape[0] if isinstance(hidden.shape[0], int) else constants[hidden.shape[0]]
    ranges += [("tokens", used, LARGEST), ("state", -1, states - 1)]
    ranges += [("protected", 0, used), ("known", 0, used)]
    for name, least, most in ranges:
        if not least <= counters[name] <= most:
            raise ArtifactError(f"counters: {name} is {counters[name]}, wanted {least} to {most}")


def _in_32_bits(manifest: "Manifest") -> set[str]:
    """Counters and constants that programs take as a number of 32 bits."""
    runs = [run for _, blocks in lists(manifest.schedule) for block in blocks for run in block.do]
    return {
        what
        for run in runs
        for name in (run.run, run.one or run.run)
        for tensor in manifest.programs[name].inputs
        if tensor.dtype == "int32" and isinstance(what := run.ints.get(tensor.name), str)
    }
