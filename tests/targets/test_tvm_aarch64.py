"""Libraries for other machines: run under qemu where that is installed, looked at otherwise."""

import json
import shutil
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import lcc.runtime
from lcc.artifact.manifest import read_manifest
from lcc.cli import app
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig
from lcc.errors import ConfigError, TargetError
from lcc.targets.tvm_cpu import platforms
from lcc.testing.arm_kernels import ARM, PYTHON, missing

ROOT = Path(__file__).parents[2]
TEXT = np.random.default_rng(5).integers(5, 250, 250).tolist()
READ = """
import json, platform, sys, lcc.runtime
session = lcc.runtime.open(sys.argv[1], threads=2, allow_native=True)
session.feed(json.loads(sys.argv[2]), prefix=False)
tokens = list(session.generate_ids(max_new_tokens=40, eos=[]))
kept = [session.kept_tokens(i).tolist() for i in range(2)]
print(json.dumps([platform.machine(), len(session.cycles), tokens, kept]))
"""

cross = pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-g++") is None, reason="needs aarch64-linux-gnu-g++"
)


def site_of_runtime(folder: Path) -> Path:
    """The packages of lcc, laid out as they are imported."""
    package = folder / "lcc"
    shutil.copytree(ROOT / "lcc", package, ignore=shutil.ignore_patterns("train", "cli"))
    for name in ("passes", "targets", "runtime"):
        shutil.copytree(ROOT / name, package / name)
    return folder


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_under_qemu_the_tokens_are_those_of_this_machine(
    compiled: Callable[..., Path], tmp_path: Path
) -> None:
    """Several cycles, and generation; the whole runtime is Arm code."""
    paths = [str(site_of_runtime(tmp_path / "site")), str(ARM / "site")]
    command = ["qemu-aarch64", "-L", str(ARM / "root"), str(PYTHON)]
    run = subprocess.run(
        [*command, "-c", READ, str(compiled("tvm:aarch64-linux")), json.dumps(TEXT)],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join(paths), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    machine, cycles, tokens, kept = json.loads(run.stdout)
    assert machine == "aarch64"
    session = lcc.runtime.open(compiled("tvm:cpu"), threads=2, allow_native=True)
    session.feed(TEXT, prefix=False)
    assert list(session.generate_ids(max_new_tokens=40, eos=[])) == tokens
    assert len(session.cycles) >= cycles >= 3
    assert [session.kept_tokens(i).tolist() for i in range(2)] == kept


@cross
def test_an_arm_library_is_not_loaded_here(compiled: Callable[..., Path]) -> None:
    folder = compiled("tvm:aarch64-linux")
    library = next(folder.glob("programs_*.so")).read_bytes()
    assert library[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", library, 18) == (183,)  # EM_AARCH64
    with pytest.raises(TargetError, match="this machine lacks a CPU of another kind than x86_64"):
        lcc.runtime.open(folder, allow_native=True)


@pytest.mark.parametrize(
    ("target", "magic", "place", "machine"),
    [
        ("tvm:android", b"\x7fELF", 18, 183),
        ("tvm:ios", b"\xcf\xfa\xed\xfe", 4, 12),  # Mach-O, 64-bit; CPU_TYPE_ARM64, its low half
    ],
)
def test_objects_are_of_their_machine_and_have_the_programs(
    target: str, magic: bytes, place: int, machine: int, compiled: Callable[..., Path]
) -> None:
    folder = compiled(target, policy="knorm")
    archive = next(folder.glob("programs_*.tar"))
    with tarfile.open(archive) as file:
        objects = {each.name: file.extractfile(each).read() for each in file}  # type: ignore[union-attr]
    code = objects["lib0.o"]
    assert code[: len(magic)] == magic
    assert struct.unpack_from("<H", code, place) == (machine,)
    for symbol in (b"cached_attention", b"rotate", b"linear"):
        assert symbol in code
    recipe = (folder / f"{target.partition(':')[2]}.BUILD.md").read_text()
    assert archive.name in recipe
    assert "nobody has linked or run it yet" in recipe
    manifest = read_manifest(folder)
    assert manifest.note is not None
    assert "never linked or run on a device" in manifest.note
    text = CliRunner().invoke(app, ["inspect", str(folder)]).output
    assert "never linked or run on a device" in text
    with pytest.raises(TargetError, match=f'target is "{target}", this engine runs tvm:cpu'):
        lcc.runtime.open(folder, allow_native=True)


def test_what_cannot_be_built_is_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, cache: CacheConfig
) -> None:
    monkeypatch.setattr(platforms.shutil, "which", lambda name: None)
    for options, words in (
        ({"target": "tvm:aarch64-linux"}, r"aarch64-linux-gnu-g\+\+ is not on this machine"),
        (
            {"target": "tvm:ios", "cpu": "x86-64"},
            "cpu is 'x86-64', wanted one of armv8.2-a, generic",
        ),
        ({"target": "reference", "cpu": "x86-64"}, "reference runs on any; leave it out"),
    ):
        config = CompileConfig(cache=cache, **options)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=words):
            compile_model(tiny_folder, tmp_path / "m.lcc", config)
