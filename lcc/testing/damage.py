"""Damage to files, drawn from a seed: bytes, cuts, odd numbers, and values of JSON."""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

NUMBERS = (
    0,
    -1,
    1,
    2,
    7,
    255,
    *(2**n for n in (16, 31, 32, 40, 53)),
    2**31 - 1,
    2**63 - 1,
    -(2**63),
)
JSON_ODDITIES: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    "../x",
    [],
    {},
    0.5,
    1e300,
    10**30,
    [1],
    "\u0000",
    "zero",
)


def flipped(data: bytes, random: Random) -> bytes:
    """One to eight bytes are others."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] ^= random.randint(1, 255)
    return bytes(changed)


def cut(data: bytes, random: Random) -> bytes:
    """Some of its end, or of its middle, is gone; or some is there twice."""
    first = random.randrange(len(data))
    last = random.randint(first, min(len(data), first + 4096))
    return random.choice([data[:first], data[:first] + data[last:], data[:last] + data[first:]])


def with_number(data: bytes, random: Random, where: range | None = None) -> bytes:
    """A number of 4 or 8 bytes is an odd one, somewhere in `where`."""
    changed, width = bytearray(data), random.choice([4, 8])
    place = random.choice(where or range(0, len(data) - 8, 4))
    changed[place : place + width] = (random.choice(NUMBERS) % 2 ** (8 * width)).to_bytes(
        width, "little"
    )
    return bytes(changed)


def places(page: Any) -> Iterator[tuple[Any, Any]]:
    """Each value of a JSON page: what it lies in, and its key or index there."""
    for key in page if isinstance(page, dict) else range(len(page)):
        yield page, key
        if isinstance(page[key], dict | list):
            yield from places(page[key])


def change_json(page: Any, random: Random) -> None:
    """A value is an odd one, or one from another place, or gone."""
    all_places = list(places(page))
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        holder, key = random.choice(all_places)
        try:
            old = holder[key]
        except (KeyError, IndexError):
            continue
        kind = random.randrange(4)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = random.choice(JSON_ODDITIES)
        elif isinstance(old, int):
            near = (old + 1, old - 1, 2 * old, -old)
            holder[key] = random.choice([*near, *NUMBERS])
        else:
            same = [h[k] for h, k in all_places if _has(h, k) and type(h[k]) is type(old)]
            holder[key] = json.loads(json.dumps(random.choice(same)))


def change_numbers(page: Any, random: Random) -> None:
    """Numbers of a manifest, and names in its schedule: what only a check of sense can find."""
    for _ in range(random.choice([1, 1, 2])):
        names = random.random() < 0.5
        within = page["schedule"] if names else {k: page[k] for k in page if k != "files"}
        same = [(h, k) for h, k in places(within) if type(h[k]) is (str if names else int)]
        if names and random.random() < 0.7:  # a number for a number
            numbers = {**page["constants"], **page["counters"]}
            same = [(h, k) for h, k in same if h[k] in numbers]
        holder, key = random.choice(same)
        old = holder[key]
        if names:
            other_holder, other_key = random.choice(same)
            holder[key] = other_holder[other_key]
        else:
            holder[key] = random.choice([old + 1, old - 1, old * 2, old // 2, *NUMBERS])


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)
