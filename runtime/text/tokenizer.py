"""Text to token ids and back, a piece at a time, so that a book takes no more memory than a page.

The artifact's tables are read by the native library where that is installed, `tokenizer.json` by
the tokenizers library where not. Both give the same ids and the same text.
"""

import functools
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from lcc.artifact.schedule import TextFacts
from lcc.errors import ArtifactError, ConfigError
from lcc.runtime.library import native_library
from lcc.runtime.text.library_tokenizer import LibraryTokenizer
from lcc.runtime.text.literal import Added, Literals
from lcc.runtime.text.native_tokenizer import NativeTokenizer


class Codec(Protocol):
    """Text to ids and back.

    prefix      ids that begin a text, e.g. the beginning-of-sequence token
    """

    prefix: list[int]

    def added(self) -> Mapping[int, Added]:
        """Tokens that were added to the vocabulary, by id."""

    def decode(self, ids: list[int], *, special: bool) -> str:
        """The text of ids; `special`: special tokens are spelled out."""

    def parts(self, text: str) -> Iterator[tuple[list[int], int]]:
        """Ids of consecutive parts of a text, each with the number of characters read so far."""


class Tokenizer:
    """The model's own tokenizer, from the files of the artifact.

    Of a model that was compiled without one it knows nothing: ids go in and out.
    """

    def __init__(
        self,
        folder: str | Path,
        files: Collection[str] | None = None,
        facts: TextFacts | None = None,
    ) -> None:
        """Open the tables or tokenizer.json, and the files that say more, if there.

        files       names of the artifact's files: another one is not opened; None = any
        facts       of the manifest; None = not known, and the tables are not used
        """
        self._folder, self._files = Path(folder), files
        self._codec = self._open(facts)
        self.config = self._json("tokenizer_config.json")
        template = self.path("chat_template.jinja")
        self._template = None if template is None else _text(template)
        self.generation_config = self._json("generation_config.json")
        self.prefix = [] if self._codec is None else self._codec.prefix
        added = {} if self._codec is None else self._codec.added()
        # Of control tokens, which are never shown.
        self.special_ids = frozenset(i for i, token in added.items() if token.special)

    def _open(self, facts: TextFacts | None) -> Codec | None:
        tables, library = self.path("text.bin"), None if facts is None else native_library()
        if tables is not None and facts is not None and library is not None:
            return NativeTokenizer(library, tables, list(facts.prefix))
        page = self.path("tokenizer.json")
        return None if page is None else LibraryTokenizer.open(page)

    @property
    def knows_text(self) -> bool:
        """Whether there is a tokenizer at all."""
        return self._codec is not None

    @property
    def codec(self) -> Codec:
        """What turns text into ids and back.

        Raises:
            ConfigError: there is none.
        """
        if self._codec is None:
            raise ConfigError(
                f"{self._folder}: the model has no tokenizer; give token ids in place of text, and "
                "take them from generate_ids()"
            )
        return self._codec

    @functools.cached_property
    def literals(self) -> Literals:
        """How control tokens in the text of others are read as plain text."""
        templates = self.chat_template or ""
        source = templates if isinstance(templates, str) else "\0".join(templates.values())
        return Literals(self.codec.added().values(), source)

    def check_text(self) -> None:
        """Refuse text, asked for or given, where there is no tokenizer.

        Raises:
            ConfigError: says what to do in place of it.
        """
        _ = self.codec

    def path(self, name: str) -> Path | None:
        """Where a file of the artifact is; None = it has none of that name."""
        path = self._folder / name
        return path if path.is_file() and (self._files is None or name in self._files) else None

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path(name)
        if path is None:
            return {}
        try:
            page = json.loads(_text(path))
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"{path}: {error}") from None
        if not isinstance(page, dict):
            raise ArtifactError(f"{path}: wanted a JSON object")
        return page

    @property
    def chat_template(self) -> str | dict[str, str] | None:
        """Of chat_template.jinja, else of tokenizer_config.json: one, several by name, or None."""
        source = self._template or self.config.get("chat_template")
        if isinstance(source, list):
            pages = [each for each in source if isinstance(each, dict)]
            return {str(each.get("name")): str(each.get("template")) for each in pages}
        return source if isinstance(source, str) else None

    @property
    def special_tokens(self) -> dict[str, str]:
        """Every special token of tokenizer_config.json as text: bos_token, eos_token, ..."""
        names = [name for name in self.config if name.endswith("_token")]
        return {name: text for name in names if (text := self.special(name)) is not None}

    def special(self, name: str) -> str | None:
        """A special token of tokenizer_config.json as text: bos_token, eos_token, ..."""
        value = self.config.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        return value if isinstance(value, str) else None

    def encode(self, text: str, *, prefix: bool = False) -> list[int]:
        """All ids of a text; `prefix`: with the special tokens that begin one."""
        ids = list(self.prefix) if prefix else []
        for part, _ in self.parts(text):
            ids += part
        return ids

    def decode(self, ids: list[int], *, special: bool = False) -> str:
        """The text of ids; `special`: special tokens are spelled out."""
        return self.codec.decode(ids, special=special)

    def parts(self, text: str, *, skip: int = 0) -> Iterator[tuple[list[int], int]]:
        """Ids of consecutive parts of a text, each with the number of characters read so far.

        The first `skip` tokens are left out.
        """
        if not isinstance(text, str):
            raise ConfigError(f"text is {type(text).__name__}, wanted str or a list of token ids")
        for ids, end in self.codec.parts(text):
            yield ids[skip:], end
            skip = max(skip - len(ids), 0)


def _text(path: Path) -> str:
    """A file's text; ArtifactError where it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise ArtifactError(f"{path}: not UTF-8: {error}") from None
