"""What is compiled for GPUs computes the right numbers, on a CPU; and is machine code."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lcc import env
from lcc.capture.export import capture
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import TargetError
from lcc.ir.program import Program
from lcc.specialize import specialize
from lcc.targets import tvm_cuda
from lcc.targets.tvm_cuda import FATBIN, TvmCuda
from lcc.targets.tvm_cuda.importer import import_program
from lcc.testing.tiny import tiny_model

CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
PLAN = "0: sink_window(sink=2, window=9); 1: full"

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")


@pytest.fixture(scope="module")
def exact() -> list[Program]:
    """As they are before, in float32."""
    config = CompileConfig(cache=CACHE, policy=PolicyConfig(name="snapkv"), plan=PLAN)
    return specialize(capture(tiny_model("llama")), config, "tiny", "llama", None).programs


@pytest.fixture(scope="module")
def programs(exact: list[Program]) -> list[Program]:
    target = TvmCuda()
    return target.adapt(target.cast(exact))


def named(programs: list[Program], name: str) -> Program:
    return next(program for program in programs if name in program.names)


def inputs_of(program: Program) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    args, named = program.exported.example_inputs
    values = named or dict(zip(program.inputs, args, strict=True))
    given = {}
    for name, value in values.items():
        if value.dtype in (torch.float16, torch.float32):
            given[name] = torch.randn(value.shape, generator=draw).to(value.dtype)
        elif name == "tokens":
            given[name] = torch.randint(5, 250, value.shape, generator=draw)
        elif name.startswith("used"):
            given[name] = torch.tensor([60 if "kept" in program.outputs else 7], dtype=torch.int32)
        elif name == "new_slots":
            given[name] = torch.arange(value.shape[0])
        else:
            given[name] = torch.arange(value.numel()).reshape(value.shape).to(value.dtype)
    return given


@pytest.mark.parametrize("name", ["prefill_chunk", "head", "evict_0", "score_0", "compact_0"])
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
    given["query_rows"] = torch.arange(CACHE.chunk_size)  # all, as the module hands them out
    halves = {n for n, x in given.items() if x.dtype == torch.float16}
    given = {n: given[n].float() if n in halves else given[n] for n in original.inputs}
    with torch.no_grad():
        wanted = run(**given) if original.exported.example_inputs[1] else run(*given.values())
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for output, one, other in zip(program.outputs, got, wanted, strict=True):
        one, other = one.numpy().astype("f4"), other.float().numpy()
        if output.startswith(("key", "value")) and output.endswith("_out"):
            one, other = one[:, :, :20], other[:, :, :20]
        limit = 0 if output == "kept" else 2e-2 * max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one, other, atol=limit, err_msg=output)


@needs_nvcc
@pytest.mark.parametrize("architecture", ["sm_90", "sm_80"])
def test_there_is_machine_code(architecture: str, programs: list[Program], tmp_path: Path) -> None:
    target = TvmCuda()
    target.cpu = architecture
    files = target.build([named(programs, "decode")], tmp_path)
    code = (tmp_path / files["decode"]).read_bytes()
    assert FATBIN in code
    assert architecture.encode() in code
    assert (tmp_path / "weights_tvm_cuda.bin").stat().st_size > 0


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
