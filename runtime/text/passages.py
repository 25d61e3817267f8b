"""What a caller gives to read -> the reader, behind what was read before."""

from lcc.runtime.text.encoding import Encoder, Ids
from lcc.runtime.text.reading import Feeding, Reader
from lcc.runtime.text.seam import TOKENS


def read(
    reader: Reader,
    encoder: Encoder,
    text: str | Ids,
    what: str,
    how: Feeding,
    *,
    prefix: bool,
    plain: bool = False,
) -> int:
    """Read a text as it stands behind the text before it, or ids as they are.

    Args:
        reader: That reads it.
        encoder: Of the model.
        text: Text or ids.
        what: Name of the argument, for messages.
        how: See `Feeding`.
        prefix: Begin an empty session with the ids that begin a text.
        plain: Control tokens in the text are read as plain text.

    Raises:
        ConfigError, CacheError: as `Encoder.parts` and `Reader.feed`.
    """
    before = known_text(reader, encoder)
    if plain and isinstance(text, str):
        literals = encoder.tokenizer.literals
        text = literals.behind(before, literals.mark(text))
    if not isinstance(text, str) or not before:
        parts = encoder.parts(text, what, prefix=prefix and reader.tokens == 0)
        return reader.feed(parts, how, text=text if isinstance(text, str) else "")
    drop, parts = encoder.behind(before, text, what, reader.newest, rewindable=reader.rewindable)
    return reader.feed(parts, how, drop=drop, text=before + text)


def known_text(reader: Reader, encoder: Encoder) -> str:
    """The end of what a session holds, as text: as it was read, else as its tokens say it."""
    if not reader.tokens or not encoder.tokenizer.knows_text:
        return ""
    if reader.passage.tokens == reader.tokens and reader.passage.text:
        return reader.passage.text
    newest = reader.newest[-TOKENS:]
    return encoder.tokenizer.decode(newest, special=True) if newest else ""
