"""Weights that stay in their file: the same answers, in memory that the system may take back."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

import lcc.runtime
from lcc.artifact.manifest import read_manifest
from lcc.cli import app
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import TargetError
from lcc.testing.tiny import save_tiny

WEIGHTS = 2 * 3 * 64 * 16384 * 4  # bytes of two MLPs
READ = """
import json, sys
import lcc.runtime
session = lcc.runtime.open(sys.argv[1], mapped=sys.argv[2] == "mapped", threads=1)
session.feed(list(range(40)))
logits = session.next_logits().tolist()
lines = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(json.dumps([int(lines["RssAnon"].split()[0]) * 1024, logits]))
"""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mapped")
    save_tiny(folder / "model", intermediate_size=16384)
    cache = CacheConfig(capacity=64, budget=32, chunk_size=16, catalyst_size=0, recent_size=4)
    config = CompileConfig(cache=cache, policy=PolicyConfig(name="knorm"))
    compile_model(folder / "model", folder / "m.lcc", config)
    return folder / "m.lcc"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_copy_of_mapped_weights_is_held(artifact: Path) -> None:
    held, logits = {}, {}
    for how in ("packed", "mapped"):
        run = [sys.executable, "-c", READ, str(artifact), how]
        out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
        held[how], logits[how] = json.loads(out)
    assert held["packed"] - held["mapped"] > 0.8 * WEIGHTS
    np.testing.assert_allclose(logits["mapped"], logits["packed"], atol=1e-4)


def test_the_command_takes_it(artifact: Path) -> None:
    ask = ["run", str(artifact), "-p", "what", "--raw", "-n", "4", "--temperature", "0"]
    plain, mapped = (CliRunner().invoke(app, [*ask, *more]) for more in ([], ["--mapped"]))
    assert mapped.exit_code == 0, mapped.output
    assert mapped.stdout == plain.stdout


def test_a_device_has_weights_of_its_own(artifact: Path) -> None:
    manifest = msgspec.structs.replace(read_manifest(artifact), target="onnxruntime:cuda")
    with pytest.raises(TargetError, match="copies its weights to the device; wanted a target"):
        lcc.runtime._engine(artifact, manifest, lcc.runtime._How(threads=1, mapped=True))
