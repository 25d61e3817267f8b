"""What the ONNX Runtime target writes: shared weights once, every program within tolerance."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig, Precision
from lcc.errors import TargetError
from lcc.ir import lazy_tensor
from lcc.ir.lazy_tensor import LazyTensor
from lcc.ir.program import Input, export
from lcc.ir.roles import Role
from lcc.ir.signature import Port
from lcc.measure.verify import verify
from lcc.passes.specialize import Specialized
from lcc.sources.models import LoadedModel, load_model
from lcc.targets import onnx_runtime
from lcc.targets.onnx_runtime import WEIGHTS_FILE, OnnxRuntime, to_onnx
from lcc.targets.onnx_weights import WeightsFile
from lcc.testing.tiny import ARCHITECTURES, tiny_model


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_compiles_to_the_same_numbers(
    architecture: str, compiled: Callable[..., Path], loaded: Callable[..., LoadedModel]
) -> None:
    """Logits and tokens are the model's, and several cycles keep what the reference keeps.

    One architecture with the programs of an archive, too: they see nothing of the model.
    """
    policy = "consensus" if architecture == "llama" else "snapkv"
    folder = compiled("onnxruntime:cpu", architecture=architecture, policy=policy)
    report = verify(folder, loaded(architecture), prompt_tokens=90, new_tokens=20)
    assert report.ok, [row for row in report.rows if not row.ok]
    assert any("cycles" in row.what for row in report.rows)


def test_the_same_input_gives_the_same_bytes_and_a_tied_embedding_is_stored_once(
    tiny_folder: Path,
    tmp_path: Path,
    cache: CacheConfig,
    convert: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx_runtime, "to_onnx", convert)  # anew, not what was made before
    config = CompileConfig(cache=cache, policy=PolicyConfig(name="knorm"))
    for name in ("a.lcc", "b.lcc"):
        compile_model(tiny_folder, tmp_path / name, config)
    for file in (tmp_path / "a.lcc").iterdir():
        assert file.read_bytes() == (tmp_path / "b.lcc" / file.name).read_bytes(), file.name
    embedding = tiny_model("llama").lm_head.weight.numpy().tobytes()
    assert (tmp_path / "a.lcc" / WEIGHTS_FILE).read_bytes().count(embedding[:4096]) == 1


@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_a_step_reshapes_nothing_of_a_layer(
    architecture: str, specialized: Callable[..., Specialized]
) -> None:
    """Heads are told apart by attributes, not by shapes; what is left is the count of entries."""
    model = to_onnx(specialized(architecture).programs[0])
    (left,) = [node for node in model.graph if node.op_type == "Reshape"]
    assert {use.node.op_type for use in left.outputs[0].uses()} == {"GroupQueryAttention"}


@pytest.mark.parametrize(
    ("policy", "precision"), [("consensus", "fp32"), ("consensus", "int4"), ("locret", "fp32")]
)
def test_what_a_layer_gives_is_given_where_it_is(
    policy: str, precision: Precision, specialized: Callable[..., Specialized], tmp_path: Path
) -> None:
    """As ONNX Runtime runs it: held until the end it was most of what a chunk takes."""
    target = OnnxRuntime()
    target.precision = precision
    target.build(specialized("llama", policy).programs[:1], tmp_path)
    options = onnxruntime.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    step = onnxruntime.InferenceSession(str(tmp_path / "step.onnx"), options)
    types = {"int64": np.int64, "int32": np.int32, "float": np.float32}
    sizes = {"tokens": (1, 16), "positions": (1, 16), "query_rows": (1,)}
    feeds = {}
    for each in step.get_inputs():
        shape = [96 if isinstance(size, str) else size for size in each.shape]
        dtype = types[each.type.removeprefix("tensor(").removesuffix(")")]
        feeds[each.name] = np.zeros(sizes.get(each.name, shape), dtype)
    step.run(["hidden"], feeds)
    events = json.loads(Path(step.end_profiling()).read_text())
    ran = [(e["args"]["op_name"], e["name"]) for e in events if e["cat"] == "Node"]
    asked = [
        operator
        for operator, name in ran
        if operator == "GroupQueryAttention" or name.startswith("node_squeeze")
    ]
    layers = len([each for each in step.get_inputs() if each.name.startswith("key_")])
    assert asked == ["Squeeze", "GroupQueryAttention"] * layers


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_weights_that_are_streamed_make_the_same_artifact(
    precision: Precision,
    tiny_folder: Path,
    tmp_path: Path,
    cache: CacheConfig,
    convert: Callable[..., ir.Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As weights that were loaded before: byte for byte, however small the blocks are."""
    config = CompileConfig(cache=cache, policy=PolicyConfig(name="knorm"), precision=precision)
    monkeypatch.setattr(onnx_runtime, "to_onnx", convert)  # each time anew
    compile_model(load_model(tiny_folder), tmp_path / "loaded.lcc", config)
    monkeypatch.setattr("lcc.ir.stand_ins.SMALL_BYTES", 0)
    monkeypatch.setattr(lazy_tensor, "BLOCK_BYTES", 1000)
    wholes = []
    read = LazyTensor.whole
    monkeypatch.setattr(LazyTensor, "whole", lambda self: wholes.append(self) or read(self))
    compile_model(tiny_folder, tmp_path / "streamed.lcc", config)
    assert wholes
    files = sorted(path.name for path in (tmp_path / "loaded.lcc").iterdir())
    assert sorted(path.name for path in (tmp_path / "streamed.lcc").iterdir()) == files
    for name in files:
        if name == "golden.json":  # products in blocks round differently
            continue
        content = [(tmp_path / f"{how}.lcc" / name).read_bytes() for how in ("loaded", "streamed")]
        if name == "manifest.json":
            pages = [json.loads(each) for each in content]
            for page in pages:
                del page["files"]["golden.json"]
            assert pages[0] == pages[1]
        else:
            assert content[0] == content[1], name


