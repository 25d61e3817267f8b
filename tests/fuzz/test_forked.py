"""How the use of a file can end, and what is made of it: in another process, since it forks."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it forks, and limits children")
SCRIPT = r"""
import json, os, subprocess, sys, time
from pathlib import Path
from lcc.errors import ArtifactError
from lcc.testing.fuzz import forked

forked.ASLEEP_SECONDS, forked.CPU_SECONDS, forked.MOST_BYTES = 0.5, 1, 100 << 20

BUSY = "import time; end = time.process_time() + 0.7\nwhile time.process_time() < end: pass"

def works(say): say("first"); return [1]
def refused(say): raise ArtifactError("x.lcc: damaged")
def empty(say): raise ArtifactError("")
def exception(say): say("first"); say("second"); raise KeyError("x")
def killed(say): os.abort()
def leaves(say): os._exit(3)
def sleeps(say): time.sleep(1000)
def spins(say):
    while True: pass
def waits(say): return subprocess.run([sys.executable, "-c", BUSY]).returncode
def holds(say): return len(bytearray(b"x") * (200 << 20))
def asks(say): return len(bytearray(forked.ADDRESS_BYTES))

jobs = (works, refused, empty, exception, killed, leaves, sleeps, spins, waits, holds, asks)
print(json.dumps({job.__name__: vars(forked.run(job, Path(sys.argv[1]))) for job in jobs}))
"""


def test_every_ending(tmp_path):
    command = [sys.executable, "-c", SCRIPT, tmp_path / "log"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    endings = json.loads(done.stdout)
    assert {name: ending["outcome"] for name, ending in endings.items()} == {
        "works": "works",
        "refused": "refused",
        "empty": "message",
        "exception": "exception",
        "killed": "crash",
        "leaves": "crash",
        "sleeps": "hang",
        "spins": "hang",
        "waits": "works",
        "holds": "memory",
        "asks": "memory",
    }
    assert endings["works"]["output"] == [1]
    assert (endings["exception"]["step"], endings["exception"]["kind"]) == ("second", "KeyError")
    assert (endings["killed"]["kind"], endings["leaves"]["kind"]) == ("SIGABRT", "exit 3")
    assert endings["refused"]["text"] == "x.lcc: damaged"
