"""What is drawn for damage of any kind, besides `lcc.testing.damage`."""

import hashlib
import json
from random import Random
from typing import Any

from lcc.testing.damage import NUMBERS, cut, flipped, with_number

STRINGS = (
    *("", ".", "..", "../x", "/etc/passwd", "a//b", "x\\y", "C:x", "con", "~root/x", "x" * 5000),
    *("\0", "\n", "\x1b[2J", "é\u202e\U0001f600", "\ud800", "%s%n", "{{7*7}}"),
    *("float64", "float16", "uint8", "object", "O", "complex128", "S8", "datetime64[s]"),
    *("step.onnx", "head.onnx", "manifest.json", "weights.bin", "step", "head", "evict_0"),
    *("used", "tokens", "zero", "capacity", "key_0", "hidden", "ids", "text", "full", "key"),
    *("tvm:cpu", "reference", "onnxruntime:cuda", "onnxruntime:mobile", "consensus", "beginning"),
)
FLOATS = (0.5, -0.0, 1e-320, 1e308, float("inf"), float("nan"))
VALUES: tuple[Any, ...] = (
    *(None, True, False, [], {}, [[]], [0], {"a": 1}, [None], ["used"], [-1], [2**40]),
    *(list(range(9)) * 5, 2**64, 10**30),
)


def any_bytes(data: bytes, random: Random) -> bytes:
    """Bytes are others, gone, there twice, or come behind."""
    kind = random.randrange(8)
    if kind < 3:
        return flipped(data, random)
    if kind < 5:
        return cut(data, random)
    if kind == 5 and len(data) > 20:
        return with_number(data, random)
    if kind == 6:
        return data + random.randbytes(random.choice([1, 4096]))
    place = random.randrange(len(data) + 1)
    return data[:place] + random.randbytes(random.randint(1, 64)) + data[place:]


def any_value(old: Any, random: Random) -> Any:
    """Something in place of a value: often of its type."""
    if random.random() < 0.2 or isinstance(old, bool | None):
        return random.choice(random.choice([NUMBERS, STRINGS, VALUES, FLOATS]))
    if isinstance(old, int):
        near = (old + 1, old - 1, 2 * old, old // 2, -old, 1000 * old, str(old), float(old))
        return random.choice([*near, *NUMBERS])
    if isinstance(old, float):
        return random.choice([-old, old * 1e10, int(min(old, 1e18)), *FLOATS])
    if isinstance(old, str):
        return random.choice([old + "x", old[:-1], old.upper(), *STRINGS])
    return random.choice(VALUES)


def change_any(page: Any, random: Random, places: list[tuple[Any, Any]]) -> str:
    """One of the places of a JSON page is another value, gone, renamed, or there twice."""
    holder, key = random.choice(places)
    kind = random.choice(["set"] * 6 + ["delete", "exchange", "add", "rename"])
    keys = [*holder] if isinstance(holder, dict) else [*range(len(holder))]
    if key not in keys:
        return "nothing"
    old = holder[key]
    if kind == "set":
        holder[key] = any_value(old, random)
    elif kind == "delete":
        del holder[key]
    elif kind == "exchange":
        other = random.choice(keys)
        holder[key], holder[other] = holder[other], old
    elif isinstance(holder, list):
        holder.insert(random.randrange(len(holder) + 1), any_value(old, random))
    elif kind == "rename":
        holder[random.choice([*STRINGS, *map(str, keys)])] = holder.pop(key)
    else:
        holder[random.choice(STRINGS)] = any_value(old, random)
    return f"{kind} {key}: {str(old)[:40]!r}"


def page_bytes(page: Any) -> bytes:
    """JSON as writers of other languages may have it: NaN, infinities, lone surrogates."""
    return json.dumps(page).replace("Infinity", "1e999").encode("utf-8", "surrogatepass")


def digest_of(data: bytes) -> str:
    """Its sha256."""
    return hashlib.sha256(data).hexdigest()
