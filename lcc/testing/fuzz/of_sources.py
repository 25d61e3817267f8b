"""Damage to models that are given to the compiler: GGUF files, folders with safetensors."""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from lcc.testing.damage import places
from lcc.testing.fuzz.damaged import any_bytes, change_any, page_bytes

WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
ODD = (0, 1, 2, 3, 7, 8, 9, 16, 99, 255, 100_000, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
WIDE = (2**32, 2**40, 2**53, 2**60, 2**62, 2**63, 2**64 - 64, 2**64 - 1)
Place = tuple[int, int]  # first byte, bytes


def places_of_gguf(data: bytes) -> Iterator[Place]:
    """Every number of a header: counts, lengths, kinds, values, sizes, offsets; and every text."""
    yield 4, 4
    yield 8, 8
    yield 16, 8
    tensors, fields = struct.unpack_from("<QQ", data, 8)
    place = 24
    for _ in range(fields):
        length = struct.unpack_from("<Q", data, place)[0]
        yield place, 8
        yield place + 8, length
        place += 8 + length
        kind = struct.unpack_from("<I", data, place)[0]
        yield place, 4
        place += 4
        element, count = kind, 1
        if kind == ARRAY:
            element, count = struct.unpack_from("<IQ", data, place)
            yield place, 4
            yield place + 4, 8
            place += 12
        for number in range(count):
            width = WIDTHS.get(element, 8)
            if number < 3:
                yield place, width
            if element == STRING:
                length = struct.unpack_from("<Q", data, place)[0]
                if number < 3:
                    yield place + 8, length
                width += length
            place += width
    for _ in range(tensors):
        length = struct.unpack_from("<Q", data, place)[0]
        yield place, 8
        yield place + 8, length
        place += 8 + length
        count = struct.unpack_from("<I", data, place)[0]
        yield from ((place, 4), *((place + 4 + 8 * i, 8) for i in range(count)))
        place += 4 + 8 * count
        yield place, 4
        yield place + 4, 8
        place += 12


def gguf_numbers(path: Path, random: Random) -> str:
    """One to three numbers or letters of the header."""
    data = bytearray(path.read_bytes())
    chosen, said = [*places_of_gguf(bytes(data))], []
    for _ in range(random.choice([1, 1, 2, 3])):
        place, width = random.choice(chosen)
        if width in (1, 2, 4, 8):
            old = int.from_bytes(data[place : place + width], "little")
            odd = (old + 1, old - 1, 2 * old, old // 2, *ODD, *(WIDE if width == 8 else ()))
            new = random.choice(odd) % 2 ** (8 * width)
            data[place : place + width] = new.to_bytes(width, "little")
            said.append(f"{old} at {place} is {new}")
        elif width:
            data[place + random.randrange(width)] ^= random.randint(1, 255)
            said.append(f"a letter at {place}")
    path.write_bytes(data)
    return "; ".join(said)


def gguf_bytes(path: Path, random: Random) -> str:
    """Any bytes of the file."""
    path.write_bytes(any_bytes(path.read_bytes(), random))
    return ""


def config(folder: Path, random: Random) -> str:
    """Values of config.json, or of what is said of text."""
    name = random.choice(["config.json"] * 5 + sorted(p.name for p in folder.glob("*.json")))
    page = json.loads((folder / name).read_text())
    said = [change_any(page, random, list(places(page))) for _ in range(random.choice([1, 1, 2]))]
    (folder / name).write_bytes(page_bytes(page))
    return f"{name}: {'; '.join(said)}"


def safetensors(folder: Path, random: Random) -> str:
    """What the header says of tensors, its length, or any bytes."""
    path = random.choice(sorted(folder.glob("*.safetensors")))
    data, said = path.read_bytes(), ""
    size = struct.unpack_from("<Q", data)[0]
    if random.random() < 0.7:
        page = json.loads(data[8 : 8 + size])
        said = change_any(page, random, list(places(page)))
        header = page_bytes(page)
        header += b" " * (-len(header) % 8)
        data = struct.pack("<Q", len(header)) + header + data[8 + size :]
    elif random.random() < 0.3:
        data = struct.pack("<Q", random.choice([0, 1, 7, size - 8, 2**31, 2**63])) + data[8:]
    else:
        data = any_bytes(data, random)
    path.write_bytes(data)
    return said


def file_of_folder(folder: Path, random: Random) -> str:
    """Bytes of a file, or none."""
    path = random.choice(sorted(path for path in folder.iterdir() if path.is_file()))
    if random.random() < 0.2:
        path.unlink()
    else:
        path.write_bytes(any_bytes(path.read_bytes(), random))
    return path.name


Damage = Callable[[Path, Random], str]
GGUF: dict[Damage, int] = {gguf_numbers: 5, gguf_bytes: 1}
CHECKPOINTS: dict[Damage, int] = {config: 4, safetensors: 3, file_of_folder: 2}
