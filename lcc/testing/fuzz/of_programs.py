"""ONNX programs with other operators, attributes, shapes, wires, and places of their weights."""

from random import Random
from typing import Any

ODD = (0, 1, -1, 2, 3, 7, 64, 1000, 2**31, 2**40, -(2**40), 2**62)
PLACES = (
    *("../outside", "/etc/passwd", "manifest.json", "tokenizer.json", "", ".", "..", "/dev/zero"),
    *("é", "*/_ORT_MEM_ADDR_/*"),
)
OFFSETS = ("0", "1", "-1", "4096", "999999999", str(2**62), str(2**64 - 1), "-4096", "abc", "")


def change_program(data: bytes, random: Random) -> tuple[bytes, str]:
    """One or two changes; says which."""
    import onnx

    model = onnx.load_model_from_string(data)
    said = [random.choice(CHANGES)(model, random) for _ in range(random.choice([1, 1, 2]))]
    return model.SerializeToString(), "; ".join(said)


def attribute(model: Any, random: Random) -> str:
    """A number of an attribute."""
    nodes = [node for node in model.graph.node if node.attribute]
    if not nodes:
        return "nothing"
    node, new = random.choice(nodes), random.choice(ODD)
    chosen = random.choice(node.attribute)
    if chosen.type == chosen.INT:
        chosen.i = new
    elif chosen.type == chosen.FLOAT:
        chosen.f = float(new)
    elif chosen.type == chosen.INTS and chosen.ints:
        chosen.ints[random.randrange(len(chosen.ints))] = new
    return f"{node.op_type}.{chosen.name}={new}"


def operator(model: Any, random: Random) -> str:
    """Another operator, or none."""
    node, other = random.choice(model.graph.node), random.choice(model.graph.node)
    said = f"{node.op_type} is {other.op_type}"
    if random.random() < 0.3:
        said = f"{node.op_type} is gone"
        model.graph.node.remove(node)
    else:
        node.op_type = other.op_type
    return said


def wire(model: Any, random: Random) -> str:
    """An operator reads something else: of another, or its own output."""
    graph = model.graph
    node = random.choice(graph.node)
    if not node.input or not node.output:
        return "nothing"
    names = [name for each in graph.node for name in each.output]
    names += [each.name for each in (*graph.input, *graph.initializer)]
    place = random.randrange(len(node.input))
    node.input[place] = random.choice([*names, "", node.output[0], node.output[0]])
    return f"{node.op_type}.input[{place}]={node.input[place]}"


def constant(model: Any, random: Random) -> str:
    """Sizes, type or bytes of a weight that lies in the file."""
    if not model.graph.initializer:
        return "nothing"
    tensor = random.choice(model.graph.initializer)
    kind = random.choice(["sizes", "type", "bytes"])
    if kind == "sizes":
        new = random.choice([0, 1, -1, 2, 3, 65, 2**31, 2**40, 2**62])
        if tensor.dims:
            tensor.dims[random.randrange(len(tensor.dims))] = new
        else:
            tensor.dims.append(new)
    elif kind == "type":
        tensor.data_type = random.randrange(24)
    else:
        tensor.raw_data = random.randbytes(random.choice([0, 1, len(tensor.raw_data)]))
    return f"{tensor.name}: {kind}"


def place_of_weights(model: Any, random: Random) -> str:
    """Where a weight lies outside of the file."""
    tensors = [each for each in model.graph.initializer if each.external_data]
    if not tensors:
        return "nothing"
    tensor = random.choice(tensors)
    entry = random.choice(tensor.external_data)
    entry.value = random.choice(PLACES if entry.key == "location" else OFFSETS)
    return f"{tensor.name}: {entry.key}={entry.value}"


def signature(model: Any, random: Random) -> str:
    """Shape and type of an input or output, as the program itself says them."""
    value = random.choice([*model.graph.input, *model.graph.output])
    if sizes := value.type.tensor_type.shape.dim:
        random.choice(sizes).dim_value = random.choice([0, 1, 3, 2**40, -5])
    if random.random() < 0.3:
        value.type.tensor_type.elem_type = random.randrange(1, 17)
    if random.random() < 0.2:
        value.name = random.choice([value.name + "x", "", "hidden", "used"])
    return f"{value.name}: signature"


def version(model: Any, random: Random) -> str:
    """Of the operators."""
    model.opset_import[0].version = random.choice([0, 1, 7, 13, 25, 99, 2**40])
    return "version of the operators"


CHANGES = [attribute] * 3 + [operator] * 2 + [wire] * 2 + [constant] * 2 + [place_of_weights] * 3
CHANGES += [signature, version]
