"""The program `evict` of every policy in ONNX Runtime: the same entries, at any size."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from lcc.config import PolicyConfig
from lcc.ir.program import Program
from lcc.ir.roles import Role
from lcc.passes.policies import POLICIES, make_policy
from lcc.passes.programs.evict import Evict, Protection, evict_program
from lcc.passes.rotation import Rotation
from lcc.targets import find_target

EVICTING = [name for name, policy in POLICIES.items() if policy.evicts]
OPTIONS = {"infinipot": {"attention_span": 5, "nll_span": 3}, "locret": {"alpha": 0.4}}
HEADS, D = 2, 8
SIZES = Protection(sink_size=2, recent_size=3)
INTEGERS = ("used", "kept", "protected", "left", "layer", "seed")


def program_of(name: str) -> Program:
    policy = make_policy(PolicyConfig(name=name, options=OPTIONS.get(name, {})))
    frequencies = torch.tensor([1.0, 0.2, 0.03], dtype=torch.float64)
    table = Rotation.from_frequencies(frequencies, 128)
    sizes = {"kv_heads": HEADS, "head_size": D, "capacity": 24, "budget": 10}
    return evict_program("evict_0", Evict(policy, SIZES, table), **sizes)


def inputs(program: Program, slots: int, used: int, budget: int) -> dict[str, Tensor]:
    """Random numbers of every input, in the shapes that the program says."""
    g = torch.Generator().manual_seed(slots)
    numbers = {"used": used, "kept": used // 2, "left": 1, "layer": 3, "seed": 5, "protected": 0}
    given = {name: torch.tensor([n], dtype=torch.int32) for name, n in numbers.items()}
    given |= {"tokens_read": torch.tensor([1000]), "new_slots": torch.arange(budget)}
    given["token_position"] = torch.arange(slots).expand(HEADS, -1) * 3
    for spec in program.inputs:
        if spec.name not in given:
            shape = [slots if size == "slots" else int(size) for size in spec.shape]
            given[spec.name] = torch.randn(shape, generator=g).abs()
    return {name: given[name] for name in program.input_names}


def session(program: Program, folder: Path) -> Callable[[dict[str, Tensor]], dict[str, np.ndarray]]:
    files = find_target("onnxruntime:cpu").build([program], folder)
    onnx = onnxruntime.InferenceSession(folder / files["evict_0"])

    def run(given: dict[str, Tensor]) -> dict[str, np.ndarray]:
        values = onnx.run(None, {name: x.numpy() for name, x in given.items()})
        return dict(zip([each.name for each in onnx.get_outputs()], values, strict=True))

    return run


@pytest.mark.parametrize("name", EVICTING)
def test_the_same_entries_at_any_size(
    name: str, tmp_path: Path, call: Callable[..., dict[str, Tensor]]
) -> None:
    program = program_of(name)
    run = session(program, tmp_path)
    for slots, used, budget in ((24, 22, 10), (128, 100, 64), (9, 9, 8), (30, 9, 6)):
        for ties in (False, True):
            given = inputs(program, slots, used, budget)
            if ties:
                for spec in program.with_role(Role.ENTRY_SCORE):
                    given[spec.name] = (given[spec.name] * 2).floor()
            expected, got = call(program, **given), run(given)
            assert list(got) == program.output_names
            places = expected["token_position_out"][:, :budget]
            assert got["token_position_out"][:, :budget].tolist() == places.tolist()
            for spec in program.outputs:
                axis = [*spec.shape].index("slots")
                one, other = (
                    torch.as_tensor(x).narrow(axis, 0, budget)
                    for x in (got[spec.name], expected[spec.name])
                )
                limit = 1e-6 if spec.role == Role.KEY else 0
                torch.testing.assert_close(one, other, rtol=0, atol=limit)


def test_the_signature() -> None:
    """What a runtime in any language binds, by name."""
    locret = program_of("locret")
    shapes = {spec.name: (spec.role, spec.dtype, spec.shape) for spec in locret.inputs}
    counter = (Role.COUNTER, "int32", (1,))
    assert shapes == {
        "key": (Role.KEY, "float32", (1, HEADS, "slots", D)),
        "value": (Role.VALUE, "float32", (1, HEADS, "slots", D)),
        "token_position": (Role.TOKEN_POSITION, "int64", (HEADS, "slots")),
        **dict.fromkeys(INTEGERS, counter),
        "tokens_read": (Role.COUNTER, "int64", (1,)),
        "new_slots": (Role.SLOTS, "int64", ("budget",)),
        "retaining": (Role.ENTRY_SCORE, "float32", ("slots", HEADS)),
        "nll": (Role.ENTRY_SCORE, "float32", ("slots",)),
        "nll_kept": (Role.ENTRY_SCORE, "float32", (HEADS, "slots")),
    }
    outputs = {spec.name: spec.shape for spec in locret.outputs}
    assert outputs == {
        "key_out": (1, HEADS, "slots", D),
        "value_out": (1, HEADS, "slots", D),
        "token_position_out": (HEADS, "slots"),
        "retaining_out": ("slots", HEADS),
        "nll_kept_out": (HEADS, "slots"),
    }
    assert locret.updates == {}  # they go to a spare layer
    consensus = program_of("consensus")
    shapes = {spec.name: spec.shape for spec in consensus.inputs}
    assert shapes["agreed"] == shapes["sentence"] == shapes["nll"] == ("slots",)
    assert shapes["sentence_kept"] == (HEADS, "slots")


@pytest.mark.parametrize("odd", [-math.inf, math.inf, math.nan])
def test_a_rank_that_is_no_number(
    odd: float, tmp_path: Path, call: Callable[..., dict[str, Tensor]]
) -> None:
    program = program_of("h2o")
    given = inputs(program, 30, 25, 16)
    paid = given["attention"]
    paid[torch.rand(paid.shape, generator=torch.Generator().manual_seed(3)) < 0.3] = odd
    wanted = call(program, **given)["token_position_out"][:, :16]
    got = session(program, tmp_path)(given)["token_position_out"][:, :16]
    assert got.tolist() == wanted.tolist()
