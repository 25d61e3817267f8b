"""Tools of a conversation: JSON schemas, or Python functions whose schemas are read off them."""

import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from lcc.errors import ConfigError
from lcc.runtime.text.jinja import plain

BASIC: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    dict: {"type": "object"},
    Any: {},
}
SECTIONS = ("Args:", "Returns:", "Raises:")


def schemas(tools: Any) -> list[Any] | None:
    """The schemas of tools, as a template reads them; None where there are no tools.

    Raises:
        ConfigError: a tool is neither a schema nor a function that says what it takes.
    """
    if tools is None:
        return None
    if isinstance(tools, str) or not isinstance(tools, Sequence):
        raise ConfigError(f"tools is {type(tools).__name__}, wanted a list of schemas or functions")
    found = []
    for i, tool in enumerate(tools):
        if inspect.isfunction(tool) or inspect.ismethod(tool):
            found.append(_schema(tool))
        elif isinstance(tool, dict):
            found.append(plain(tool))
        else:
            raise ConfigError(
                f"tools[{i}] is {type(tool).__name__}, wanted a JSON schema or a function with "
                "type hints and a docstring"
            )
    return found


def _schema(function: Callable[..., Any]) -> dict[str, Any]:
    name, text = function.__name__, inspect.getdoc(function)
    if not text:
        raise ConfigError(f"tool {name}: no docstring, and a model is told what it says")
    parts = _sections(text.strip())
    told = _arguments(parts["Args:"])
    hints = typing.get_type_hints(function)
    properties, required = {}, []
    for argument, parameter in inspect.signature(function).parameters.items():
        if argument not in hints:
            raise ConfigError(f"tool {name}: argument {argument} has no type hint")
        if argument not in told:
            raise ConfigError(f"tool {name}: its docstring does not describe {argument}")
        properties[argument] = _described(_type(hints[argument], name), told[argument])
        if parameter.default is inspect.Parameter.empty:
            required.append(argument)
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    page = {"name": name, "description": parts[""], "parameters": parameters}
    if "return" in hints:
        returns = _type(hints["return"], name)
        page["return"] = returns | ({"description": text} if (text := parts["Returns:"]) else {})
    return {"type": "function", "function": page}


def _sections(text: str) -> dict[str, str]:
    """What stands under each heading of a docstring; "" = before the first one."""
    found, heading = {"": "", **dict.fromkeys(SECTIONS, "")}, ""
    for line in text.split("\n"):
        if line.strip() in SECTIONS:
            heading = line.strip()
        else:
            found[heading] += f"{line}\n"
    return {
        name: each.strip("\n") if name == "Args:" else each.strip() for name, each in found.items()
    }


def _arguments(text: str) -> dict[str, str]:
    """Descriptions by name; lines that are further in belong to the one before."""
    found: dict[str, str] = {}
    name, margin = "", None
    for line in filter(str.strip, text.split("\n")):
        indent = len(line) - len(line.lstrip())
        begins = re.match(r"\s*(\w+):\s*(.*)", line)
        if begins and (margin is None or indent <= margin):
            name, margin = begins[1], indent
            found[name] = begins[2].strip()
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found


def _described(schema: dict[str, Any], text: str) -> dict[str, Any]:
    choices = re.search(r"\(choices:\s*(.*?)\)\s*$", text, re.IGNORECASE)
    if choices is None:
        return {**schema, "description": text}
    try:
        values = json.loads(choices[1])
    except ValueError:
        raise ConfigError(f"tool: choices {choices[1]} are no JSON list") from None
    values = [value.strip() if isinstance(value, str) else value for value in values]
    return {**schema, "enum": values, "description": text[: choices.start()].strip()}


def _type(hint: Any, tool: str) -> dict[str, Any]:
    origin, given = typing.get_origin(hint), typing.get_args(hint)
    if origin is None and isinstance(hint, type) and issubclass(hint, Enum):
        return _values([member.value for member in hint], tool)
    if origin is None and hint in BASIC:
        return dict(BASIC[hint])
    if origin is typing.Literal:
        return _values(list(given), tool)
    if origin in (typing.Union, types.UnionType):
        return _union(given, tool)
    if origin is list:
        return {"type": "array", "items": _type(given[0], tool)}
    if origin is tuple and len(given) > 1 and ... not in given:
        return {"type": "array", "prefixItems": [_type(each, tool) for each in given]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(given[1], tool)}
    raise ConfigError(
        f"tool {tool}: the type hint {hint} has no JSON schema; give a schema instead"
    )


def _values(values: list[Any], tool: str) -> dict[str, Any]:
    if not values or any(type(value) not in BASIC for value in values):
        raise ConfigError(f"tool {tool}: {values} are no JSON values to choose from")
    kinds = list(dict.fromkeys(BASIC[type(value)]["type"] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _union(given: Sequence[Any], tool: str) -> dict[str, Any]:
    parts = [_type(each, tool) for each in given if each is not type(None)]
    if len(parts) == 1:
        page = parts[0]
    elif all(part.keys() == {"type"} and isinstance(part["type"], str) for part in parts):
        kinds = sorted({part["type"] for part in parts})
        page = {"type": kinds[0] if len(kinds) == 1 else kinds}
    else:
        page = {"anyOf": parts}
    return page | ({"nullable": True} if type(None) in given else {})
