"""Hostile ONNX programs: other files, endless loops, huge tensors, operators of nobody."""

import os
from collections.abc import Callable
from typing import Any

from lcc.testing.fuzz.mutant import Mutant

Change = Callable[[Mutant], None]
ENDLESS = 2**62


def _edited(name: str, change: Callable[[Any], None]) -> Change:
    """A program that is changed, its hash in the manifest."""

    def go(mutant: Mutant) -> None:
        import onnx

        model = onnx.load_model_from_string(mutant.read(name))
        change(model)
        mutant.put(name, model.SerializeToString())

    return go


def _weights_at(place: str, offset: int | None = None) -> Change:
    """The weights of the step in another file, made by `_with`."""

    def change(model: Any) -> None:
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = place
                if entry.key == "offset" and offset is not None:
                    entry.value = str(offset)

    return _edited("step.onnx", change)


def _with(place: str, make: Callable[[Mutant, bytes], Any]) -> Change:
    """The same, and something at that place; it is given what lies outside."""

    def go(mutant: Mutant) -> None:
        other = bytes(reversed(mutant.read("weights.bin")))
        mutant.folder.with_name("secret.bin").write_bytes(other)
        make(mutant, other)
        _weights_at(place)(mutant)

    return go


def _secret(mutant: Mutant) -> str:
    return str(mutant.folder.with_name("secret.bin"))


def _hard_link(mutant: Mutant, _: bytes) -> None:
    os.link(_secret(mutant), mutant.folder / "hard.bin")


def _add_to_hidden(model: Any, nodes: list[Any], name: str) -> None:
    """The head reads hidden + a number that other operators make."""
    from onnx import helper

    for node in model.graph.node:
        for place, each in enumerate(node.input):
            if each == "hidden":
                node.input[place] = "hidden_more"
    nodes = [*nodes, helper.make_node("Add", ["hidden", name], ["hidden_more"])]
    for place, node in enumerate(nodes):
        model.graph.node.insert(place, node)


def _constant(model: Any, name: str, value: Any) -> None:
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(value, name))


def _scalar(name: str, kind: int, shape: list[int] | None = None) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, shape or [])


def _loop(model: Any, *, collects: bool = False) -> None:
    """A loop of 2^62 turns; `collects`: each of which gives 400 kB."""
    import numpy as np
    from onnx import TensorProto, helper

    real, yes = TensorProto.FLOAT, TensorProto.BOOL
    nodes = [helper.make_node("Identity", [f"{x}_in"], [f"{x}_out"]) for x in ("c", "v")]
    outputs = [_scalar("c_out", yes), _scalar("v_out", real)]
    if collects:
        nodes.append(helper.make_node("Identity", ["large"], ["s_out"]))
        outputs.append(_scalar("s_out", real, [100_000]))
        _constant(model, "large", np.zeros(100_000, np.float32))
    inputs = [_scalar("i", TensorProto.INT64), _scalar("c_in", yes), _scalar("v_in", real)]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    for name, value in (("go", True), ("none", np.float32(0)), ("many", np.int64(ENDLESS))):
        _constant(model, name, np.array(value))
    wanted = ["turned", *(["collected"] if collects else [])]
    _add_to_hidden(
        model, [helper.make_node("Loop", ["many", "go", "none"], wanted, body=body)], "turned"
    )
    if collects:
        model.graph.output.append(helper.make_tensor_value_info("collected", real, None))


def _filled(size: int) -> Callable[[Any], None]:
    """A tensor of a size that a constant says."""

    def change(model: Any) -> None:
        import numpy as np
        from onnx import helper

        _constant(model, "size", np.array([size], np.int64))
        nodes = [
            helper.make_node("ConstantOfShape", ["size"], ["full"]),
            helper.make_node("ReduceSum", ["full"], ["sum"], keepdims=0),
        ]
        _add_to_hidden(model, nodes, "sum")

    return change


def _weight(sizes: list[int], data: bytes) -> Callable[[Any], None]:
    """A weight that says another size than it has."""

    def change(model: Any) -> None:
        from onnx import TensorProto, helper

        tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, raw_data=data)
        tensor.dims.extend(sizes)
        model.graph.initializer.append(tensor)
        node = helper.make_node("ReduceSum", ["weight"], ["sum"], keepdims=0)
        _add_to_hidden(model, [node], "sum")

    return change


def _operator(domain: str, name: str, **fields: str) -> Callable[[Any], None]:
    """An operator of another domain."""

    def change(model: Any) -> None:
        from onnx import helper

        node = helper.make_node(name, ["hidden"], ["odd"], domain=domain, **fields)
        model.graph.node.insert(0, node)
        model.opset_import.append(helper.make_opsetid(domain, 1))
        model.graph.output.append(helper.make_tensor_value_info("odd", 1, None))

    return change


