"""Damage to what a session leaves: states with their digest made anew, archives with checksums."""

import json
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from lcc.testing.damage import NUMBERS, change_json, places, with_number
from lcc.testing.fuzz.damaged import any_bytes, change_any, digest_of, page_bytes

BLANK = "0" * 64  # in place of a state's digest while it is computed
DTYPES = {"F32": "f4", "F16": "f2", "I64": "i8", "F64": "f8", "U8": "u1", "I32": "i4", "I8": "i1"}
ODD = (0, 1, 63, 64, 65, 259, 260, 261, 5000, *NUMBERS)
Header = dict[str, Any]


class StateFile:
    """A state in its parts.

    page    what it says of the session
    header  of all tensors; its `__metadata__` is made anew by `bytes`
    data    of the tensors
    """

    def __init__(self, data: bytes) -> None:
        size = struct.unpack_from("<Q", data)[0]
        self.header: Any = json.loads(data[8 : 8 + size])
        self.data = data[8 + size :]
        self.page: Any = json.loads(self.header["__metadata__"]["lcc"])

    def bytes(self, digest: str | None = None) -> bytes:
        """A file whose digest fits it; or has the one that is given."""
        if isinstance(self.header, dict) and "__metadata__" in self.header:
            self.header["__metadata__"] = {"sha256": BLANK, "lcc": page_bytes(self.page).decode()}
        header = json.dumps(self.header).encode()
        header += b" " * (-len(header) % 8)
        digest = digest or digest_of(header + self.data)
        header = header.replace(BLANK.encode(), digest.encode(), 1)
        return struct.pack("<Q", len(header)) + header + self.data


def state_bytes(data: bytes, random: Random) -> bytes:
    """Any bytes of a state."""
    return any_bytes(data, random)


def state_length(data: bytes, random: Random) -> bytes:
    """How long its header is."""
    sizes = (0, 1, 7, 8, 9, 2**20, 2**31, 2**40, 2**63, 2**64 - 1, len(data), len(data) - 8)
    return struct.pack("<Q", random.choice(sizes)) + data[8:]


def state_data(data: bytes, random: Random) -> bytes:
    """Bytes of its tensors."""
    state = StateFile(data)
    state.data = any_bytes(state.data, random)
    return state.bytes()


def state_page(data: bytes, random: Random) -> bytes:
    """Values of any type on its page."""
    state = StateFile(data)
    if random.random() < 0.4:
        change_json(state.page, random)
    else:
        change_any(state.page, random, [p for p in places(state.page) if p[1] != "artifact"])
    return state.bytes()


def state_numbers(data: bytes, random: Random) -> bytes:
    """Counters, and ids of what it says of the text, alone or two together."""
    state = StateFile(data)
    for _ in range(random.choice([1, 1, 2])):
        kind = random.choice(["counters", "counters", "sizes", "beginning", "notes", "archive"])
        if kind in ("counters", "sizes"):
            numbers = state.page[kind]
            key = random.choice([key for key, value in numbers.items() if type(value) is int])
            numbers[key] = random.choice([numbers[key] + 1, numbers[key] - 1, *ODD])
        elif kind == "beginning":
            count = random.choice([0, 1, 8, 31, 32, 33, 500])
            state.page[kind] = [random.choice(ODD) for _ in range(count)]
        elif kind == "archive":
            state.page[kind] = random.choice([None, [random.choice(ODD), random.choice(ODD)]])
        else:
            change_any(state.page, random, list(places(state.page["notes"])))
    return state.bytes()


def state_header(data: bytes, random: Random) -> bytes:
    """What the header says of the tensors."""
    state = StateFile(data)
    spots = [place for place in places(state.header) if place[1] not in ("__metadata__", "lcc")]
    for _ in range(random.choice([1, 1, 2])):
        change_any(state.header, random, spots)
    return state.bytes()


