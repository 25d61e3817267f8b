"""Hostile GGUF files."""

import struct
from collections.abc import Callable

Change = Callable[[bytes], bytes]
HEAD = b"GGUF" + struct.pack("<I", 3)
TENSOR = "blk.0.attn_q.weight"


def _u64(number: int) -> bytes:
    return struct.pack("<Q", number % 2**64)


def _text(text: str) -> bytes:
    return _u64(len(text)) + text.encode()


def _field(key: str, kind: int, value: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


LLAMA = _field("general.architecture", 8, _text("llama"))


def _fields(*fields: bytes) -> Change:
    """A file of nothing but these."""
    return lambda data: HEAD + _u64(0) + _u64(len(fields)) + b"".join(fields)


def _at(place: int, new: bytes) -> Change:
    return lambda data: data[:place] + new + data[place + len(new) :]


def _number(key: str, value: int) -> Change:
    """A field of 32 bits."""

    def go(data: bytes) -> bytes:
        place = data.index(_text(key)) + len(_text(key)) + 4
        return _at(place, struct.pack("<I", value))(data)

    return go


def _tensor(
    *, sizes: tuple[int, ...] = (), offset: int | None = None, kind: int | None = None
) -> Change:
    """What the file says of a tensor."""

    def go(data: bytes) -> bytes:
        place = data.index(_text(TENSOR)) + len(_text(TENSOR))
        count = struct.unpack_from("<I", data, place)[0]
        for number, size in enumerate(sizes):
            data = _at(place + 4 + 8 * number, _u64(size))(data)
        if kind is not None:
            data = _at(place + 4 + 8 * count, struct.pack("<I", kind))(data)
        if offset is not None:
            data = _at(place + 8 + 8 * count, _u64(offset))(data)
        return data

    return go


def _axes(count: int) -> Change:
    def go(data: bytes) -> bytes:
        return _at(data.index(_text(TENSOR)) + len(_text(TENSOR)), struct.pack("<I", count))(data)

    return go


def _array(element: int, count: int, rest: bytes = b"") -> bytes:
    return _field("x", 9, struct.pack("<I", element) + _u64(count) + rest)


def _renamed(name: str) -> Change:
    return lambda data: data.replace(TENSOR.encode(), name.encode())


NUMBERS = {
    "llama.block_count": (100_000, 2**31, 0),
    "llama.embedding_length": (0, 2**31 - 1),
    "llama.attention.head_count": (0, 3, 2**31),
    "llama.attention.head_count_kv": (0, 3, 2**31),
    "llama.vocab_size": (2**31 - 1, 0),
    "llama.feed_forward_length": (2**31 - 1, 0),
    "llama.context_length": (0, 2**32 - 1),
    "tokenizer.ggml.bos_token_id": (2**32 - 1,),
}
# Must be refused, every one but those whose number lcc has no use for.
HARMLESS = {"llama.context_length", "tokenizer.ggml.bos_token_id"}
GGUFS: dict[str, tuple[Change, bool]] = {
    "2^60 tensors": (_at(8, _u64(2**60)), True),
    "2^60 fields": (_at(16, _u64(2**60)), True),
    "2^64 - 1 of both": (_at(8, _u64(-1) * 2), True),
    "version 0": (_at(4, struct.pack("<I", 0)), True),
    "version 2^31": (_at(4, struct.pack("<I", 2**31)), True),
    "big-endian": (_at(4, struct.pack(">I", 3)), True),
    "a first text of -1": (_at(24, _u64(-1)), True),
    "a first text of 2^40": (_at(24, _u64(2**40)), True),
    "a header alone": (lambda data: data[:24], True),
    "4 bytes": (lambda data: data[:4], True),
    "half": (lambda data: data[: len(data) // 2], True),
    "2^60 bytes in an array": (_fields(LLAMA, _array(0, 2**60)), True),
    "2^40 texts in an array": (_fields(LLAMA, _array(8, 2**40)), True),
    "arrays 10^5 deep": (
        _fields(LLAMA, _array(9, 1, (struct.pack("<I", 9) + _u64(1)) * 100_000)),
        True,
    ),
    "a value of kind 99": (_fields(LLAMA, _field("x", 99, b"abc")), True),
    "a text of -1": (_fields(LLAMA, _field("x", 8, _u64(-1) + b"abc")), True),
    "a field twice": (_fields(LLAMA, LLAMA), True),
    "alignment 0": (_fields(LLAMA, _field("general.alignment", 4, bytes(4))), True),
    "alignment 2^31": (
        _fields(LLAMA, _field("general.alignment", 4, struct.pack("<I", 2**31))),
        True,
    ),
    "architecture ../../x": (_fields(_field("general.architecture", 8, _text("../../x"))), True),
    **{
        f"{key} {value}": (_number(key, value), key not in HARMLESS)
        for key, values in NUMBERS.items()
        for value in values
    },
    **{
        f"a tensor at {offset}": (_tensor(offset=offset), True)
        for offset in (2**60, -1, 0, 3, 2**64 - 64)
    },
    "a tensor of 2^32 x 2^32": (_tensor(sizes=(2**32, 2**32)), True),
    "a tensor of 0 x 64": (_tensor(sizes=(0, 64)), True),
    "a tensor of -1 x -1": (_tensor(sizes=(-1, -1)), True),
    **{f"a tensor of kind {kind}": (_tensor(kind=kind), True) for kind in (2, 16, 9999)},
    "2^32 - 1 axes": (_axes(2**32 - 1), True),
    "no axes": (_axes(0), True),
    "a tensor twice": (_renamed("blk.0.attn_k.weight"), True),
    "a tensor of an odd name": (_renamed("../../../../xxxxxxx"), True),
    "tokens that are no UTF-8": (
        lambda data: data.replace(_text("<|begin|>"), _u64(9) + b"\xff" * 9),
        True,
    ),
}
