"""Writers that take turns, and writers that are killed: what is there is always a whole one.

Short forms of `exchanged_artifacts.py` (10 minutes) and `killed_writers.py` (300 kills).
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the scripts fork")


def told(script: str, *arguments: Any) -> Any:
    """What a script beside this file prints."""
    command = [sys.executable, Path(__file__).with_name(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_load_gives_one_of_two_artifacts_or_an_error(tiny_artifact, tmp_path):
    page = told("exchanged_artifacts.py", tiny_artifact, tmp_path, 3)
    seen = page["seen"]
    assert "neither" not in seen
    assert "not one line" not in seen
    assert seen.get("one", 0) + seen.get("other", 0) + seen.get("refused", 0) >= 5, seen
    assert page["codes"] == [0, 0]
    assert min(page["written"]) > 3
    assert page["end"] in ("one", "other")
    assert page["left"] == []


def test_killed_writers_leave_a_whole_one(tiny_artifact, tmp_path):
    page = told("killed_writers.py", tiny_artifact, tmp_path, 20)
    for kind in ("artifacts", "states"):
        assert page[kind].get("killed", 0) > 0, page
        assert page[kind].get("new", 0) > 0, page
    left = sum(page[kind].get("with something left", 0) for kind in page)
    assert left > 0, "kills came too early or too late"
