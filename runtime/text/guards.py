"""Operators, methods and filters of chat templates, each refused before it makes too much."""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from lcc.runtime.text.bounds import NUMBER_BITS, WIDTH, TemplateLimitError, meter

STRING = frozenset(
    "capitalize casefold center count endswith find format index isalnum isalpha isascii isdecimal "
    "isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower "
    "lstrip partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit "
    "rstrip split splitlines startswith strip swapcase title upper zfill".split()
)
METHODS: list[tuple[type | tuple[type, ...], frozenset[str]]] = [
    (str, STRING),
    (dict, frozenset(("copy", "get", "items", "keys", "values"))),
    ((list, tuple, range), frozenset(("copy", "count", "index"))),
    ((int, float, bytes, bytearray), frozenset(("bit_length", "is_integer"))),
]
"""What may be called of values; anything else of theirs is refused by name."""

PART = 80  # bytes of a short text in a list
NO_FILTERS = ("pprint", "urlize", "wordwrap", "xmlattr")  # of web pages
LAZY = frozenset(  # filters that look at no more than the first level of what they are given
    "batch count d default first items last length list map reject rejectattr reverse select "
    "selectattr slice".split()
)
COMPARES = frozenset("!= < <= == > >= eq equalto ge greaterthan gt in le lessthan lt ne".split())


def operated(operator: str, left: Any, right: Any) -> None:
    """Before `left operator right`."""
    meter().step()
    numbers = [each for each in (left, right) if isinstance(each, int)]
    if operator == "%" and isinstance(left, str):
        _formatted(left, "%", right if isinstance(right, tuple) else (right,))
    elif operator == "*" and len(numbers) == 1 and isinstance(left, str | list | tuple):
        _repeated(left, numbers[0])
    elif operator == "*" and len(numbers) == 1 and isinstance(right, str | list | tuple):
        _repeated(right, numbers[0])
    elif operator == "*" and len(numbers) == 2:
        _number(sum(each.bit_length() for each in numbers))
    elif operator == "**" and len(numbers) == 2:
        _number(left.bit_length() * max(right, 0))


def _number(bits: int) -> None:
    if bits > NUMBER_BITS:
        raise TemplateLimitError(f"makes a number of more than {NUMBER_BITS:,} bits")


def _repeated(several: Any, count: int) -> None:
    meter().need(8.0 * len(several) * max(count, 0))
    if not isinstance(several, str):
        meter().whole([several] * min(max(count, 0), WIDTH))


def _formatted(template: str, sign: str, values: tuple[Any, ...]) -> None:
    """Before values are put into a text: no field is wider than a number in it, or than a value."""
    if len(values) == 1 and isinstance(values[0], dict):
        values = tuple(values[0].values())  # by name
    widths = [int(each[:9]) for each in re.findall(r"\d+", template)]
    if "*" in template or re.search(r"\{[^{}]*\{", template):  # a value may be a width
        widths += [abs(each) for each in values if isinstance(each, int)]
    if any(each > WIDTH for each in widths):
        raise TemplateLimitError(f"makes a field of more than {WIDTH:,} characters")
    longest = max(map(_length, values), default=0)
    meter().need(len(template) + 4.0 * template.count(sign) * (max(widths, default=0) + longest))


def _length(value: Any) -> int:
    """The most characters of a value as a text."""
    return len(value) if isinstance(value, str) else meter().whole(value) or NUMBER_BITS


