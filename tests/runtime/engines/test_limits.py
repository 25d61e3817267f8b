"""Memory and time that an app allows: before anything is loaded, and while a program runs."""

import gc
import shutil
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import lcc.runtime
from lcc.artifact.folder import file_entry
from lcc.artifact.manifest import manifest_bytes, read_manifest
from lcc.errors import ArtifactError, ConfigError, LimitError, TargetError
from lcc.runtime.engines import onnx_runtime
from lcc.runtime.engines.limits import buffers_bytes

MB = 1 << 20


@pytest.fixture
def artifact(tiny_artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_artifact, tmp_path / "m.lcc"))


def written(folder: Path, **changes: object) -> None:
    manifest = msgspec.structs.replace(read_manifest(folder), **changes)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))


def with_work(folder: Path, nodes: list, numbers: dict[str, np.ndarray]) -> None:
    """The head first computes a number `extra`, and adds it to its input."""
    path = folder / "head.onnx"
    model = onnx.load_model(path, load_external_data=False)
    for node in model.graph.node:
        node.input[:] = ["hidden_x" if name == "hidden" else name for name in node.input]
    add = helper.make_node("Add", ["hidden", "extra"], ["hidden_x"])
    for place, node in enumerate([*nodes, add]):
        model.graph.node.insert(place, node)
    made = [numpy_helper.from_array(np.asarray(value), name) for name, value in numbers.items()]
    model.graph.initializer.extend(made)
    path.write_bytes(model.SerializeToString())
    files = read_manifest(folder).files | {path.name: file_entry(path)}
    written(folder, files=files)


def test_what_takes_more_by_its_table_is_not_loaded(artifact: Path) -> None:
    table = sum(row.bytes for row in read_manifest(artifact).memory)
    lcc.runtime.load(artifact, memory_limit=table)
    for path in artifact.glob("*.onnx"):
        path.unlink()  # nothing of it is looked at
    with pytest.raises(LimitError, match=rf"takes {table:,} bytes, memory_limit is {table - 1:,}"):
        lcc.runtime.load(artifact, memory_limit=table - 1)


def test_a_table_that_says_less_than_buffers_take_is_not_believed(artifact: Path) -> None:
    written(artifact, memory=[])
    buffers = buffers_bytes(read_manifest(artifact))
    session = lcc.runtime.open(artifact, threads=1)
    assert buffers == sum(array.nbytes for array in session._executor.buffers.arrays.values())
    with pytest.raises(
        LimitError, match=f"takes {buffers:,} bytes, memory_limit is {buffers - 1:,}"
    ):
        lcc.runtime.load(artifact, memory_limit=buffers - 1)


def test_a_program_gets_no_more_memory_than_is_allowed(artifact: Path) -> None:
    """What it asks for depends on its input: no one sees it in the file."""
    nodes = [
        helper.make_node("Shape", ["hidden"], ["row"], start=1, end=2),
        helper.make_node("Mul", ["row", "often"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["extra"], keepdims=0),
    ]
    with_work(artifact, nodes, {"often": np.array([2 * MB])})  # 512 MB
    session = lcc.runtime.open(artifact, threads=1, memory_limit=300 * MB)
    session.feed("Hello")
    with pytest.raises(ArtifactError, match=r"head\.onnx: ONNX Runtime cannot run it"):
        session.next_logits()
    other = lcc.runtime.open(artifact, threads=1)
    other.feed("Hello")
    assert other.next_logits().any(), "another app has another limit"


def endless(folder: Path) -> None:
    value = helper.make_tensor_value_info
    flow = [value("i", 7, []), value("c", 9, []), value("v", 1, [])]
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in (("c", "d"), ("v", "w"))]
    body = helper.make_graph(nodes, "b", flow, [value("d", 9, []), value("w", 1, [])])
    node = helper.make_node("Loop", ["often", "yes", "nought"], ["extra"], body=body)
    numbers = {"often": np.int64(1 << 62), "yes": np.array(True), "nought": np.float32(0)}
    with_work(folder, [node], numbers)


def test_a_program_runs_no_longer_than_is_allowed(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless(artifact)
    with pytest.raises(ArtifactError, match="Loop runs a graph"):
        lcc.runtime.load(artifact)
    monkeypatch.setattr(onnx_runtime, "check_program", lambda *_: None)
    session = lcc.runtime.open(artifact, threads=1, time_limit=600)
    session.feed("Hello")
    watch = session.model.engine._watch
    watch.seconds = 0.3
    begin = time.monotonic()
    with pytest.raises(LimitError, match=r"head\.onnx: a program ran longer than time_l"):
        session.next_logits()
    assert 0.2 < time.monotonic() - begin < 60
    watch.seconds = 600
    session.feed("and on")  # the session holds what it held


def test_limits_change_nothing_else(artifact: Path) -> None:
    text = "A text of more than one cycle. " * 20
    plain = lcc.runtime.open(artifact, threads=1)
    bounded = lcc.runtime.open(artifact, threads=1, memory_limit=1 << 30, time_limit=600)
    for session in (plain, bounded):
        session.feed(text)
    assert (plain.next_logits() == bounded.next_logits()).all()
    assert bounded.cycles
    threads = threading.active_count()
    del bounded, session
    gc.collect()
    for _ in range(100):
        if threading.active_count() < threads:
            return
        time.sleep(0.05)
    raise AssertionError("the watch goes on without its engine")


def test_limits_that_are_none(artifact: Path) -> None:
    for options, words in (
        ({"memory_limit": 0}, "memory_limit is 0, wanted bytes, 1 or more"),
        ({"time_limit": 0}, "time_limit is 0, wanted seconds, more than 0"),
        ({"time_limit": float("nan")}, "time_limit is nan"),
    ):
        with pytest.raises(ConfigError, match=words):
            lcc.runtime.load(artifact, **options)
    written(artifact, target="tvm:cpu")
    with pytest.raises(TargetError, match="machine code cannot be stopped"):
        lcc.runtime.load(artifact, allow_native=True, time_limit=1)
