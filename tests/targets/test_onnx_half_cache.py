"""A cache in float16: half of the bytes, the kernel in place over it, the same text."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import lcc.runtime
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import ConfigError
from lcc.measure.verify import verify
from lcc.sources.models import LoadedModel
from lcc.testing.tiny import tiny_model

CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
BLOCKS = "0: full; 1: block_sparse(block=4, stride=2, local=2, sink=1, reach=32)"


def compiled(
    folder: Path, tiny_folder: Path, architecture: str = "llama", plan: str = "dense"
) -> LoadedModel:
    files = {n: (tiny_folder / n).read_bytes() for n in ("tokenizer.json", "tokenizer_config.json")}
    loaded = LoadedModel(tiny_model(architecture), architecture, architecture, 512, files)
    config = CompileConfig(
        cache=CACHE, policy=PolicyConfig(name="snapkv"), plan=plan, kv_precision="fp16"
    )
    compile_model(loaded, folder, config)
    return loaded


@pytest.mark.parametrize(
    ("architecture", "plan"),
    [
        ("llama", "dense"),
        ("gemma3_text", "dense"),
        ("llama", "0: full; 1: sink_window(sink=2, window=32)"),
        ("llama", BLOCKS),
    ],
)
def test_verify(architecture: str, plan: str, tiny_folder: Path, tmp_path: Path) -> None:
    loaded = compiled(tmp_path / "m.lcc", tiny_folder, architecture, plan)
    report = verify(tmp_path / "m.lcc", loaded, prompt_tokens=90, new_tokens=8)
    assert report.ok, [row for row in report.rows if not row.ok]
    assert any("cycles" in row.what for row in report.rows)
    session = lcc.runtime.open(tmp_path / "m.lcc")
    session.feed("any text " * 60)
    assert {array.dtype for array in session._executor.cache.keys} == {np.dtype(np.float16)}


def test_no_layer_copies_its_cache(tiny_folder: Path, tmp_path: Path) -> None:
    """The kernel reads and writes what is bound: nothing stands between it and the outside."""
    compiled(tmp_path / "m.lcc", tiny_folder)
    graph = ir.load(tmp_path / "m.lcc" / "step.onnx").graph
    attention = [node for node in graph if node.op_type == "GroupQueryAttention"]
    assert len(attention) == 2
    for layer, node in enumerate(attention):
        assert [value.name for value in node.inputs[3:5]] == [f"key_{layer}", f"value_{layer}"]
        assert [v.name for v in node.outputs[1:3]] == [f"key_{layer}_out", f"value_{layer}_out"]
        assert all(value.is_graph_output() for value in node.outputs[1:3])
    caches = {f"{part}_{layer}" for part in ("key", "value") for layer in range(2)}
    assert not [n for n in graph if n.op_type == "Cast" and n.inputs[0].name in caches]


def test_it_takes_half(tiny_folder: Path, tmp_path: Path) -> None:
    rows = {}
    for precision in ("fp32", "fp16"):
        config = CompileConfig(
            cache=CACHE, policy=PolicyConfig(name="knorm"), kv_precision=precision
        )
        manifest = compile_model(tiny_folder, tmp_path / precision, config)
        rows[precision] = {row.name: row.bytes for row in manifest.memory}
    # No copy of the cache in float32 is counted: the kernel reads the halves.
    assert rows["fp16"]["activations"] == rows["fp32"]["activations"]
    assert rows["fp16"]["spare layer"] * 2 == rows["fp32"]["spare layer"]
    # Keys and values in half; the place in the text of each entry, 8 bytes, as before.
    places = 8 * 96 * sum(layer.kv_heads for layer in manifest.model.layers)
    assert (rows["fp16"]["cache"] - places) * 2 == rows["fp32"]["cache"] - places


def test_a_target_without_it_refuses(tiny_folder: Path, tmp_path: Path) -> None:
    config = CompileConfig(cache=CACHE, target="onnxruntime:mobile", kv_precision="fp16")
    with pytest.raises(ConfigError, match="kv_precision is fp16, target onnxruntime:mobile has"):
        compile_model(tiny_folder, tmp_path / "m.lcc", config)
