"""What a caller gives, text or token ids, as checked ids in parts."""

from collections.abc import Iterator, Sequence

import numpy as np

from lcc.artifact.manifest import Manifest
from lcc.errors import ConfigError
from lcc.runtime.text.feeding import Part
from lcc.runtime.text.seam import following
from lcc.runtime.text.tokenizer import Tokenizer

Ids = Sequence[int] | np.ndarray
PART = 4096  # ids in one part


class Encoder:
    """Text to ids and back, for one model: no id outside its vocabulary passes.

    tokenizer   of the model
    vocab_size  ids are 0 .. vocab_size-1
    ends        ids that end an answer
    stops       strings that end an answer
    """

    def __init__(self, tokenizer: Tokenizer, manifest: Manifest) -> None:
        self.tokenizer, self.vocab_size = tokenizer, manifest.model.vocab_size
        self.ends, self.stops = frozenset(manifest.text.ends), manifest.text.stops
        self._prefix = list(manifest.text.prefix)

    def parts(self, text: str | Ids, what: str, *, prefix: bool = False) -> Iterator[Part]:
        """The ids of a text, in parts that are tokenized when they are asked for.

        Args:
            text: Text, or token ids [n] of any integer type, which are passed on as they are.
            what: Name of the argument, for messages.
            prefix: Begin a text with the ids that begin one; token ids are never changed.

        Raises:
            ConfigError: at once, the text is empty or is neither text nor ids of the vocabulary;
                from the iterator, a token that the model does not know.
        """
        if isinstance(text, str):
            if not text:
                raise ConfigError(f"{what} is empty; give it at least one token")
            return self._text_parts(text, what, prefix)
        try:
            ids = np.asarray(text)
        except ValueError:  # lists of several lengths
            ids = np.asarray(None)
        if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
            raise ConfigError(f"{what} is {type(text).__name__}, wanted str or a list of token ids")
        if not ids.size:
            raise ConfigError(f"{what} is empty; give it at least one token")
        for place in np.flatnonzero((ids < 0) | (ids >= self.vocab_size)):
            most = self.vocab_size - 1
            raise ConfigError(f"{what}: token {place} is {ids[place]}, wanted 0 to {most}")
        starts = range(0, len(ids), PART)
        return ((ids[i : i + PART].tolist(), min((i + PART) / len(ids), 1.0)) for i in starts)

    def behind(
        self, before: str, text: str, what: str, held: Sequence[int], *, rewindable: int
    ) -> tuple[int, Iterator[Part]]:
        """Tokens to take back, and the ids of a text that follows another one, see `following`.

        Raises:
            ConfigError: at once, the text is empty; from the iterator, a token that the model does
                not know.
        """
        if not text:
            raise ConfigError(f"{what} is empty; give it at least one token")
        found = following(self.tokenizer, before, text, held, rewindable=rewindable)
        return found.drop, self._checked(found.parts, text, what)

    def _text_parts(self, text: str, what: str, prefix: bool) -> Iterator[Part]:
        if prefix:
            yield self._prefix, 0.0
        yield from self._checked(self.tokenizer.parts(text), text, what)

    def _checked(
        self, parts: Iterator[tuple[list[int], int]], text: str, what: str
    ) -> Iterator[Part]:
        for ids, characters in parts:
            if (largest := max(ids, default=0)) >= self.vocab_size:
                token, most = self.tokenizer.decode([largest], special=True), self.vocab_size - 1
                raise ConfigError(
                    f"{what}: {token!r} is token {largest}, the model knows 0 to {most}; "
                    "compile it with its own tokenizer, or leave that out of the text"
                )
            yield ids, characters / len(text)

    def all_ids(self, text: str | Ids, what: str) -> list[int]:
        """All ids of a text in one list; raises as `parts`."""
        return [token for part, _ in self.parts(text, what) for token in part]

    def decode(self, ids: Ids) -> str:
        """The text of token ids [n], without special tokens.

        Raises:
            ConfigError: one of them is outside the vocabulary.
        """
        if unknown := [token for token in ids if not 0 <= token < self.vocab_size]:
            raise ConfigError(f"ids: {unknown[0]} is no token, wanted 0 to {self.vocab_size - 1}")
        return self.tokenizer.decode([int(token) for token in ids])
