"""ONNX programs that name files, work without bounds or tell numbers too large, to be refused."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lcc.artifact.folder import file_entry
from lcc.artifact.manifest import manifest_bytes, read_manifest


def named(location: str, *more: tuple[str, str]) -> TensorProto:
    """A tensor whose data lies in another file."""
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16"), *more):
        tensor.external_data.add(key=key, value=value)
    return tensor


def graph(*nodes: onnx.NodeProto, **parts: Any) -> onnx.GraphProto:
    """A graph of these nodes; `parts`: its other fields."""
    return helper.make_graph(list(nodes), "g", [], [], **parts)


def branch(body: onnx.GraphProto) -> onnx.NodeProto:
    """A node that runs a graph."""
    return helper.make_node("If", ["yes"], ["x"], then_branch=body, else_branch=graph())


def sparse(tensor: TensorProto) -> onnx.SparseTensorProto:
    """A sparse tensor with these values."""
    return onnx.SparseTensorProto(values=tensor, dims=[4])


def function(tensor: TensorProto) -> onnx.ModelProto:
    """A program with a function that has a tensor."""
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    made = helper.make_function("own", "F", [], ["y"], [node], [helper.make_opsetid("", 21)])
    return helper.make_model(graph(), functions=[made])


def trained(tensor: TensorProto) -> onnx.ModelProto:
    """A program with a graph for training."""
    model = helper.make_model(graph())
    model.training_info.add().algorithm.CopyFrom(graph(initializer=[tensor]))
    return model


def deep(tensor: TensorProto, count: int) -> onnx.ModelProto:
    """A tensor in the innermost of nested graphs."""
    body = graph(initializer=[tensor])
    for _ in range(count):
        body = graph(branch(body))
    return helper.make_model(body)


PLACES = {
    "an initializer": lambda t: helper.make_model(graph(initializer=[t])),
    "a sparse one": lambda t: helper.make_model(graph(sparse_initializer=[sparse(t)])),
    "an attribute": lambda t: helper.make_model(
        graph(helper.make_node("Constant", [], ["y"], value=t))
    ),
    "one of several": lambda t: helper.make_model(
        graph(helper.make_node("Own", [], ["y"], several=[numpy_helper.from_array(np.ones(2)), t]))
    ),
    "a sparse attribute": lambda t: helper.make_model(
        graph(helper.make_node("Constant", [], ["y"], sparse_value=sparse(t)))
    ),
    "a branch": lambda t: deep(t, 1),
    "a branch of branches": lambda t: deep(t, 9),
    "a function": function,
    "training": trained,
}


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def cut_number(model: onnx.ModelProto) -> bytes:
    """The graph is field 2^29 + 7: ONNX Runtime's parser keeps the low bits, which say 7."""
    data, inner = model.SerializeToString(), model.graph.SerializeToString()
    tag = b"\x3a" + varint(len(inner))
    assert data.count(tag) == 1
    return data.replace(tag, b"\xba\x80\x80\x80\x10" + tag[1:])


ORT_FORMAT = b"\x08\x80\x01\x08ORT" + b"M" * 0x54  # it is an ONNX file of numbers and a text, too


def loop(*inputs: str, nodes: tuple = (), body: onnx.GraphProto | None = None) -> bytes:
    """A program with a loop, and these nodes in front of it."""
    node = helper.make_node("Loop", list(inputs), ["y"], body=body or graph())
    return helper.make_model(graph(*nodes, node)).SerializeToString()


SIZE = (helper.make_node("Size", ["x"], ["count"]),)
WORK = {
    "a loop without end": loop("many", "yes", "v"),
    "a loop on a condition": loop("", "yes", "v", nodes=SIZE),
    "a loop that counts nothing": loop("", "", "v"),
    "a branch": helper.make_model(graph(branch(graph()))).SerializeToString(),
    "a scan": helper.make_model(
        graph(helper.make_node("Scan", ["x"], ["y"], body=graph(), num_scan_inputs=1))
    ).SerializeToString(),
    "a loop in a loop": loop(
        *("count", "", "v"),
        nodes=SIZE,
        body=graph(*SIZE, *onnx.load_from_string(loop("count", "", "v")).graph.node),
    ),
    "functions": function(numpy_helper.from_array(np.ones(1))).SerializeToString(),
    "training": trained(numpy_helper.from_array(np.ones(1))).SerializeToString(),
}


def told(kind: str, **numbers: Any) -> bytes:
    """A program with an operator that is told numbers."""
    return helper.make_model(
        graph(helper.make_node(kind, [], ["y"], **numbers))
    ).SerializeToString()


def split(outputs: int, *numbers: int) -> bytes:
    """A Split that is told how many outputs it has."""
    named: dict[str, Any] = {"num_outputs": numbers[0] if len(numbers) == 1 else list(numbers)}
    node = helper.make_node("Split", ["x"], [f"y{i}" for i in range(outputs)], **named)
    return helper.make_model(graph(node)).SerializeToString()


def packed(*numbers: int) -> bytes:
    """The same, several numbers as one field of bytes."""

    def field(number: int, data: bytes) -> bytes:
        return varint(8 * number + 2) + varint(len(data)) + data

    attribute = field(1, b"heads") + field(8, b"".join(map(varint, numbers)))
    return field(7, field(1, field(5, attribute) + field(4, b"Own")))


WIDE = {
    "2^31": told("Own", heads=2**31),
    "2^63 - 1": told("Own", heads=2**63 - 1),
    "less than -2^31": told("Own", heads=-(2**31) - 1),
    "one of several": told("Own", heads=[1, 2**40, 1]),
    "one of several together": packed(1, 2**40),
    "in a loop": loop(
        *("count", "", "v"),
        nodes=SIZE,
        body=graph(helper.make_node("Own", [], ["y"], heads=2**32)),
    ),
}
SPLITS = {
    "more outputs": split(3, 2),
    "fewer outputs": split(1, 2),
    "two numbers": split(3, 3, 2),
    "a negative number": split(2, -1),
}
NARROW = {
    "a split": split(3, 3),
    "32 bits": told("Own", heads=2**31 - 1, others=[-(2**31), -1, 0], share=1e30),
    "32 bits together": packed(1, 2**31 - 1),
    "a constant": told("Constant", value_int=2**40),
    "constants": told("Constant", value_ints=[2**40, -(2**40)]),
}


def point_to(folder: Path, name: str) -> None:
    """All programs read their weights from another file, and the manifest has their hashes."""
    manifest = read_manifest(folder)
    files = dict(manifest.files)
    for path in folder.glob("*.onnx"):
        model = onnx.load_model(path, load_external_data=False)
        entries = [e for t in model.graph.initializer for e in t.external_data]
        for entry in entries:
            if entry.key == "location":
                entry.value = name
        path.write_bytes(model.SerializeToString())
        files[path.name] = file_entry(path)
    manifest = msgspec.structs.replace(manifest, files=files)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
