"""Sessions of one model on several threads: the program of runtime/native/tests/threads.cpp."""

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

import lcc.runtime

TEXT = np.random.default_rng(0).integers(60, 120, 300).tolist()
SESSIONS, NEW = 8, 12


def test_disturbed_sessions_write_the_same(
    native_build: Path, onnx_runtime: Path, tiny_artifact: Path
) -> None:
    """Eight threads read and write, others cancel them, ask them, and open the model again."""
    numbers = map(str, [SESSIONS, NEW, *TEXT])
    command = [native_build / "threads", tiny_artifact, onnx_runtime, *numbers]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    session = lcc.runtime.open(tiny_artifact, threads=1)
    session.feed(TEXT)
    how: Any = {"max_new_tokens": NEW, "eos": [], "temperature": 20.0, "seed": 5}
    wanted = list(session.generate_ids(None, **how))
    assert len(set(wanted)) > 6
    assert session.stats().cycles > 3
    lines = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert lines == [wanted] * SESSIONS
    counted = re.fullmatch(
        r"(\d+) calls stopped, \d+ or more a session, \d+ refused\n", done.stderr
    )
    assert counted is not None, done.stderr
    assert int(counted[1]) > 0, "nothing was cancelled"
