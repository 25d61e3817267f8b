"""The ids that everyone reads: a text's, or drawn from a seed."""

import random
from pathlib import Path

from lcc.artifact.manifest import read_manifest
from lcc.runtime.text.library_tokenizer import LibraryTokenizer
from lcc.runtime.text.tokenizer import Tokenizer


def text_ids(artifact: Path, text: str, count: int) -> list[int]:
    """The first `count` ids of a text; it begins again where it is too short."""
    ids = Tokenizer(artifact).encode(text)
    return (ids * (count // len(ids) + 1))[:count]


def random_ids(artifact: Path, count: int, seed: int) -> list[int]:
    """`count` ids of the model's vocabulary, none of them special; same seed, same ids."""
    size = read_manifest(artifact).model.vocab_size
    special: set[int] = set()
    if (artifact / "tokenizer.json").is_file():
        backend = LibraryTokenizer.open(artifact / "tokenizer.json").backend
        special = set(backend.get_added_tokens_decoder())
        size = min(size, backend.get_vocab_size())
    allowed = [token for token in range(size) if token not in special]
    draw = random.Random(seed)
    return [draw.choice(allowed) for _ in range(count)]
