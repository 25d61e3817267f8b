"""Whether the states of recurrent layers in a manifest fit what reads and copies them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lcc.artifact.schedule import BufferSpec
from lcc.errors import ArtifactError
from lcc.ir.roles import Role

if TYPE_CHECKING:
    from lcc.artifact.manifest import Manifest

DTYPE = "float32"


def check_states(manifest: "Manifest", buffers: Mapping[str, BufferSpec]) -> None:
    """Refuse states that cannot be copied, with an `ArtifactError`."""
    marks = manifest.schedule.marks
    states = {name: spec for name, spec in buffers.items() if spec.role == Role.STATE}
    for name, spec in states.items():
        if spec.dtype != DTYPE or any(isinstance(size, str) for size in spec.shape):
            raise ArtifactError(
                f"buffers: {name} is {spec.dtype} {list(spec.shape)}, wanted a state of {DTYPE} "
                "and of numbers"
            )
    if states and manifest.constants.get("snapshots", 0) < 1:
        raise ArtifactError("constants: wanted snapshots of 1 or more, for there are states")
    if not marks:
        return
    for name in (state for pair in marks for state in pair):
        if name not in states:
            raise ArtifactError(f"schedule: marks: no buffer {name} of role {Role.STATE}")
    for state, mark in marks:
        if states[state].shape != states[mark].shape:
            raise ArtifactError(f"schedule: marks: {mark} has another shape than {state}")
    own = {state for state, _ in marks}
    if own & {mark for _, mark in marks} or len({*own, *dict(marks).values()}) != len(states):
        raise ArtifactError("schedule: marks: wanted one mark of its own for each state")
    if "marked" not in manifest.counters or manifest.constants.get("newest", 0) < 1:
        raise ArtifactError("schedule: marks: wanted a counter marked, and a constant newest")
