"""A `--config` file and the flags over it -> one checked `CompileConfig`."""

import contextlib
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from lcc import env
from lcc.config import CompileConfig, KvPrecision, Precision
from lcc.errors import ConfigError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


def parse_bytes(text: str) -> int:
    """Read a size: `512MB` is 512,000,000 bytes, `512MiB` is 536,870,912."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]I?)?B?\s*", text.upper())
    if match is None:
        raise ConfigError(f"{text!r} is not a size; wanted a number with a unit, such as 512MB")
    return int(float(match[1]) * _UNITS[match[2] or ""])


def parse_options(
    pairs: Sequence[str], *, catalyst: str | None = None
) -> dict[str, int | float | str]:
    """Read options of a policy: `alpha=0.3` is a number, `catalyst=sum up` is text.

    Args:
        pairs: NAME=VALUE each; of two with the same name, the later one counts.
        catalyst: The option of that name, always text; None = not given.

    Raises:
        ConfigError: one without a name or an equals sign.
    """
    options: dict[str, int | float | str] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not name.strip() or not sign:
            raise ConfigError(f"--option {pair}: wanted NAME=VALUE, such as alpha=0.3")
        options[name.strip()] = _value(value)
    return options if catalyst is None else {**options, "catalyst": catalyst}


def archive_options(
    path: Path | None, *, limit: str | None, dtype: str | None, no_recall: bool = False
) -> dict[str, Any]:
    """What --archive and its options say, as `open_session` takes it.

    Raises:
        ConfigError: an option of an archive without one, or a limit that is no size.
    """
    given = {"--archive-limit": limit, "--archive-dtype": dtype, "--no-recall": no_recall or None}
    if path is None:
        for name, value in given.items():
            if value is not None:
                raise ConfigError(f"{name} is of an archive; give --archive PATH, too")
        return {}
    options: dict[str, Any] = {"archive": path}
    if limit is not None:
        options["archive_limit"] = parse_bytes(limit)
    return options if dtype is None else options | {"archive_dtype": dtype}


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def merge(file: Path | None, flags: dict[str, dict[str, Any] | Any]) -> CompileConfig:
    """Build the configuration: lcc's defaults, then the file, then the flags that were given.

    Args:
        file: YAML with the fields of `CompileConfig`; None = no file.
        flags: the same fields; a value of None = not given. A plan that is a YAML file is such a
            file, too: what it says comes before `file`.
    """
    given: dict[str, Any] = {}
    plan: Any = flags.get("plan")
    if is_plan_file(plan):
        _add(given, _read_plan(Path(plan)))
        flags = {**flags, "plan": None}
    if file:
        _add(given, _read(file))
    _add(given, flags)
    if isinstance(given.get("target"), list):
        given["target"], *given["also"] = given["target"]
    if isinstance(given.get("memory_bytes"), str):
        given["memory_bytes"] = parse_bytes(given["memory_bytes"])
    if "target" not in given and env.default_target():
        given["target"] = env.default_target()
    _check_precision(given)
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


def _check_precision(given: dict[str, Any]) -> None:
    """Refuse a precision that there is not, with the reason for those that one would expect."""
    why = {
        "precision": (Precision, "bf16: ONNX Runtime has no matrix products in it for CPUs"),
        "kv_precision": (KvPrecision, "int8: every cycle would round keys anew"),
    }
    for name, (known, reason) in why.items():
        if given.get(name, "fp32") not in get_args(known):
            wanted = ", ".join(get_args(known))
            raise ConfigError(f"{name} is {given[name]!r}, wanted {wanted} ({reason})")


def is_plan_file(plan: str | None) -> bool:
    """Whether a plan is the name of a YAML file that has one."""
    return plan is not None and plan.endswith((".yaml", ".yml"))


def plan_text(plan: str) -> str:
    """A plan as `parse_plan` reads it, from a YAML file if it is the name of one."""
    return str(_read_plan(Path(plan))["plan"]) if is_plan_file(plan) else plan


def _read_plan(file: Path) -> dict[str, Any]:
    given = _read(file)
    if not isinstance(given.get("plan"), str):
        raise ConfigError(f'{file}: no plan in it; wanted plan: "0-9: full; ...", as text')
    return given


def _add(given: dict[str, Any], more: dict[str, Any]) -> None:
    """Fields that win over those that are there, section by section; None = not given."""
    for name, value in more.items():
        if isinstance(value, dict):
            given[name] = dict(given.get(name) or {})
            _add(given[name], value)
        elif value is not None:
            given[name] = value


def _read(file: Path) -> dict[str, Any]:
    """The fields of a `CompileConfig`, of names that it has."""
    import yaml

    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: wanted names and values at the top, got {value!r:.40}")
    _check_keys(value, CompileConfig, where=str(file))
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
        has_fields = isinstance(inner, type) and issubclass(inner, msgspec.Struct)
        if (has_fields or get_origin(inner) is dict) and not isinstance(value, dict):
            raise ConfigError(f"{where}: {key} is {value!r:.40}, wanted names and values")
        if has_fields:
            _check_keys(value, inner, where=f"{where}: {key}")
