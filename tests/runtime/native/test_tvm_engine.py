"""The native runtime over TVM: the numbers of the goldens, the tokens of Python, errors."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lcc.runtime
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.runtime.text.writing import GREEDY
from lcc.targets import missing
from lcc.testing.native_session import LibraryError, NativeModel, library_in
from lcc.testing.tiny import save_tiny

CACHE = CacheConfig(
    capacity=96, budget=48, chunk_size=16, catalyst_size=8, sink_size=4, recent_size=6
)
TEXT = [
    46 if i % 9 == 8 else token  # a full stop ends a sentence
    for i, token in enumerate(np.random.default_rng(0).integers(60, 120, 300).tolist())
]
PACKAGES = Path(np.__file__).parents[1]  # where pip installs


@pytest.fixture(scope="module")
def artifact(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if lacks := missing("tvm:cpu"):
        pytest.skip(lacks)
    folder = tmp_path_factory.mktemp("tvm") / "m.lcc"
    policy = PolicyConfig(name="consensus")
    compile_model(tiny_folder, folder, CompileConfig(target="tvm:cpu", cache=CACHE, policy=policy))
    return folder


@pytest.fixture(scope="module")
def native(artifact: Path, native_build: Path) -> Iterator[NativeModel]:
    made = library_in(native_build).open(artifact, PACKAGES, threads=2, allow_native=1)
    yield made
    made.close()


def test_the_golden_is_reproduced(native: NativeModel) -> None:
    native.check_golden()


def test_tokens_are_those_of_python(native: NativeModel, artifact: Path, tmp_path: Path) -> None:
    """Through cycles, with an archive that both write, and recalls from it."""
    model = lcc.runtime.load(artifact, allow_native=True)
    paths = tmp_path / "one", tmp_path / "other"
    one, other = native.session(paths[0]), model.session(archive=paths[1])
    how: Any = {"eos": [], "max_new_tokens": 24, **GREEDY}
    for part in (TEXT[:7], TEXT[7:8], TEXT[8:]):
        for each in (one, other):
            each.feed(part)
        question = TEXT[100:106]
        assert list(one.ids(question, 24)) == list(other.generate_ids(question, **how))
        assert (one.kept(1) == other.kept_tokens(1)).all()
    assert one.stats().recalled == other.stats().recalled
    assert one.stats().recalled > 0
    assert np.abs(one.logits() - other.next_logits()).max() == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()
    one.close()
    other.close()


def test_a_hybrid_and_its_states(native: NativeModel, tmp_path: Path) -> None:
    """Recurrent layers beside one that attends; few programs, for TVM takes its time for each."""
    save_tiny(tmp_path / "lfm2", "lfm2")
    config = CompileConfig(target="tvm:cpu", cache=CACHE, policy=PolicyConfig(name="knorm"))
    compile_model(tmp_path / "lfm2", tmp_path / "m.lcc", config)
    model = native.library.open(tmp_path / "m.lcc", PACKAGES, threads=2, allow_native=1)
    model.check_golden()
    python = lcc.runtime.open(tmp_path / "m.lcc", allow_native=True)
    session = model.session()
    model.close()
    for each in (python, session):
        each.feed(TEXT)
    assert session.stats().cycles == len(python.cycles) > 3
    how: Any = {"eos": [], "max_new_tokens": 24, **GREEDY}
    assert list(session.ids(TEXT[:9], 24)) == list(python.generate_ids(TEXT[:9], **how))
    python.save(tmp_path / "state")
    session.load(tmp_path / "state")
    assert np.abs(session.logits() - python.next_logits()).max() == 0
    session.close()


def test_sessions_on_several_threads(native: NativeModel) -> None:
    """The virtual machine serves them one after the other; each has its own text."""
    from concurrent.futures import ThreadPoolExecutor

    def read(first: int) -> list[int]:
        session = native.session()
        session.feed(TEXT[first:])
        found = list(session.ids(TEXT[:3], 8))
        session.close()
        return found

    wanted = [read(first) for first in (0, 100, 200)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(read, (0, 100, 200))) == wanted


def opened(native_build: Path, artifact: Path, engine: object, **env: str) -> str:
    """How a process of its own opens the artifact: its error, or `opened`."""
    code = (
        "import sys; from pathlib import Path\n"
        "from lcc.testing.native_session import LibraryError, library_in\n"
        "try:\n"
        "    library, folder = library_in(Path(sys.argv[1])), Path(sys.argv[2])\n"
        "    library.open(folder, sys.argv[3] or None, allow_native=1).check_golden()\n"
        "    print('opened')\n"
        "except LibraryError as error:\n"
        "    print(error)\n"
    )
    given = [f"{name}={value}" for name, value in env.items()]
    command = [sys.executable, "-c", code, str(native_build), str(artifact), str(engine or "")]
    done = subprocess.run(["env", *given, *command], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_program_keeps_its_signals(artifact: Path, native_build: Path) -> None:
    """TVM would take that of a bad address, on which a Java machine lives."""
    code = (
        "import sys; from pathlib import Path\n"
        "from lcc.testing.native_session import library_in\n"
        "def caught():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(line for line in lines if line.startswith('SigCgt'))\n"
        "before = caught()\n"
        "library_in(Path(sys.argv[1])).open(Path(sys.argv[2]), sys.argv[3], allow_native=1)\n"
        "print(caught() == before)\n"
    )
    command = [sys.executable, "-c", code, str(native_build), str(artifact), str(PACKAGES)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "True\n"


def test_where_the_runtime_is_found(artifact: Path, native_build: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.mkdir()
    for path in (*PACKAGES.glob("tvm/lib/libtvm_r*.so"), *PACKAGES.glob("tvm_ffi/lib/*_ffi.so")):
        (both / path.name).symlink_to(path)
    for engine in (PACKAGES / "tvm/lib/libtvm_runtime.so", both):
        assert opened(native_build, artifact, engine) == "opened"
    assert opened(native_build, artifact, None, LCC_TVM=str(PACKAGES / "tvm_ffi/lib")) == "opened"


def test_a_runtime_that_is_not_there_is_an_error(
    artifact: Path, native_build: Path, tmp_path: Path
) -> None:
    wanted = "wanted apache-tvm 0.27 with apache-tvm-ffi 0.1.14"
    said = opened(native_build, artifact, tmp_path)
    assert said.startswith(f"LCC_ERROR_TARGET: {tmp_path}: no libtvm_ffi.so there")
    assert wanted in said
    (tmp_path / "libtvm_ffi.so").write_bytes(b"no library")
    (tmp_path / "libtvm_runtime.so").write_bytes(b"no library")
    said = opened(native_build, artifact, tmp_path)
    assert f"LCC_ERROR_TARGET: {tmp_path}/libtvm_ffi.so: cannot be loaded (" in said
    assert wanted in said


def test_an_older_or_another_library_is_an_error(
    artifact: Path, native_build: Path, tmp_path: Path
) -> None:
    """Libraries that have the right names, and not all of the functions."""
    version = "void TVMFFIGetVersion(unsigned *v) {{ v[0] = 0; v[1] = {}; v[2] = {}; }}"
    for source, words in (
        ("int nothing;", "no function TVMFFIGetVersion; wanted apache-tvm 0.27"),
        (version.format(1, 13), "tvm_ffi 0.1.13, wanted apache-tvm 0.27"),
        (version.format(2, 0), "tvm_ffi 0.2.0, wanted apache-tvm 0.27"),
        (version.format(1, 20), "no function TVMFFIObjectDecRef; wanted apache-tvm 0.27"),
    ):
        for name in ("libtvm_ffi.so", "libtvm_runtime.so"):
            command = ["cc", "-shared", "-x", "c", "-", "-o", str(tmp_path / name)]
            subprocess.run(command, check=True, input=source, text=True)
        said = opened(native_build, artifact, tmp_path)
        assert said.startswith(f"LCC_ERROR_TARGET: {tmp_path}/libtvm_ffi.so: {words}"), said


@pytest.fixture
def changed(artifact: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copies of the artifact whose manifest or index of weights was changed."""

    def changed(manifest: Callable | None = None, index: Callable | None = None) -> Path:
        folder = tmp_path / "changed.lcc"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(artifact, folder)
        page = json.loads((folder / "manifest.json").read_text())
        if index is not None:
            import hashlib

            name = "weights_tvm_cpu.json"
            table = json.loads((folder / name).read_text())
            index(table)
            data = json.dumps(table).encode()
            (folder / name).write_bytes(data)
            page["files"][name] = {
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
        if manifest is not None:
            manifest(page)
        (folder / "manifest.json").write_text(json.dumps(page, sort_keys=True))
        return folder

    return changed


def test_artifacts_that_cannot_run_are_refused(
    native: NativeModel, changed: Callable[..., Path]
) -> None:
    library = native.library

    def error(**how: Any) -> str:
        with pytest.raises(LibraryError) as raised:
            library.open(changed(**how), PACKAGES, allow_native=1)
        return str(raised.value)

    said = error(manifest=lambda page: page.update(cpu="generic"))
    assert (
        "LCC_ERROR_TARGET: the artifact was compiled for generic, this machine lacks a CPU" in said
    )
    said = error(manifest=lambda page: page.update(cpu="pdp-11"))
    assert "lacks any such level: wanted one of cooperlake, x86-64-v4" in said
    for name in ("weights_tvm_cpu.json", "weights_tvm_cpu.bin"):
        said = error(manifest=lambda page, name=name: page["files"].pop(name))
        assert f"LCC_ERROR_ARTIFACT: {changed()}/{name}: the manifest does not list it" in said
    said = error(index=lambda table: table.pop("decode"))
    assert "LCC_ERROR_ARTIFACT: " in said
    assert "weights_tvm_cpu.json: no function decode; compile anew" in said
    said = error(index=lambda table: table["decode"][0].update(offset=8))
    assert "weights_tvm_cpu.bin: a tensor at byte 8, not aligned" in said
    said = error(index=lambda table: table["decode"][0].update(shape=[1 << 40, 1 << 40]))
    assert "a tensor ends behind them; copy it anew" in said
    said = error(index=lambda table: table["decode"][0].update(dtype="float7"))
    assert "unknown dtype float7" in said

    def rename(page: dict) -> None:
        page["programs"]["other"] = page["programs"]["decode"]

    said = error(manifest=rename, index=lambda table: table.update(other=table["decode"]))
    assert "LCC_ERROR_ARTIFACT: " in said
    assert "no function other" in said


def test_another_path_later_is_an_error(native: NativeModel, artifact: Path) -> None:
    with pytest.raises(LibraryError, match="LCC_ERROR_TARGET: TVM was loaded from"):
        native.library.open(artifact, PACKAGES / "tvm/lib", allow_native=1)


def test_machine_code_is_not_run_unless_it_is_allowed(
    artifact: Path, native: NativeModel, native_build: Path
) -> None:
    with pytest.raises(LibraryError, match=r"LCC_ERROR_TRUST: .* runs machine code .* \(programs_"):
        native.library.open(artifact, PACKAGES)
    command = [native_build / "lcc-run", artifact, "--golden", "--engine", PACKAGES]
    for more, code, words in (
        ([], 1, "allow it with allow_native, or --allow-native"),
        (["--allow-native"], 0, "golden: all numbers are the same"),
    ):
        done = subprocess.run([*command, *more], check=False, capture_output=True, text=True)
        assert done.returncode == code
        assert words in done.stdout + done.stderr
