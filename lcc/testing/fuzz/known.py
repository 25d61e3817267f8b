"""All hostile files that are known by name: what was found, and what others have found elsewhere.

`KINDS`: kind -> name -> what is changed, and whether the file must be refused. A case of another
kind than `state` and `gguf` changes an artifact.
"""

from typing import Any

from lcc.testing.fuzz.known_ggufs import GGUFS
from lcc.testing.fuzz.known_manifests import MANIFESTS
from lcc.testing.fuzz.known_programs import PROGRAMS
from lcc.testing.fuzz.known_states import RAW, STATES
from lcc.testing.fuzz.known_texts import GENERATION, TEMPLATES, TOKENIZERS
from lcc.testing.fuzz.of_sessions import StateFile

KINDS: dict[str, dict[str, tuple[Any, bool]]] = {
    "manifest": MANIFESTS,
    "program": PROGRAMS,
    "tokenizer": TOKENIZERS,
    "template": TEMPLATES,
    "generation": GENERATION,
    "state": {**STATES, **RAW},
    "gguf": GGUFS,
}


def state_bytes(name: str, data: bytes) -> bytes:
    """The state of a case."""
    if name in RAW:
        return RAW[name][0](data)
    state = StateFile(data)
    STATES[name][0](state)
    return state.bytes()
