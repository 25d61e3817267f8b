"""What an ONNX program may not be, found in its bytes before an engine sees them.

An ONNX file is a protobuf message. Any tensor in it may name a file, and ONNX Runtime opens what is
named: only what the manifest lists may be. Graphs in nodes and functions make work without end, or
2^29 operators of a page of text: lcc writes none but loops over a tensor. Of a number that says how
an operator works, operators keep 32 bits, after they have compared all 64: 2^32 heads are none, and
dividing by none ends the process.
"""

from collections.abc import Collection, Iterator

from lcc.errors import ArtifactError

KEY = b"location"
DEEPEST = 32  # graphs in graphs
MASK = (1 << 64) - 1

# Message -> number of a field that leads to tensors -> the message in it (onnx.proto).
PATHS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        **{5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
        **{22: "sparse", 23: "sparse"},
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
Span = tuple[int, int]


def check_program(data: bytes, listed: Collection[str]) -> None:
    """Refuse what no program of lcc has: other files, and work that no size of a tensor bounds.

    Raises:
        ArtifactError: names the first file that is not listed; or an operator that runs graphs
            other than a loop over a tensor, or that is told a number that does not fit; or
            functions; or it is no ONNX program.
    """
    if data[4:8] == b"ORTM":  # ONNX Runtime would take it for its own format
        raise ArtifactError("not an ONNX program")
    check_locations(data, listed)
    for number, inside, _ in _fields(data, (0, len(data))):
        if number in (20, 25):
            raise ArtifactError("it has functions or training graphs; wanted a program of lcc")
        if number == 7 and inside is not None:
            _check_graph(data, inside, inner=False)


def check_locations(data: bytes, listed: Collection[str]) -> None:
    """Refuse a program that reads a file which is not listed, with an `ArtifactError`."""
    for location in _locations(data, (0, len(data)), "model", 0):
        if location not in listed:
            raise ArtifactError(
                f"it reads weights from {location!r}, which the manifest does not list"
            )


def _locations(data: bytes, span: Span, message: str, depth: int) -> Iterator[str]:
    """Of a message that may have some: the name of the key is among its bytes."""
    if depth > 4 * DEEPEST:
        raise ArtifactError("graphs in graphs in graphs; wanted a program of lcc")
    if message == "entry":
        yield from _location(data, span)
        return
    paths = PATHS[message]
    for number, inside, _ in _fields(data, span):
        if number in paths and inside is not None and data.find(KEY, *inside) >= 0:
            yield from _locations(data, inside, paths[number], depth + 1)


def _check_graph(data: bytes, span: Span, *, inner: bool) -> None:
    """The only graphs in nodes are bodies of loops as often as a tensor has elements."""
    sizes, loops = set[bytes](), list[tuple[bytes, list[bytes]]]()
    for number, node, _ in _fields(data, span):
        if number != 1 or node is None:
            continue
        kind, inputs, outputs, bodies = b"", list[bytes](), list[bytes](), list[Span]()
        attributes = list[Span]()
        for part, inside, _ in _fields(data, node):
            if inside is None:
                continue
            if part == 5:
                attributes.append(inside)
                bodies += [g for n, g, _ in _fields(data, inside) if n in (6, 11) and g is not None]
            elif part == 4:
                kind = data[slice(*inside)]
            elif part == 1:
                inputs.append(data[slice(*inside)])
            elif part == 2:
                outputs.append(data[slice(*inside)])
        _check_numbers(data, kind, attributes, len(outputs))
        if kind == b"Size":
            sizes |= set(outputs)
        if bodies or kind == b"Loop":
            loops.append((kind, inputs))
        for body in bodies:
            if inner:
                raise ArtifactError("graphs in graphs in graphs; wanted a program of lcc")
            _check_graph(data, body, inner=True)
    for kind, inputs in loops:
        # The second input is a condition, which ends a loop earlier and never later.
        if kind != b"Loop" or not inputs or inputs[0] not in sizes:
            raise ArtifactError(
                f"{_shown(kind)} runs a graph; wanted no graph in a node, but for a loop over a "
                "tensor"
            )


def _check_numbers(data: bytes, kind: bytes, attributes: list[Span], outputs: int) -> None:
    """What an operator is told fits 32 bits; a Split, as many outputs as it has.

    ONNX Runtime ends the process where a Split has more.
    """
    for span in attributes:
        names = [data[slice(*inside)] for n, inside, _ in _fields(data, span) if n == 1 and inside]
        numbers = [*_numbers(data, span)]
        if kind != b"Constant" and any(map(_is_wide, numbers)):  # that one's are a tensor's
            raise ArtifactError(f"{_shown(kind)} is told a number of more than 32 bits")
        if kind == b"Split" and b"num_outputs" in names and numbers != [outputs]:
            raise ArtifactError(f"Split has {outputs} outputs, and is told another number of them")


def _shown(kind: bytes) -> str:
    return kind[:40].decode(errors="replace")


def _is_wide(number: int) -> bool:
    """Whether a number of 64 bits, with its sign in two's complement, is more than an int32."""
    return (1 << 31) <= number & MASK < (1 << 64) - (1 << 31)


def _numbers(data: bytes, span: Span) -> Iterator[int]:
    """The whole numbers of an attribute: one, or several, one by one or together."""
    for field, inside, value in _fields(data, span):
        if field in (3, 8) and value is not None:
            yield value
        elif field == 8 and inside is not None:
            place, end = inside
            while place < end:
                value, place = _varint(data, place, end)
                yield value


def _location(data: bytes, span: Span) -> Iterator[str]:
    """The value of an entry whose key is `location`."""
    found = [(number, data[slice(*inside)]) for number, inside, _ in _fields(data, span) if inside]
    if sorted(number for number, _ in found) != [1, 2]:
        raise ArtifactError("an entry without one key and one value; wanted an ONNX program")
    entry = dict(found)
    if entry[1] == KEY:
        yield entry[2].decode(errors="surrogateescape")


def _fields(data: bytes, span: Span) -> Iterator[tuple[int, Span | None, int | None]]:
    """Number of each field, and where its bytes are, or its value if it is a whole number."""
    place, end = span
    while place < end:
        tag, place = (data[place], place + 1) if data[place] < 128 else _varint(data, place, end)
        if tag >> 32:  # ONNX Runtime's parser keeps the low bits: it would be another field
            raise ArtifactError("not an ONNX program")
        kind, inside, value = tag & 7, None, None
        if kind == 0:
            value, place = _varint(data, place, end)
        elif kind == 2:
            size, place = _varint(data, place, end)
            inside = place, place + size
            place += size
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ArtifactError("not an ONNX program")
        if place > end:
            raise ArtifactError("an ONNX program that is cut")
        yield tag >> 3, inside, value


def _varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    while place < end and shift < 70:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise ArtifactError("an ONNX program that is cut")
