"""What a state file says of a text beside the executor's buffers and counters."""

from pathlib import Path
from typing import Literal

import msgspec

from lcc.runtime.core import state
from lcc.runtime.text.catalyst import Catalyst
from lcc.runtime.text.conversation import Conversation
from lcc.runtime.text.reading import Reader
from lcc.runtime.text.seam import Passage
from lcc.runtime.text.talking import Talk


class Notes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parts of a session that a state keeps.

    pending         ids that were generated and are not in the cache yet
    conversation    that the session is in
    catalyst        what the next cycles look for; None = the policy reads none
    """

    pending: list[int]
    conversation: Conversation | None = None
    catalyst: str | list[int] | None = None


def save_state(
    path: str | Path,
    reader: Reader,
    talk: Talk,
    catalyst: Catalyst,
    *,
    dtype: Literal["float32", "float16"] | None,
) -> None:
    """Write the executor's state and these parts to a file; see `Session.save`."""
    executor = reader.executor
    notes = Notes(
        pending=reader.pending,
        conversation=talk.conversation,
        catalyst=catalyst.value if executor.reads_catalyst else None,
    )
    state.save(path, executor, notes, dtype)


def load_state(path: str | Path, reader: Reader, talk: Talk, catalyst: Catalyst) -> None:
    """Bring the executor and these parts to a saved state; see `Session.load`."""
    notes = state.load(path, reader.executor, Notes)
    reader.epoch += 1
    reader.pending, talk.conversation = notes.pending, notes.conversation
    reader.passage = Passage("", 0)
    if notes.catalyst is not None:
        catalyst.set(notes.catalyst)
