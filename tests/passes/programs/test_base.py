"""Program passes in order: what is dumped, what is checked, and which one failed."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lcc.errors import PassError
from lcc.ir.program import DECODE, PREFILL_CHUNK, Input, Program, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.passes.programs.base import ProgramPass, run_program_passes


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + x


class Square(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


def program(module: nn.Module, *names: str) -> Program:
    x = Input(Port("x", Role.HIDDEN), torch.ones(3))
    return export(module, names, [x], [Port("y", Role.HIDDEN)])


class SquareSteps(ProgramPass):
    """Two programs in place of a step."""

    def rewrite(self, program_: Program) -> list[Program] | None:
        if not program_.is_step:
            return None
        return [program(Square(), name) for name in program_.names]


class BreakPromise(ProgramPass):
    def requires(self, program: Program) -> None:
        if "annotate" in program.names:
            raise PassError("not fit for annotate")

    def rewrite(self, program: Program) -> list[Program] | None:
        return [program] if program.is_step else None

    def ensures(self, program: Program) -> None:
        raise PassError("promise broken")


@pytest.fixture(scope="module")
def programs() -> list[Program]:
    return [program(Double(), PREFILL_CHUNK, DECODE), program(Double(), "head")]


def test_a_pass_may_give_several_programs_or_leave_one(programs: list[Program]) -> None:
    made = run_program_passes(programs, [SquareSteps()])
    assert [each.names for each in made] == [("prefill_chunk",), ("decode",), ("head",)]
    assert made[2] is programs[1]
    with torch.no_grad():
        assert [each.exported.module()(torch.tensor([1.0, 2, 3])).tolist() for each in made] == [
            [1, 4, 9],
            [1, 4, 9],
            [2, 4, 6],
        ]


def test_every_program_is_dumped_after_every_pass(programs: list[Program], tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "dump"
    run_program_passes(programs, [SquareSteps()], dump=folder, label="onnxruntime:cpu")
    assert sorted(path.name for path in folder.iterdir()) == [
        "onnxruntime_cpu_0_split_head.txt",
        "onnxruntime_cpu_0_split_step.txt",
        "onnxruntime_cpu_1_square_steps_decode.txt",
        "onnxruntime_cpu_1_square_steps_head.txt",
        "onnxruntime_cpu_1_square_steps_prefill_chunk.txt",
    ]
    assert "aten.add" in (folder / "onnxruntime_cpu_0_split_step.txt").read_text()
    assert "aten.mul" in (folder / "onnxruntime_cpu_1_square_steps_decode.txt").read_text()


def test_promises_are_checked(programs: list[Program], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PassError, match="promise broken") as caught:
        run_program_passes(programs, [SquareSteps(), BreakPromise()])
    assert caught.value.__notes__ == ["in program pass 2 of 2, break_promise"]
    assert run_program_passes(programs[1:], [BreakPromise()]) == programs[1:]  # it stays as it was
    monkeypatch.setenv("LCC_CHECK", "0")
    assert run_program_passes(programs, [BreakPromise()]) == programs


def test_what_is_not_fit_is_refused() -> None:
    with pytest.raises(PassError, match="not fit for annotate"):
        run_program_passes([program(Double(), "annotate")], [BreakPromise()])


def test_every_program_pass_has_the_name_of_its_file() -> None:
    from lcc.passes.programs.half_cache import HalfCache
    from lcc.passes.programs.half_precision import HalfPrecision
    from lcc.passes.programs.static_shapes import StaticShapes

    for each in (HalfCache(), HalfPrecision(), StaticShapes(Role.TOKENS)):
        assert type(each).__module__ == f"lcc.passes.programs.{each.name}"
