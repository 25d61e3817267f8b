"""Programs: what `export` makes of a module, and the signature that goes with it."""

import pytest
import torch
from torch import Tensor, nn

from lcc.ir.program import (
    DECODE,
    HEAD,
    PREFILL_CHUNK,
    Input,
    Program,
    examples,
    export,
    input_nodes,
    ports,
    re_export,
)
from lcc.ir.roles import Role
from lcc.ir.signature import Port, TensorSpec

KEY, VALUE, USED = (
    Port("key", Role.KEY, 3),
    Port("value", Role.VALUE, 3),
    Port("used", Role.COUNTER),
)
SLOTS = "slots", torch.export.Dim("slots", min=2, max=64)


class Shift(nn.Module):
    """Has a weight, and outputs that replace inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([2.0]))

    def forward(self, key: Tensor, value: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
        return key * self.weight, value + key + used


class Listed(Shift):
    """The same, with its inputs in a list."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        key, value, used = inputs
        return key * self.weight, value + key + used


def shift(module: nn.Module, *names: str) -> Program:
    cache, one = torch.zeros(1, 8), torch.zeros(1, dtype=torch.int32)
    return export(
        module,
        names or (HEAD,),
        [Input(KEY, cache, {1: SLOTS}), Input(VALUE, cache, {1: SLOTS}), Input(USED, one)],
        [Port("key_out", Role.KEY, 3), Port("value_out", Role.VALUE, 3)],
        {"key_out": "key", "value_out": "value"},
    )


@pytest.mark.parametrize("module", [Shift, Listed])
def test_one_tensor_given_for_two_inputs_stays_two_inputs(module: type[nn.Module]) -> None:
    program = shift(module())
    assert len(input_nodes(program.exported)) == 3
    run = program.exported.module()
    key, value, used = torch.ones(1, 5), torch.arange(5.0)[None], torch.ones(1, dtype=torch.int32)
    with torch.no_grad():
        new_key, new_value = run(key, value, used)
    assert new_key.tolist() == [[2, 2, 2, 2, 2]]
    assert new_value.tolist() == [[2, 3, 4, 5, 6]]


@pytest.mark.parametrize("module", [Shift, Listed])
def test_the_signature_has_names_roles_and_sizes(module: type[nn.Module]) -> None:
    program = shift(module())
    common = {"dtype": "float32", "layer": 3, "shape": (1, "slots")}
    assert program.inputs == (
        TensorSpec(name="key", role=Role.KEY, **common),
        TensorSpec(name="value", role=Role.VALUE, **common),
        TensorSpec(name="used", role=Role.COUNTER, dtype="int32", shape=(1,)),
    )
    assert program.outputs == (
        TensorSpec(name="key_out", role=Role.KEY, **common),
        TensorSpec(name="value_out", role=Role.VALUE, **common),
    )
    assert program.updates == {"key_out": "key", "value_out": "value"}
    assert program.input_names == ["key", "value", "used"]
    assert program.output_names == ["key_out", "value_out"]
    assert program.with_role(Role.COUNTER, Role.VALUE) == list(program.inputs[1:])
    assert ports(program.inputs) == [KEY, VALUE, USED]
    assert list(examples(program)) == ["key", "value", "used"]
    assert program.input_node("used") is input_nodes(program.exported)[2]


def test_one_graph_may_serve_two_names() -> None:
    step = shift(Shift(), PREFILL_CHUNK, DECODE)
    assert (step.file_stem, step.is_step) == ("step", True)
    head = shift(Shift(), HEAD)
    assert (head.file_stem, head.is_step) == ("head", False)
    decode = shift(Shift(), DECODE)
    assert (decode.file_stem, decode.is_step) == ("decode", True)


def test_another_module_takes_a_programs_place() -> None:
    """In float16, with fewer inputs, and with sizes that are still left to the call."""

    class Negative(nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return -inputs[0]

    program = shift(Shift(), PREFILL_CHUNK, DECODE)
    values = {"key": torch.zeros(1, 8, dtype=torch.float16)}
    made = re_export(program, Negative(), values, outputs=[Port("key_out", Role.KEY, 3)])
    assert made.names == program.names
    assert [(each.dtype, each.shape) for each in made.inputs] == [("float16", (1, "slots"))]
    assert [(each.dtype, each.shape) for each in made.outputs] == [("float16", (1, "slots"))]
    for count in (3, 9):
        got = made.exported.module()(torch.ones(1, count, dtype=torch.float16))
        assert got.tolist() == [[-1.0] * count]
