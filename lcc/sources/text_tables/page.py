"""Pages of `tokenizer.json`, field by field: what nobody reads is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcc.sources.text_tables.unfit import Unfit

_REQUIRED = object()


class Page:
    """A JSON object whose every field must be taken, or be known to mean nothing."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise Unfit(f"{where} is {type(value).__name__}, wanted an object")
        self._left, self.where = dict(value), where

    def take(self, name: str, kind: Any, default: Any = _REQUIRED) -> Any:
        """A field of a type (or tuple of types); a default where it is absent."""
        value = self._left.pop(name, default)
        if value is _REQUIRED:
            raise Unfit(f"{self.where} has no field {name}")
        if not isinstance(value, kind) and value is not default:
            raise Unfit(f"{self.where}: {name} is {value!r}")
        return value

    def skip(self, *names: str) -> None:
        """Fields that change no ids."""
        for name in names:
            self._left.pop(name, None)

    def need(self, name: str, *allowed: Any) -> None:
        """A field that must have one of a few values."""
        value = self._left.pop(name, allowed[0])
        if not any(value is each or value == each for each in allowed):
            raise Unfit(f"{self.where}: {name} is {value!r}, which the tables have no place for")

    def done(self) -> None:
        """Refuse what was not taken."""
        if self._left:
            raise Unfit(f"{self.where}: unknown field {sorted(self._left)[0]}")
