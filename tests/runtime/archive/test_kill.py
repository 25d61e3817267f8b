"""A writer that is killed at random points: what it had appended is there, and right."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("killed_writer.py")


@pytest.mark.skipif(sys.platform == "win32", reason="the script forks")
def test_killed_at_100_random_points(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path / "book.lccarchive"), "100"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["kills"] == 100
    # The case occurs: writers were killed in the midst of a block, in files of both kinds.
    assert told["dropped"] >= 5
    assert told["blocks"] > 1000
    assert told["lost"] > 100
    assert told["truncated"] > 10
