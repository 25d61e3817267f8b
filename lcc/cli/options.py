"""A `--config` file and the flags over it -> one checked `CompileConfig`."""

import difflib
import re
from pathlib import Path
from typing import Any

import msgspec

from lcc import env
from lcc.config import CompileConfig
from lcc.errors import ConfigError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def parse_bytes(text: str) -> int:
    """Read a size: `512MB` is 512,000,000 bytes, `512MiB` is 536,870,912."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?)?B?\s*", text.upper())
    if match is None:
        raise ConfigError(f"{text!r} is not a size; wanted a number with a unit, such as 512MB")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def merge(file: Path | None, flags: dict[str, dict[str, Any] | Any]) -> CompileConfig:
    """Build the configuration: lcc's defaults, then the file, then the flags that were given.

    Args:
        file: YAML with the fields of `CompileConfig`; None = no file.
        flags: the same fields; a value of None = not given.
    """
    given = _read(file) if file else {}
    _check_keys(given, CompileConfig, where=str(file))
    for name, value in flags.items():
        if isinstance(value, dict):
            section = {key: each for key, each in value.items() if each is not None}
            given[name] = {**(given.get(name) or {}), **section}
        elif value is not None:
            given[name] = value
    if isinstance(given.get("memory_bytes"), str):
        given["memory_bytes"] = parse_bytes(given["memory_bytes"])
    if "target" not in given and env.default_target():
        given["target"] = env.default_target()
    cache = given.get("cache") or {}
    if given.get("memory_bytes") and not {"capacity", "budget"} & set(cache):
        given.setdefault("fit_budget", True)
    if isinstance(cache.get("capacity"), int) and "budget" not in cache:
        given["cache"] = {**cache, "budget": cache["capacity"] // 2}
    try:
        return msgspec.convert(given, CompileConfig, strict=True)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from None
        raise ConfigError(f"{file}: {error}" if file else str(error)) from None


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: wanted names and values at the top, got {value!r:.40}")
    return value


def _check_keys(given: dict[str, Any], struct: Any, *, where: str) -> None:
    """Refuse an unknown name, with the nearest known one and the list of all."""
    fields = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for key, value in given.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}known: {', '.join(fields)}")
        inner = fields[key]
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}: {key} is {value!r:.40}, wanted names and values")
            _check_keys(value, inner, where=f"{where}: {key}")
