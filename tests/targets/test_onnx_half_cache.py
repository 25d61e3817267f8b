"""A cache in float16: half of the bytes, the kernel in place over it, the same text."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import lcc.runtime
from lcc.artifact.manifest import cache_dtype, read_manifest
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig
from lcc.errors import ConfigError
from lcc.ir.roles import Role
from lcc.measure.verify import verify
from lcc.sources.models import LoadedModel

TARGET = "onnxruntime:cpu"


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_verify(
    architecture: str,
    compiled: Callable[..., Path],
    loaded: Callable[..., LoadedModel],
    hybrid: str,
) -> None:
    """A layer of each kind, and layers with a window of the model's own."""
    plan = hybrid if architecture == "llama" else "dense"
    folder = compiled(TARGET, architecture=architecture, plan=plan, kv_precision="fp16")
    report = verify(folder, loaded(architecture, plan), prompt_tokens=90, new_tokens=8)
    assert report.ok, [row for row in report.rows if not row.ok]
    assert not report.exact
    assert any("cycles" in row.what for row in report.rows)


def test_keys_and_values_are_halves_and_nothing_else_is(
    compiled: Callable[..., Path], hybrid: str
) -> None:
    folder = compiled(TARGET, plan=hybrid, kv_precision="fp16")
    manifest, session = read_manifest(folder), lcc.runtime.open(folder)
    session.feed("any text " * 60)
    assert len(session.cycles) > 3
    assert cache_dtype(manifest) == "float16"
    for spec in manifest.buffers:
        array = session._executor.buffers.arrays[spec.name]
        assert (array.dtype == np.float16) == (spec.role in (Role.KEY, Role.VALUE)), spec.name
    assert session._executor.buffers.arrays["key_1"].any(axis=(0, 2, 3)).all()


def test_no_layer_copies_its_cache(compiled: Callable[..., Path], hybrid: str) -> None:
    """The kernel reads and writes what is bound: nothing stands between it and the outside."""
    folder = compiled(TARGET, plan=hybrid, kv_precision="fp16")
    graph = ir.load(folder / "step.onnx").graph
    attention = [node for node in graph if node.op_type == "GroupQueryAttention"]
    assert len(attention) == 3
    for layer, node in enumerate(attention):
        assert [value.name for value in node.inputs[3:5]] == [f"key_{layer}", f"value_{layer}"]
        assert [v.name for v in node.outputs[1:3]] == [f"key_{layer}_out", f"value_{layer}_out"]
        assert all(value.is_graph_output() for value in node.outputs[1:3])
    # A window's first keys are read once more, for the logits of queries turned to them.
    caches = {f"{part}_{layer}" for part in ("key", "value") for layer in (1, 2)}
    assert not [n for n in graph if n.op_type == "Cast" and n.inputs[0].name in caches]


def test_it_takes_half(compiled: Callable[..., Path]) -> None:
    rows = {}
    for precision in ("fp32", "fp16"):
        folder = compiled("onnxruntime:cpu", policy="knorm", kv_precision=precision)
        manifest = read_manifest(folder)
        rows[precision] = {row.name: row.bytes for row in manifest.memory}
    # No copy of the cache in float32 is counted: the kernel reads the halves.
    assert rows["fp16"]["activations"] == rows["fp32"]["activations"]
    # Keys and values in half; the place in the text of each entry, 8 bytes, as before.
    layers = manifest.model.layers
    for row, heads in (("cache", sum(e.kv_heads for e in layers)), ("spare layer", 2)):
        places = 8 * 96 * heads
        assert (rows["fp16"][row] - places) * 2 == rows["fp32"][row] - places, row


def test_a_target_without_it_refuses(tiny_folder: Path, tmp_path: Path, cache: CacheConfig) -> None:
    config = CompileConfig(cache=cache, target="onnxruntime:mobile", kv_precision="fp16")
    with pytest.raises(ConfigError, match="kv_precision is fp16, target onnxruntime:mobile has"):
        compile_model(tiny_folder, tmp_path / "m.lcc", config)