def state_tensor(data: bytes, random: Random) -> bytes:
    """One tensor has other numbers, another shape or dtype, or is gone; all others move along."""
    state, arrays = StateFile(data), dict[str, np.ndarray]()
    for name, entry in state.header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            numbers = np.frombuffer(state.data[begin:end], DTYPES[entry["dtype"]])
            arrays[name] = numbers.reshape(entry["shape"]).copy()
    name = random.choice([*arrays])
    array = arrays[name]
    kind = random.choice(["fill"] * 4 + ["flat", "dtype", "drop", "more", "longer", "exchange"])
    if kind == "fill":
        floats = (np.nan, np.inf, -np.inf, 3e38, 0.0)
        new = random.choice(floats if array.dtype.kind == "f" else [n for n in ODD if n < 2**63])
        with np.errstate(over="ignore"):
            flat = array.reshape(-1)
            where = slice(None) if random.random() < 0.5 else random.randrange(max(1, flat.size))
            flat[: flat.size][where if flat.size else slice(0)] = new
    elif kind == "flat":
        arrays[name] = array.reshape(-1) if random.random() < 0.5 else array[None]
    elif kind == "dtype":
        arrays[name] = array.astype(random.choice([*DTYPES.values()]))
    elif kind == "drop":
        del arrays[name]
    elif kind == "more":
        arrays[random.choice(["hidden", "x", "key_99"])] = np.zeros(random.choice([0, 1, 64]), "f4")
    elif kind == "exchange":
        other = random.choice([*arrays])
        arrays[name], arrays[other] = arrays[other], array
    else:
        arrays[name] = np.repeat(array, random.choice([2, 40]), random.randrange(array.ndim))
    state.header, parts, end = {"__metadata__": {}}, [], 0
    codes = {np.dtype(kind): code for code, kind in DTYPES.items()}
    for each, array in arrays.items():
        parts.append(np.ascontiguousarray(array).tobytes())
        place = [end, end := end + len(parts[-1])]
        shape = list(array.shape)
        state.header[each] = {"dtype": codes[array.dtype], "shape": shape, "data_offsets": place}
    state.data = b"".join(parts)
    return state.bytes()


def archive_bytes(data: bytes, random: Random) -> bytes:
    """Any bytes of an archive."""
    return any_bytes(data, random)


def archive_begin(data: bytes, random: Random) -> bytes:
    """Numbers of its first block."""
    changed = bytearray(data)
    changed[24:44] = with_number(bytes(changed[24:44]), random, range(0, 12, 4))
    struct.pack_into("<I", changed, 40, zlib.crc32(changed[24:40]))
    return bytes(changed)


def archive_page(data: bytes, random: Random) -> bytes:
    """Values of its page, which begins at byte 64 and must end before byte 4096."""
    page = json.loads(data[64 : 64 + struct.unpack_from("<I", data, 12)[0]])
    change_any(page, random, list(places(page)))
    spaces = random.choice([(",", ":"), (",", ":"), None])
    text = json.dumps(page, sort_keys=True, separators=spaces).encode()[: 4096 - 64]
    head = bytearray(data[:64])
    struct.pack_into("<II", head, 12, len(text), zlib.crc32(text))
    return bytes(head) + text + bytes(4096 - 64 - len(text)) + data[4096:]


def archive_block(data: bytes, random: Random) -> bytes:
    """Numbers of a block's header; in half of the cases of its columns, too."""
    changed = bytearray(data)
    begins = [i for i in range(4096, len(data), 4096) if data[i : i + 8] == b"lcc-blok"]
    page = json.loads(data[64 : 64 + struct.unpack_from("<I", data, 12)[0]])
    begin, columns = random.choice(begins), len(page["columns"])
    end = begin + -(-(32 + 4 * columns) // 64) * 64
    changed[begin:end] = with_number(bytes(changed[begin:end]), random, range(12, 32, 4))
    struct.pack_into("<I", changed, begin + 8, zlib.crc32(changed[begin + 12 : end]))
    return bytes(changed)


Damage = Callable[[bytes, Random], bytes]
STATES: dict[Damage, int] = {
    **{state_bytes: 6, state_length: 2, state_data: 8, state_page: 14, state_numbers: 24},
    **{state_header: 12, state_tensor: 30},
}
ARCHIVES: dict[Damage, int] = {
    **{archive_bytes: 3, archive_begin: 2, archive_page: 3, archive_block: 4}
}
