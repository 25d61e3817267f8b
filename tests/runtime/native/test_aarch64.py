"""The native runtime as Arm code, under qemu: bash docs/measure/aarch64.sh makes what it needs."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, KvPrecision, PolicyConfig, Precision
from lcc.targets import missing
from lcc.testing.tiny import save_tiny

ARM = Path(__file__).parents[3] / ".aarch64"
SITE = ARM / "site"
TEXT = "It was the best of times. 书 is a book, and 🙂 smiles at it; then the cafés closed. " * 4

pytestmark = pytest.mark.skipif(
    not (ARM / "native").exists() or shutil.which("qemu-aarch64") is None,
    reason="needs qemu-aarch64 and an Arm system: bash docs/measure/aarch64.sh",
)


@pytest.fixture(scope="module")
def lcc_run() -> list[str]:
    """The command that runs Arm's lcc-run here, after a build of what has changed."""
    build = ["cmake", "--build", str(ARM / "native"), "--parallel", "1"]
    done = subprocess.run(build, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    return ["qemu-aarch64", "-L", str(ARM / "root"), str(ARM / "native" / "lcc-run")]


def said(*command: object) -> str:
    """What it writes to stdout."""
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def engine() -> Path:
    """ONNX Runtime's library for Arm."""
    (library,) = SITE.glob("onnxruntime/capi/libonnxruntime.so.*")
    return library


def test_it_is_arm_code() -> None:
    library = (ARM / "native" / "liblcc.so").read_bytes()
    assert library[:4] == b"\x7fELF"
    assert int.from_bytes(library[18:20], "little") == 183  # EM_AARCH64


def test_the_golden_is_reproduced(lcc_run: list[str], engine: Path, tiny_artifact: Path) -> None:
    output = said(*lcc_run, tiny_artifact, "--golden", "--engine", engine, "--threads", 1)
    assert output == "golden: all numbers are the same\n"


def test_the_golden_in_int8(lcc_run: list[str], engine: Path, tmp_path: Path) -> None:
    """Products of bytes are other instructions there; recurrent layers, too."""
    save_tiny(tmp_path / "lfm2", "lfm2")
    cache = CacheConfig(capacity=96, budget=48, chunk_size=16, catalyst_size=8, recent_size=6)
    config = CompileConfig(cache=cache, policy=PolicyConfig(name="knorm"), precision="int8")
    compile_model(tmp_path / "lfm2", tmp_path / "m.lcc", config)
    how = ("--golden", "--engine", engine, "--threads", 1)
    assert said(*lcc_run, tmp_path / "m.lcc", *how) == "golden: all numbers are the same\n"


def test_text_is_answered_as_on_this_machine(
    lcc_run: list[str],
    engine: Path,
    native_build: Path,
    onnx_runtime: Path,
    tiny_artifact: Path,
    tmp_path: Path,
) -> None:
    """Letters of several bytes: a `char` has no sign there."""
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    how = ["-f", tmp_path / "text", "-p", "Où? 🙂", "-n", 12, "--temperature", 0, "--threads", 1]
    wanted = said(native_build / "lcc-run", tiny_artifact, "--engine", onnx_runtime, *how)
    assert wanted.strip()
    assert said(*lcc_run, tiny_artifact, "--engine", engine, *how) == wanted


@pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-g++") is None, reason="needs aarch64-linux-gnu-g++"
)
@pytest.mark.parametrize(
    ("precision", "kv_precision", "cpu"),
    [("fp32", "fp32", None), ("int8", "fp16", "armv8.2-a"), ("int4", "fp32", None)],
)
def test_the_golden_is_reproduced_by_tvm(
    precision: Precision,
    kv_precision: KvPrecision,
    cpu: str | None,
    lcc_run: list[str],
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    if lacks := missing("tvm:aarch64-linux"):
        pytest.skip(lacks)
    folder = tmp_path / "m.lcc"
    cache = CacheConfig(capacity=96, budget=48, chunk_size=16, catalyst_size=8, recent_size=6)
    policy = PolicyConfig(name="knorm")  # few programs: TVM takes its time for each
    config = CompileConfig(
        target="tvm:aarch64-linux",
        cache=cache,
        policy=policy,
        precision=precision,
        kv_precision=kv_precision,
        cpu=cpu,
    )
    compile_model(tiny_folder, folder, config)
    output = said(*lcc_run, folder, "--allow-native", "--golden", "--engine", SITE, "--threads", 1)
    assert output == "golden: all numbers are the same\n"
