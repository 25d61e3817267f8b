"""The wheel holds what the tree holds, and the runtime is small."""

import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import lcc.runtime
from lcc.runtime import library
from lcc.train.recipe import RECIPES

ROOT = Path(__file__).parents[1]
SUBPACKAGES = ("passes", "targets", "runtime")
PROMPTS = ("longbench", "infinitebench", "helmet")


def modules_of_tree() -> set[str]:
    """Every Python file of the repository, by the path it must have in a wheel."""
    found = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lcc").rglob("*.py")}
    for name in SUBPACKAGES:
        found |= {f"lcc/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / name).rglob("*.py")}
    return found


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_listed(pyproject: dict) -> None:
    listed = set(pyproject["tool"]["setuptools"]["packages"])
    needed = {path.rpartition("/")[0].replace("/", ".") for path in modules_of_tree()}
    assert len(needed) >= 6
    assert needed == listed


def wheel_of_tree(folder: Path, **more: bytes) -> Path:
    """A wheel built from a copy of the tree, with more files in runtime/native/lib.

    From a copy: setuptools leaves build/ behind, and takes what lies in an old one.
    """
    copy = folder / "source"
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\n")  # fmt: skip
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    for name, content in more.items():
        (copy / "runtime" / "native" / "lib").mkdir(exist_ok=True)
        (copy / "runtime" / "native" / "lib" / name).write_bytes(content)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", str(folder), str(copy)], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_holds_the_tree(tmp_path: Path) -> None:
    wheel = wheel_of_tree(tmp_path)
    assert wheel.name.endswith("-py3-none-any.whl")
    held = zipfile.ZipFile(wheel).namelist()
    assert {name for name in held if name.endswith(".py")} == modules_of_tree()
    recipes = {f"lcc/train/recipes/{name}.yaml" for name in RECIPES}
    prompts = {f"lcc/measure/evaluate/benchmarks/{name}.yaml" for name in PROMPTS}
    assert {name for name in held if name.endswith(".yaml")} == recipes | prompts
    assert {name for name in held if name.endswith(".j2")} == {
        "lcc/measure/evaluate/report.html.j2"
    }


def test_a_wheel_with_the_native_library_is_for_one_platform(tmp_path: Path) -> None:
    wheel = wheel_of_tree(tmp_path, **{"liblcc.so": b"a library"})
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.endswith(f"-py3-none-{platform}.whl")
    with zipfile.ZipFile(wheel) as held:
        assert held.read("lcc/runtime/native/lib/liblcc.so") == b"a library"
        (about,) = [name for name in held.namelist() if name.endswith(".dist-info/WHEEL")]
        assert b"Root-Is-Purelib: false" in held.read(about)


def test_the_native_library_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    monkeypatch.setattr(library.sys, "platform", "linux")
    assert lcc.runtime.native_library() is None
    (tmp_path / "liblcc.so").write_bytes(b"a library")
    assert lcc.runtime.native_library() == tmp_path / "liblcc.so"


def test_console_script(pyproject: dict) -> None:
    module, _, function = pyproject["project"]["scripts"]["lcc"].partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))


OF_THE_CLI = ("typer", "tqdm", "yaml")
HEAVY = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", *OF_THE_CLI)


@pytest.mark.parametrize("module", ["lcc", "lcc.runtime", "lcc.cli"])
def test_import_is_light(module: str) -> None:
    """A new process: modules that must not come along, and the time on this machine."""
    heavy = HEAVY if module != "lcc.cli" else tuple(set(HEAVY) - {"typer"})
    code = (
        "import sys, time; start = time.perf_counter(); "
        f"import {module}; seconds = time.perf_counter() - start; "
        f"print(seconds, *[m for m in {heavy!r} if m in sys.modules])"
    )
    seconds = []
    for _ in range(3):  # the fastest of three: other processes share this machine
        result = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        first, *loaded = result.stdout.split()
        assert loaded == []
        seconds.append(float(first))
    assert min(seconds) < 0.5


def without(*modules: str) -> str:
    """Code after which these modules are not installed."""
    return f"import sys; sys.modules.update(dict.fromkeys({modules!r})); "


def test_base_install_brings_what_an_app_needs(pyproject: dict, tiny_artifact: Path) -> None:
    project = pyproject["project"]
    names = {re.match(r"[\w.-]+", each)[0] for each in project["dependencies"]}  # type: ignore[index]
    assert names == {"numpy", "onnxruntime", "tokenizers", "jinja2", "msgspec", "safetensors"}
    code = without(*OF_THE_CLI, "torch") + (
        "import lcc.runtime; session = lcc.runtime.open(sys.argv[1]); "
        "session.feed('It was the best of times. ' * 20); session.save(sys.argv[2]); "
        "session.load(sys.argv[2]); talk = [{'role': 'user', 'content': 'When?'}]; "
        "print(len(session.cycles) > 0, *session.chat(talk, max_new_tokens=3))"
    )
    state = tiny_artifact.with_suffix(".lccstate")
    command = [sys.executable, "-c", code, str(tiny_artifact), str(state)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8")
    assert result.stdout.startswith("True ")


def test_the_command_without_its_packages_says_what_brings_them() -> None:
    code = without("typer") + "from lcc.__main__ import main; main()"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    words = "typer is not installed; do: pip install 'long-context-compiler[cli]'"
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"lcc: error: {words}\n"


def test_extras_with_commands_bring_the_command_line(pyproject: dict) -> None:
    extras = pyproject["project"]["optional-dependencies"]
    assert {re.match(r"\w+", each)[0] for each in extras["cli"]} == {"typer", "tqdm", "pyyaml"}  # type: ignore[index]
    for name in ("compile", "eval", "harness"):
        assert "long-context-compiler[cli]" in extras[name]
    for name in ("demo", "train"):
        assert "long-context-compiler[compile]" in extras[name]


def test_constraints_pin_every_direct_dependency(pyproject: dict) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if line and not line.startswith("#")}
    project = pyproject["project"]
    asked = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        asked += extra
    names = {re.match(r"[\w.-]+", each)[0].lower() for each in asked}  # type: ignore[index]
    assert names - {"long-context-compiler"} - pinned == set()