def called(function: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
    """Before a call; returns its arguments, of which an iterator is a list."""
    meter().step()
    function = getattr(function, "__wrapped__", function)
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if owner is None:
        return given
    for kind, methods in METHODS:
        if isinstance(owner, kind) and not isinstance(owner, type):
            if name not in methods:
                what = type(owner).__name__
                raise TemplateLimitError(f"calls {name} of a {what}, which templates may not")
            break
    for each in (*given, *named.values()):
        meter().whole(each)
    if isinstance(owner, list | tuple):
        meter().whole(owner)
    if isinstance(owner, str):
        return _of_text(owner, name, given, named)
    return given


def _of_text(
    text: str, name: str, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Any, ...]:
    if name == "format":
        _formatted(text, "{", (*given, *named.values()))
    elif name in ("center", "ljust", "rjust", "zfill") and given and isinstance(given[0], int):
        meter().need(4.0 * given[0])
    elif name in ("split", "rsplit", "splitlines"):
        meter().need(PART / 4 * len(text))
    elif name == "replace" and len(given) > 1:
        _replaced(text, given[0], given[1])
    elif name == "join" and given:
        given = (_listed(given[0]),)
        _joined(text, given[0])
    return given


def _replaced(text: str, old: Any, new: Any) -> None:
    if isinstance(old, str) and isinstance(new, str):
        meter().need(len(text) + 4.0 * text.count(old) * len(new))


def _listed(value: Any) -> Any:
    """The items of an iterator, each of which is counted."""
    if not isinstance(value, Iterator):
        return value
    found = list[Any]()
    for each in value:
        meter().step()
        meter().need(8 * len(found))
        found.append(each)
    return found


def _joined(between: str, items: Any) -> None:
    if isinstance(items, list | tuple):
        sizes = sum(len(each) for each in items if isinstance(each, str))
        meter().need(4.0 * (sizes + len(between) * len(items)))


def join(context: Any, value: Any, d: str = "", attribute: Any = None) -> str:
    """The filter of that name."""
    from jinja2.filters import make_attrgetter

    items = _listed(iter(value))
    if attribute is not None:
        items = [make_attrgetter(context.environment, attribute)(each) for each in items]
    texts = []
    for each in items:
        meter().whole(each)
        texts.append(str(each))
        meter().made(texts[-1])
    _joined(str(d), texts)
    return str(d).join(texts)


def _bounded(name: str, value: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Before a filter of this name."""
    numbers = [each for each in (*given, *named.values()) if isinstance(each, int)]
    wide = name in ("batch", "center", "indent", "round", "slice", "tojson", "truncate")
    if wide and any(abs(each) > WIDTH for each in numbers):
        raise TemplateLimitError(f"makes a field of more than {WIDTH:,} characters ({name})")
    if name in ("indent", "tojson"):
        texts = [len(each) for each in (*given, *named.values()) if isinstance(each, str)]
        lines = value.count("\n") + 1 if isinstance(value, str) else meter().whole(value)
        meter().need(4.0 * lines * max([4, *map(abs, numbers), *texts]))
    elif name in ("batch", "groupby", "list", "slice", "sort", "unique") and isinstance(value, str):
        meter().need(PART * len(value))
    elif name == "replace" and len(given) > 1:
        _replaced(str(value), str(given[0]), str(given[1]))
    elif name == "format":
        _formatted(str(value), "%", (*given, *named.values()))
    elif name == "sum" and any(
        isinstance(each, list | tuple) for each in (*given, *named.values())
    ):
        raise TemplateLimitError("sums lists, which templates may not")


def guarded_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is bounded."""
    first = 1 if hasattr(function, "jinja_pass_arg") else 0

    @functools.wraps(function)
    def bounded(*given: Any, **named: Any) -> Any:
        meter().step()
        lead, value, rest = given[:first], given[first : first + 1], given[first + 1 :]
        if name not in LAZY:
            value = tuple(map(_listed, value))
            for each in (*value, *rest, *named.values()):
                meter().whole(each)
        _bounded(name, value[0] if value else None, rest, named)
        result = function(*lead, *value, *rest, **named)
        meter().made(result)
        return result

    return bounded


def guarded_test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A test that is bounded."""

    @functools.wraps(function)
    def bounded(*given: Any, **named: Any) -> Any:
        meter().step()
        if name in COMPARES:
            for each in given:
                meter().whole(each)
        return function(*given, **named)

    return bounded
