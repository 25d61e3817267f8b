"""Text to ids and back by the native library: the artifact's own tables, mapped, not parsed.

Several MB of vocabulary are read where they lie in `text.bin`, and text of any length flows through
(`lcc.h`, "Tokenizers").
"""

import ctypes
import functools
import os
import weakref
from collections.abc import Iterator, Mapping
from ctypes import POINTER, byref, c_char_p, c_int32, c_size_t, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

from lcc.errors import ArtifactError, ConfigError, LccError

PART = 1 << 16  # characters that are encoded at once
MARKED, DONE, ARTIFACT, MEMORY = 2, 100, 3, 6  # of lcc.h
FUNCTIONS: dict[str, tuple[type, ...]] = {
    "lcc_tokenizer_open": (c_char_p, POINTER(c_void_p)),
    "lcc_tokenizer_added": (
        *(c_void_p, c_size_t, POINTER(c_int32)),
        *(POINTER(c_void_p), POINTER(c_size_t), POINTER(c_int32)),
    ),
    "lcc_tokenizer_decode": (
        *(c_void_p, POINTER(c_int32), c_size_t, c_int32),
        *(c_char_p, c_size_t, POINTER(c_size_t)),
    ),
    "lcc_encoder_open": (c_void_p, c_int32, POINTER(c_void_p)),
    "lcc_encoder_feed": (
        *(c_void_p, c_char_p, c_size_t),
        *(POINTER(POINTER(c_int32)), POINTER(c_size_t)),
    ),
    "lcc_encoder_finish": (c_void_p, POINTER(POINTER(c_int32)), POINTER(c_size_t)),
}
CLOSES = ("lcc_tokenizer_close", "lcc_encoder_close")


class Token(NamedTuple):
    """A token that was added to the vocabulary; `special`: it is never shown."""

    content: str
    special: bool


class NativeTokenizer:
    """The tables of an artifact, as the native library reads them. Safe from many threads.

    prefix      ids that begin a text, as the manifest says
    """

    def __init__(self, library: Path, tables: Path, prefix: list[int]) -> None:
        """Map `text.bin`.

        Raises:
            ArtifactError: the tables are damaged.
            ConfigError: the library cannot be loaded, or is older than this lcc.
        """
        self._library, self.prefix = _loaded(library), prefix
        handle = c_void_p()
        self._call("lcc_tokenizer_open", os.fsencode(tables), byref(handle))
        self._handle = handle
        weakref.finalize(self, self._library.lcc_tokenizer_close, handle)
        self._added = dict(self._all_added())

    def _call(self, name: str, *arguments: Any) -> int:
        status: int = getattr(self._library, name)(*arguments)
        if status in (0, DONE):
            return status
        message = self._library.lcc_error_message().decode("utf-8", "replace")
        if status == MEMORY:
            raise MemoryError(message)
        raise (ArtifactError if status == ARTIFACT else LccError)(message)

    def _all_added(self) -> Iterator[tuple[int, Token]]:
        token, text, size, special = c_int32(), c_void_p(), c_size_t(), c_int32()
        found = byref(token), byref(text), byref(size), byref(special)
        number = 0
        while self._call("lcc_tokenizer_added", self._handle, number, *found) != DONE:
            content = ctypes.string_at(text.value or 0, size.value) if size.value else b""
            yield token.value, Token(content.decode("utf-8", "replace"), bool(special.value))
            number += 1

    def added(self) -> Mapping[int, Token]:
        """Tokens that were added to the vocabulary, by id."""
        return self._added

    def decode(self, ids: list[int], *, special: bool) -> str:
        """The text of ids; `special`: special tokens are spelled out."""
        array, size, room = (c_int32 * len(ids))(*ids), c_size_t(), 16 * len(ids) + 64
        while True:
            text = ctypes.create_string_buffer(room)
            given = self._handle, array, len(ids), special, text, room, byref(size)
            self._call("lcc_tokenizer_decode", *given)
            if size.value <= room:
                return text.raw[: size.value].decode()
            room = size.value

    def parts(self, text: str) -> Iterator[tuple[list[int], int]]:
        """Ids of consecutive parts of a text, each with the number of characters read so far.

        Lone surrogates become question marks.
        """
        encoder, ids, count = c_void_p(), POINTER(c_int32)(), c_size_t()
        found = byref(ids), byref(count)
        self._call("lcc_encoder_open", self._handle, MARKED, byref(encoder))
        try:
            for start in range(0, max(len(text), 1), PART):
                part = text[start : start + PART]
                data = part.encode("utf-8", "replace")
                self._call("lcc_encoder_feed", encoder, data, len(data), *found)
                certain = ids[: count.value]
                if last := start + PART >= len(text):
                    self._call("lcc_encoder_finish", encoder, *found)
                    certain += ids[: count.value]
                if certain or last:
                    yield certain, start + len(part)
        finally:
            self._library.lcc_encoder_close(encoder)


@functools.cache
def _loaded(path: Path) -> ctypes.CDLL:
    """The library with the types of its functions, loaded once."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error}; build it anew: python dev.py native") from None
    functions = {**FUNCTIONS, **dict.fromkeys(CLOSES, (c_void_p,)), "lcc_error_message": ()}
    results = {**dict.fromkeys(FUNCTIONS, c_int32), "lcc_error_message": c_char_p}
    for name, types in functions.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise ConfigError(
                f"{path}: is of an older lcc, it has no {name}; build it anew: python dev.py native"
            ) from None
        function.argtypes, function.restype = types, results.get(name)
    return library
