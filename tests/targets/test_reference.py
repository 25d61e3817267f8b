"""Programs of the reference target that cannot be loaded, or that fail."""

import msgspec
import numpy as np
import pytest

import lcc.passes.ops  # noqa: F401 - registers the operators
from lcc.artifact.manifest import read_manifest
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig
from lcc.errors import ArtifactError
from lcc.targets.reference import open_engine


@pytest.fixture(scope="module")
def artifact(tiny_folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("reference") / "m.lcc"
    sizes = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=24, recent_size=8)
    compile_model(tiny_folder, output, CompileConfig(target="reference", cache=sizes))
    return output


def test_what_pytorch_raises_is_an_error_of_the_artifact(artifact, tmp_path):
    manifest = read_manifest(artifact)
    head = open_engine(artifact, manifest).runner("head")
    program = head.program
    arrays = {each.name: np.zeros([2] * len(each.shape), each.dtype) for each in program.inputs}
    with pytest.raises(ArtifactError, match="head: PyTorch cannot run it: "):
        head(arrays)
    only = {"head": manifest.programs["head"]}
    (tmp_path / only["head"].file).write_bytes(b"no program")
    with pytest.raises(ArtifactError, match=r"head\.pt2: PyTorch cannot load it: "):
        open_engine(tmp_path, msgspec.structs.replace(manifest, programs=only))
