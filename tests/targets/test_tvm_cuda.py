"""What is compiled for GPUs computes the right numbers, on a CPU; and is machine code."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lcc import env
from lcc.errors import TargetError
from lcc.ir.program import Program, examples
from lcc.ir.roles import Role
from lcc.passes.programs.base import run_program_passes
from lcc.passes.specialize import Specialized
from lcc.targets import tvm_cuda
from lcc.targets.tvm_cuda import FATBIN, TvmCuda
from lcc.targets.tvm_cuda.importer import import_program

PLAN = "0: sink_window(sink=2, window=9); 1: full"
WHOLE = (Role.KEPT, Role.TOKEN_POSITION, Role.COUNTER)
# Of an eviction from a full layer, and of one step that reads 16 tokens.
CYCLE = {"used": 90, "kept": 60, "tokens_read": 500, "left": -1, "start": 80, "known": 60}
STEP = {"used": 7}

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


@pytest.fixture(scope="module")
def exact(specialized: Callable[..., Specialized]) -> list[Program]:
    """As they are before, in float32."""
    return specialized("llama", "snapkv", PLAN).programs


@pytest.fixture(scope="module")
def programs(exact: list[Program]) -> list[Program]:
    return run_program_passes(exact, TvmCuda().passes())


def named(programs: list[Program], name: str) -> Program:
    return next(program for program in programs if name in program.names)


def inputs_of(program: Program) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    counters, given = STEP if program.is_step else CYCLE, {}
    for spec, value in zip(program.inputs, examples(program).values(), strict=True):
        name = spec.name
        if value.dtype in (torch.float16, torch.float32):
            given[name] = torch.randn(value.shape, generator=draw).to(value.dtype)
        elif spec.role == Role.TOKENS:
            given[name] = torch.randint(5, 250, value.shape, generator=draw)
        elif spec.role == Role.COUNTER:
            given[name] = torch.full_like(value, counters.get(name, 0))
        elif spec.role in (Role.TOKEN_POSITION, Role.KEPT):
            rows = [torch.randperm(value.shape[1], generator=draw) for _ in value]
            given[name] = torch.stack(rows).sort(1).values
        else:
            given[name] = torch.arange(value.numel()).reshape(value.shape).to(value.dtype)
    return given


@pytest.mark.parametrize(
    "name", ["prefill_chunk", "head", "evict_0", "score_0", "see_1", "compact_0"]
)
def test_the_module_is_the_program(
    name: str, programs: list[Program], exact: list[Program]
) -> None:
    """Compiled for this CPU instead, in half precision, against eager PyTorch in float32."""
    import tvm
    from tvm import relax

    program = named(programs, name)
    assert {p.dtype for p in program.exported.parameters()} <= {torch.float16}
    module, weights = import_program(program)
    machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
    given = inputs_of(program)
    arrays = [tvm.runtime.tensor(x.numpy()) for x in [*given.values(), *weights]]
    got = machine["main"](*arrays)
    original = named(exact, name)
    run = original.exported.module(check_guards=False)
    given["query_rows"] = torch.arange(16)  # all, as the module hands them out
    wide = {n: x.float() if x.dtype == torch.float16 else x for n, x in given.items()}
    with torch.no_grad():
        wanted = run(*(wide[name] for name in original.input_names))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for spec, one, other in zip(program.outputs, got, wanted, strict=True):
        one, other = one.numpy().astype("f4"), other.float().numpy()
        if spec.role in (Role.KEY, Role.VALUE):  # what lies behind has no meaning
            one, other = one[:, :, :20], other[:, :, :20]
        if spec.role == Role.TOKEN_POSITION:
            one, other = one[:, :20], other[:, :20]
        limit = 0 if spec.role in WHOLE else 2e-2 * max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one, other, atol=limit, err_msg=spec.name)


@needs_nvcc
@pytest.mark.parametrize(("name", "architecture"), [("decode", "sm_90"), ("compact_0", "sm_80")])
def test_there_is_machine_code(
    name: str, architecture: str, programs: list[Program], tmp_path: Path
) -> None:
    """And a file of weights, of programs that have some."""
    target = TvmCuda()
    target.cpu = architecture
    files = target.build([named(programs, name)], tmp_path)
    code = (tmp_path / files[name]).read_bytes()
    assert FATBIN in code
    assert architecture.encode() in code
    stored = (tmp_path / "weights_tvm_cuda.bin").stat().st_size
    assert stored > 100_000 if name == "decode" else stored < 20_000


@needs_nvcc
def test_source_alone_is_an_error(
    programs: list[Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TVM says nothing where its part for CUDA does not load."""

    @contextlib.contextmanager
    def without_driver() -> Iterator[dict[str, str]]:
        yield env.with_libraries([str(tmp_path)], TVM_CUDA_COMPILE_MODE="nvcc")

    monkeypatch.setattr(tvm_cuda, "environment", without_driver)
    with pytest.raises(TargetError, match="has no machine code for sm_90: TVM made source only"):
        TvmCuda().build([named(programs, "compact_0")], tmp_path)


def test_what_is_missing_is_said(programs: list[Program], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert TvmCuda().refusals(programs) == [
        "nvcc is not on this machine; install the CUDA toolkit, no GPU is needed"
    ]