def test_weights_of_equal_address_but_other_content_are_two(tmp_path: Path) -> None:
    """Temporaries reuse memory: an address says nothing about what a tensor holds."""
    weights = WeightsFile(tmp_path / WEIGHTS_FILE)
    buffer = np.zeros(1024, np.float32)
    offsets = []
    for filling in (1.0, 2.0, 1.0):
        buffer[:] = filling
        value = ir.Value(name="w", const_value=ir.Tensor(buffer, name="w"))
        graph = ir.Graph([], [], nodes=[], initializers=[value], opset_imports={"": 23}, name="g")
        weights.move_out(ir.Model(graph, ir_version=10))
        offsets.append(value.const_value.offset)
    assert offsets[0] == offsets[2] != offsets[1]
    stored = np.fromfile(tmp_path / WEIGHTS_FILE, np.float32)
    assert set(torch.from_numpy(stored).unique().tolist()) == {1.0, 2.0}


STEPS_OVER_A_LARGE_CACHE = """
import statistics, sys, time
import lcc.runtime
from lcc.runtime.stats import peak_rss_bytes

sessions = [lcc.runtime.open(sys.argv[1], threads=1, capacity=c) for c in (2000, 400_000)]
seconds = [[], []]
for session in sessions:
    arrays = session._executor.buffers.arrays
    cache = [arrays[f"{part}_{layer}"] for part in ("key", "value") for layer in (0, 1)]
    for array in cache:
        array[:] = 7  # pages are taken when they are first written
    session.feed(list(range(33)), prefix=False)
before = peak_rss_bytes()
for size in (1, 16, 1, 7, 1, 1, 1, 1, 1):
    for session, own in zip(sessions, seconds):
        begin = time.perf_counter()
        session.feed(list(range(size)), prefix=False)
        own.append(time.perf_counter() - begin)
ratio = statistics.median(large / small for small, large in zip(*seconds))
for array in cache:
    assert (array[:, :, : sessions[1].used] != 7).all()  # written where it is bound
    assert (array[:, :, sessions[1].used :] == 7).all()
print(sum(array.nbytes for array in cache), peak_rss_bytes() - before, ratio)
"""


def test_a_compiled_step_copies_nothing_of_the_size_of_the_cache(
    tiny_folder: Path, tmp_path: Path
) -> None:
    cache = CacheConfig(capacity=400_000, budget=1000, chunk_size=16, positions="absolute")
    config = CompileConfig(cache=cache, policy=PolicyConfig(name="sink_window"))
    compile_model(tiny_folder, tmp_path / "m.lcc", config)
    command = [sys.executable, "-c", STEPS_OVER_A_LARGE_CACHE, tmp_path / "m.lcc"]
    size, grown, ratio = map(float, subprocess.check_output(command, text=True).split())
    assert size > 200e6
    assert grown < 20e6  # keys of one layer alone are 51 MB
    assert ratio < 5  # a step takes a millisecond, copying 205 MB takes thirty and more


def test_an_operator_without_a_form_in_onnx_is_one_line() -> None:
    """Such as `torch.special`'s: no function of the exporter's, and no traceback."""

    class Strange(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)

    given = [Input(Port("x", Role.HIDDEN), torch.zeros(3))]
    program = export(Strange(), ("x",), given, [Port("out", Role.HIDDEN)])
    with pytest.raises(TargetError, match=r"x: it cannot be written as ONNX \(.*bessel_j0"):
        to_onnx(program)