def _functions(count: int) -> Callable[[Any], None]:
    """Functions each of which calls the one before twice; one alone calls itself."""

    def change(model: Any) -> None:
        from onnx import helper

        versions = [helper.make_opsetid("", 18), helper.make_opsetid("odd", 1)]
        for number in range(count):
            before = f"F{max(0, number - 1)}"
            if number == 0 and count > 1:
                nodes = [helper.make_node("Neg", ["x"], ["y"])]
            elif count == 1:
                nodes = [helper.make_node("F0", ["x"], ["y"], domain="odd")]
            else:
                nodes = [
                    helper.make_node(before, ["x"], ["m"], domain="odd"),
                    helper.make_node(before, ["m"], ["y"], domain="odd"),
                ]
            made = helper.make_function("odd", f"F{number}", ["x"], ["y"], nodes, versions)
            model.functions.append(made)
        model.opset_import.append(helper.make_opsetid("odd", 1))
        node = helper.make_node(f"F{count - 1}", ["hidden"], ["called"], domain="odd")
        _add_to_hidden(model, [node], "called")

    return change


def _head(change: Callable[[Any], None]) -> Change:
    return _edited("head.onnx", change)


def _told(name: str, kind: str, attribute: str, number: int) -> Change:
    """Another number for all operators of a kind."""

    def change(model: Any) -> None:
        found = [a for n in model.graph.node if n.op_type == kind for a in n.attribute]
        found = [each for each in found if each.name == attribute]
        assert found, (name, kind, attribute)
        for each in found:
            each.i = number

    return _edited(name, change)


def _rows_behind(mutant: Mutant) -> None:
    """What is to be brought back from an archive is counted from its other end."""
    _told("evict_0.onnx", "CumSum", "reverse", 1)(mutant)


PROGRAMS: dict[str, tuple[Change, bool]] = {
    **{
        f"{attribute} {number}": (
            _told("step.onnx", "GroupQueryAttention", attribute, number),
            True,
        )
        for attribute in ("num_heads", "kv_num_heads")
        for number in (2**32, 2**40)
    },
    "rows that an archive does not have": (_rows_behind, False),
    "weights above the folder": (_with("../secret.bin", lambda *_: None), True),
    "weights by a whole path": (
        lambda mutant: _with(_secret(mutant), lambda *_: None)(mutant),
        True,
    ),
    "weights in a file of no list": (
        _with("more.bin", lambda mutant, data: mutant.write("more.bin", data)),
        True,
    ),
    "weights behind a link": (
        _with("link.bin", lambda m, _: (m.folder / "link.bin").symlink_to(_secret(m))),
        True,
    ),
    "weights in a linked folder": (
        _with("d/secret.bin", lambda m, _: (m.folder / "d").symlink_to(m.folder.parent)),
        True,
    ),
    "weights behind a hard link": (_with("hard.bin", _hard_link), True),
    "weights in a pipe": (
        _with("pipe", lambda mutant, _: os.mkfifo(mutant.folder / "pipe")),
        True,
    ),
    "weights of /dev/zero": (_weights_at("/dev/zero"), True),
    "weights of this process": (_weights_at("/proc/self/mem"), True),
    "weights at an address": (_weights_at("*/_ORT_MEM_ADDR_/*", 4096), True),
    "weights at no address": (_weights_at("*/_ORT_MEM_ADDR_/*"), True),
    "weights in the manifest": (_weights_at("manifest.json", 0), True),
    "an operator of nobody": (_head(_operator("odd.operators", "Odd")), True),
    "an operator that runs Python": (
        _head(_operator("pyopmulti_1", "PyOp", module="os", compute="system")),
        True,
    ),
    "a loop without end": (_head(_loop), True),
    "a loop that collects": (_head(lambda model: _loop(model, collects=True)), True),
    "a tensor of 2^40": (_head(_filled(2**40)), True),
    "a tensor of 2 GB": (_head(_filled(2**29)), True),
    "a tensor of -5": (_head(_filled(-5)), True),
    "a weight of 2^40, without bytes": (_head(_weight([2**40], bytes(16))), True),
    "a weight of 2^32 x 2^32": (_head(_weight([2**32, 2**32], b"")), True),
    "a weight of -1": (_head(_weight([-1], bytes(16))), True),
    "a function that calls itself": (_head(_functions(1)), True),
    "functions of 2^29 operators": (_head(_functions(30)), True),
}
