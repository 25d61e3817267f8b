"""Programs whose sizes are numbers: the same results, one program a size."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lcc.errors import PassError
from lcc.ir.program import HEAD, Program
from lcc.ir.roles import Role
from lcc.passes.programs.base import run_program_passes
from lcc.passes.programs.static_shapes import StaticShapes
from lcc.passes.specialize import Specialized

Special = Callable[..., Specialized]
Call = Callable[..., dict[str, Tensor]]


@pytest.fixture(scope="module")
def steps(specialized: Special) -> dict[str, Program]:
    """The step as it is, and the two that come of it."""
    programs = specialized("snapkv").programs
    made = run_program_passes(programs, [StaticShapes(Role.TOKENS)])
    return {"step": programs[0]} | {name: each for each in made for name in each.names}


def test_a_step_becomes_two(specialized: Special, steps: dict[str, Program]) -> None:
    chunk, decode = steps["prefill_chunk"], steps["decode"]
    assert (chunk.names, decode.names) == (("prefill_chunk",), ("decode",))
    for program, count in ((chunk, 16), (decode, 1)):
        shapes = {spec.name: spec.shape for spec in (*program.inputs, *program.outputs)}
        assert shapes["tokens"] == shapes["positions"] == (1, count)
        assert shapes["hidden"] == (1, count, 64)
        assert shapes["queries_1"] == (count, 4, 16)  # of every row
        assert shapes["key_0"] == shapes["key_0_out"] == (1, 2, 96, 16)
        assert "query_rows" not in shapes
        assert program.updates == steps["step"].updates
    assert [spec.shape for spec in steps[HEAD].inputs] == [(32, 64), (32,)]
    untouched = [each for each in specialized("snapkv").programs if not each.with_role(Role.TOKENS)]
    assert all(steps[each.names[0]] is each for each in untouched)


@pytest.mark.parametrize(("name", "count"), [("prefill_chunk", 16), ("decode", 1)])
def test_it_gives_what_the_program_gives(
    steps: dict[str, Program], call: Call, name: str, count: int
) -> None:
    draw = torch.Generator().manual_seed(4)
    given = {
        "tokens": torch.randint(0, 250, (1, count), generator=draw),
        "positions": torch.arange(20, 20 + count)[None],
        "used": torch.tensor([20], dtype=torch.int32),
    }
    for spec in steps[name].with_role(Role.KEY, Role.VALUE):
        given[spec.name] = torch.randn(1, 2, 96, 16, generator=draw)
    wanted = call(steps["step"], query_rows=torch.arange(count), **given)
    got = call(steps[name], **given)
    assert got.keys() == wanted.keys()
    for key, value in got.items():
        torch.testing.assert_close(value, wanted[key], atol=1e-5, rtol=0)


def test_the_promise_is_checked(steps: dict[str, Program]) -> None:
    StaticShapes(Role.TOKENS).ensures(steps["decode"])
    with pytest.raises(PassError, match=r"static_shapes: step: tokens: \(1, 'tokens'\)"):
        StaticShapes(Role.TOKENS).ensures(steps["step"])


def test_a_program_without_bounds_keeps_the_sizes_it_was_traced_with(specialized: Special) -> None:
    (evict,) = [each for each in specialized("snapkv").programs if "evict_0" in each.names]
    (made,) = StaticShapes(Role.SLOTS).rewrite(evict) or []
    assert made.names == evict.names
    shapes = {spec.name: spec.shape for spec in made.inputs}
    assert shapes["key"] == (1, 2, 96, 16)
    assert shapes["new_slots"] == (40,)
