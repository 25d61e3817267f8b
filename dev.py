"""The gate: format, lint, types, tests. `python dev.py check` runs all of it, and CI nothing else.

python dev.py check       everything, in this order; stops at the first failure
python dev.py types       mypy alone
python dev.py size        lines per file, longest first
python dev.py native      build liblcc into runtime/native/lib, which wheels built here then carry
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TYPING = ROOT / ".typing"
NATIVE = ROOT / "runtime" / "native"
SUBPACKAGES = ("passes", "targets", "runtime")  # top-level folders, imported as lcc.*


def run(*command: str) -> None:
    """Run one tool of this environment; leave with its exit code if it fails."""
    print("$", *command, flush=True)
    code = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(code)


def link_packages() -> None:
    """Lay out the tree as it is imported, for mypy, which cannot follow an editable install."""
    package = TYPING / "lcc"
    package.mkdir(parents=True, exist_ok=True)
    for link in package.iterdir():
        link.unlink()
    sources = [path for path in (ROOT / "lcc").iterdir() if path.name != "__pycache__"]
    for source in [*sources, *(ROOT / name for name in SUBPACKAGES)]:
        (package / source.name).symlink_to(source)


def types() -> None:
    """Check types."""
    link_packages()
    run("mypy", str(TYPING / "lcc"))


def size() -> None:
    """Print the lines of every Python file, longest first."""
    files = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    lengths = [(len((ROOT / name).read_text().splitlines()), name) for name in files]
    for lines, name in sorted(lengths, reverse=True):
        print(f"{lines:5}  {name}")


def native() -> None:
    """Build the native library, and nothing of its tools; needs CMake and a C++17 compiler."""
    build, library = NATIVE / "build", NATIVE / "lib"
    setup = ["-S", NATIVE, "-B", build, "-DCMAKE_BUILD_TYPE=Release", "-DLCC_BUILD_TOOLS=OFF"]
    for arguments in (setup, ["--build", build, "--config", "Release"]):
        print("$ cmake", *arguments, flush=True)
        if code := subprocess.run(["cmake", *arguments], check=False).returncode:
            sys.exit(code)
    library.mkdir(exist_ok=True)
    for name in ("liblcc.so", "liblcc.dylib", "lcc.dll"):
        for path in build.rglob(name):
            print(shutil.copy2(path, library))


def check() -> None:
    """Run the gate."""
    run("ruff", "format", "--check", ".")
    run("ruff", "check", ".")
    types()
    os.environ["OMP_NUM_THREADS"] = "1"  # two workers, one thread each
    # A file stays with one worker. The folders with the slowest files go first, or one of them
    # would keep one worker busy at the end while the other has nothing to do.
    first = ["tests/train", "tests/end_to_end", "tests/targets"]
    tests = [path.parent for path in (ROOT / "tests").glob("*/**/test_*.py")]
    tests += (ROOT / "tests").glob("test_*.py")
    names = {"/".join(path.relative_to(ROOT).parts[:2]) for path in tests}
    order = [*first, *sorted(names - set(first))]
    run("pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", *order)


if __name__ == "__main__":
    commands = {"check": check, "types": types, "size": size, "native": native}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]]()
