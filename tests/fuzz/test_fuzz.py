"""Damaged and hostile files: a short run of `python -m lcc.testing.fuzz`, the same every time."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it forks, and limits children")
ALL = "artifact,golden,state,archive"


def fuzz(folder: Path, artifact: Path, *options: str) -> str:
    """What the command prints; it must find nothing."""
    command = [sys.executable, "-m", "lcc.testing.fuzz", folder, "--artifact", artifact, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_nothing_but_results_and_errors_of_one_line(tmp_path: Path, golden_artifact) -> None:
    told = fuzz(tmp_path, golden_artifact("consensus"), "--kinds", ALL, "--count", "150")
    counts = re.search(r"^all +(\d+) +(\d+) +(\d+) +(\d+) +0 +0 +0 +0 +0$", told, re.MULTILINE)
    assert counts is not None, told
    cases, refused, same, other = map(int, counts.groups())
    assert cases == 150
    assert refused > 75, "most damage is seen"
    assert same + other > 20, "some does no harm: the files are not all refused for one reason"
    assert other > 3, "and some changes what is computed"


@pytest.mark.parametrize(("kind", "least"), [("manifest", 40), ("program", 20), ("state", 50)])
def test_hostile_files_are_refused(kind, least, tmp_path: Path, golden_artifact) -> None:
    """Those of texts have tests of their own in tests/runtime/text; `--known` alone runs all."""
    goods = "state" if kind == "state" else "artifact"
    how = ("--kinds", goods, "--known", "--only", f"{kind}: ")
    told = fuzz(tmp_path, golden_artifact("consensus"), *how)
    assert int(told.splitlines()[-1].split()[0]) >= least
