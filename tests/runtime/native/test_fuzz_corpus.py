"""What the fuzzers begin with is read, and what they have found is refused in a line."""

import resource
import subprocess
from pathlib import Path

import pytest

import lcc.runtime
from lcc.artifact.manifest import parse_manifest
from lcc.errors import ArtifactError

CORPUS = Path(lcc.runtime.__file__).resolve().parent / "native" / "tests" / "fuzz" / "corpus"
REFUSED = {
    "manifest": {
        "found_chunk_size": "constants: budget + chunk_size + reserved exceed capacity",
        "found_counter": "counters: tokens is 9223372036854775807 at first",
        "found_endless_loop": "known does not come to used by being added to: a loop without",
        "found_tensor_size": " is larger than any memory",
    },
    "text_tables": {"found_growth": "its steps make a text more than 256 times as long"},
    "state": {},
    "archive": {"found_first_block": "header is damaged (numbers)"},
    "program": {},
}
PARSED = sorted((CORPUS / "manifest").iterdir())
MEMORY, SECONDS = 2 << 30, 60


@pytest.mark.parametrize("target", REFUSED)
def test_each_file_is_read_or_refused(
    target: str, native_build: Path, request: pytest.FixtureRequest
) -> None:
    files = sorted((CORPUS / target).iterdir())

    def limits() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        if request.config.getoption("--native-build") is None:  # a sanitizer takes terabytes
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    done = subprocess.run(
        [native_build / "replay", target, *files],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=limits,
    )
    assert done.returncode == 0, done.stderr
    said = dict(zip([file.stem for file in files], done.stdout.splitlines(), strict=True))
    assert len(said) > len(REFUSED[target])
    for name, line in said.items():
        words = REFUSED[target].get(name)
        assert (line == "read") if words is None else (words in line), f"{name}: {line}"


@pytest.mark.parametrize("path", PARSED, ids=[path.stem for path in PARSED])
def test_python_refuses_the_same_manifests(path: Path) -> None:
    if path.stem not in REFUSED["manifest"]:
        parse_manifest(path.read_bytes(), path)
        return
    with pytest.raises(ArtifactError):
        parse_manifest(path.read_bytes(), path)
