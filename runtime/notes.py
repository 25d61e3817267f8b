"""What a state file says of a text beside the executor's buffers and counters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from lcc.errors import ArtifactError
from lcc.runtime.core import state
from lcc.runtime.text.catalyst import Catalyst
from lcc.runtime.text.conversation import Conversation
from lcc.runtime.text.reading import Reader
from lcc.runtime.text.seam import Passage
from lcc.runtime.text.talking import Talk

MOST_PENDING = 1 << 16  # ids; in fact one


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


def _check_conversation(told: Conversation | None, tokens: int) -> None:
    """Places of a conversation are places of the text."""
    for name in ("turn", "end"):
        place = None if told is None else getattr(told, name)
        if place is not None and not 0 <= place <= tokens:
            raise ArtifactError(f"conversation: {name} is {place}, wanted 0 to {tokens}")
    if told is not None and told.size < 0:
        raise ArtifactError(f"conversation: size is {told.size}, wanted 0 or more")


def load_state(path: str | Path, reader: Reader, talk: Talk, catalyst: Catalyst) -> None:
    """Bring the executor and these parts to a saved state; see `Session.load`."""
    executor = reader.executor
    size = executor.manifest.model.vocab_size

    def check(notes: Notes, counters: Mapping[str, int]) -> None:
        if any(not 0 <= each < size for each in notes.pending):
            raise ArtifactError(f"pending: {notes.pending[:4]}.. are no ids of the model")
        if len(notes.pending) > MOST_PENDING:
            raise ArtifactError(f"pending: {len(notes.pending)} ids, wanted {MOST_PENDING} at most")
        _check_conversation(notes.conversation, counters["tokens"] + len(notes.pending))
        if notes.catalyst is not None:
            catalyst.encode(notes.catalyst)

    notes = state.load(path, executor, Notes, check)
    reader.epoch += 1
    reader.pending, talk.conversation = notes.pending, notes.conversation
    reader.passage = Passage("", 0)
    if notes.catalyst is not None:
        catalyst.set(notes.catalyst)
