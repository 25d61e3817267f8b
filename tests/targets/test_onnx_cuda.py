"""Target onnxruntime:cuda, up to the launch: its programs and a device's buffers, on the CPU."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import lcc.runtime
from lcc.artifact.manifest import cache_dtype, for_target, read_manifest
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import TargetError
from lcc.measure.verify import verify
from lcc.runtime.engines import cuda_provider
from lcc.runtime.engines.device_array import DeviceArray
from lcc.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from lcc.runtime.session import Session
from lcc.testing.tiny import save_tiny

NAME = "onnxruntime:cuda"
CACHE = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
PLAN = (
    "0: sink_window(sink=2, window=9); 1: full; "
    "2: block_sparse(block=4, stride=3, local=2, reach=12, shift=1)"
)
TEXT = np.random.default_rng(5).permutation(250)[:200].tolist()
ON_GPU = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For a GPU and for the CPU, with a layer of each kind."""
    folder = tmp_path_factory.mktemp("cuda")
    save_tiny(folder / "model", "llama", num_hidden_layers=3)
    config = CompileConfig(
        target=NAME,
        also=("onnxruntime:cpu",),
        cache=CACHE,
        policy=PolicyConfig(name="snapkv"),
        plan=PLAN,
    )
    compile_model(folder / "model", folder / "m.lcc", config)
    return folder / "m.lcc"


def margins(session: Session, count: int) -> tuple[list[int], float]:
    """Greedy tokens, and by how much the closest of them was ahead of the second."""
    written, least = [], float("inf")
    for _ in range(count):
        logits = np.sort(session.next_logits())
        least = min(least, float(logits[-1] - logits[-2]))
        written += list(session.generate_ids(max_new_tokens=1, eos=[]))
    return written, least


def test_a_text_of_several_cycles_is_read_as_in_float32(artifact: Path) -> None:
    sessions = [
        lcc.runtime.open(artifact, target=NAME, device="cpu"),
        lcc.runtime.open(artifact, target="onnxruntime:cpu"),
    ]
    for session in sessions:
        session.feed(TEXT, prefix=False)
        assert len(session.cycles) >= 2
    half, exact = sessions
    for i in range(3):
        np.testing.assert_array_equal(half.kept_tokens(i), exact.kept_tokens(i))
    error = np.abs(half.next_logits() - exact.next_logits()).max()
    assert 0 < error < 2e-2
    written, least = margins(exact, 30)
    assert least > 2 * error  # or the tokens would prove nothing
    assert len(set(written)) > 2
    assert margins(half, 30)[0] == written


def test_the_cache_is_written_where_it_lies(artifact: Path) -> None:
    """Steps are given one buffer as input and output; an eviction swaps it with the spare one."""
    session = lcc.runtime.open(artifact, target=NAME, device="cpu")
    cache, evictions = session._executor.cache, session._executor._evictions

    def places() -> set[int]:
        spare = [each for pair in evictions._layers.values() for each in pair]
        buffers = [*cache.keys, *cache.values, *spare]
        assert all(isinstance(each, DeviceArray) for each in buffers)
        return {each.value.data_ptr() for each in buffers}

    before, full = places(), cache.keys[1].value.data_ptr()
    session.feed(TEXT, prefix=False)
    list(session.generate_ids(max_new_tokens=20, eos=[]))
    assert len(session.cycles) == 3
    assert places() == before  # nothing was allocated
    assert cache.keys[1].value.data_ptr() != full  # an odd number of swaps
    for runner in (session._executor._step, session._executor._decode):
        assert runner._bindings
        for binding in runner._bindings.values():
            written = {output.data_ptr() for output in binding.get_outputs()}
            assert written >= {each.value.data_ptr() for each in (*cache.keys, *cache.values)}
    key, value = cache.rows(1, session.used)
    assert key.dtype == value.dtype == np.float16
    assert key.any(axis=(0, 2)).all()  # every entry was written


def test_the_manifest_says_half_and_the_table_counts_it(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    assert cache_dtype(for_target(manifest, NAME).programs) == "float16"
    assert cache_dtype(for_target(manifest, "onnxruntime:cpu").programs) == "float32"
    alone = artifact.with_name("alone.lcc")
    config = CompileConfig(target=NAME, cache=CACHE, policy=PolicyConfig(name="knorm"), plan=PLAN)
    compile_model(artifact.with_name("model"), alone, config)
    session = lcc.runtime.open(alone, device="cpu")
    table = {row.name: row.bytes for row in session.manifest.memory}
    cache = sum(size for name, size in table.items() if name.startswith("cache"))
    assert cache == session._executor.cache.bytes
    spare = session._executor._evictions._layers.values()
    assert table["spare layer"] == sum(each.nbytes for pair in spare for each in pair)
    wide = {row.name: row.bytes for row in manifest.memory}  # what the CPU's programs take
    assert 2 * table["weights"] < 1.03 * wide["weights"]
    page = onnx.load(alone / "step.onnx", load_external_data=False)
    large = [each for each in page.graph.initializer if np.prod(each.dims) > 1000]
    assert {each.data_type for each in large} == {onnx.TensorProto.FLOAT16}


def test_a_state_goes_on_exactly(artifact: Path, tmp_path: Path) -> None:
    session = lcc.runtime.open(artifact, target=NAME, device="cpu")
    session.feed(TEXT[:130], prefix=False)
    session.save(tmp_path / "s")
    other = lcc.runtime.open(artifact, target=NAME, device="cpu")
    other.feed(TEXT[:50], prefix=False)
    other.load(tmp_path / "s")
    for each in (session, other):
        each.feed(TEXT[130:], prefix=False)
    np.testing.assert_array_equal(session.next_logits(), other.next_logits())
    exact = lcc.runtime.open(artifact, target="onnxruntime:cpu")
    exact.load(tmp_path / "s")  # what the GPU distilled, the CPU goes on from
    exact.feed(TEXT[130:], prefix=False)
    np.testing.assert_allclose(exact.next_logits(), session.next_logits(), atol=2e-2)


def test_verify_knows_half_precision(artifact: Path) -> None:
    report = verify(artifact, artifact.with_name("model"), target=NAME, device="cpu")
    assert [row for row in report.rows if not row.ok] == []
    assert not report.exact
    limits = {row.what: row.tolerance for row in report.rows}
    of_programs = {limit for what, limit in limits.items() if what.startswith(("evict", "compact"))}
    assert of_programs == {1e-4, 5e-2}, "places are exact, entries in half"
    assert any("compact" in what for what in limits)
    assert any("cycles" in what for what in limits)


@pytest.mark.skipif(ON_GPU, reason="there is a GPU")
def test_never_quietly_on_the_cpu(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = for_target(read_manifest(artifact), NAME)
    with pytest.raises(TargetError, match=r'this ONNX Runtime has only .* device="cpu"'):
        lcc.runtime.open(artifact, target=NAME)
    assert lcc.runtime.open(artifact).manifest.target == "onnxruntime:cpu"  # the next one
    # onnxruntime-gpu says that it can, where a library of CUDA's is missing, and takes the CPU.
    real = onnxruntime.get_available_providers()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda_provider.NAME, *real])
    with pytest.raises(TargetError, match="could not start CUDAExecutionProvider: a library or"):
        lcc.runtime.open(artifact, target=NAME)
    assert lcc.runtime.open(artifact).manifest.target == "onnxruntime:cpu"
    engine = OnnxRuntimeEngine(artifact, alone, device="cpu")
    engine._provider = cuda_provider.NAME
    with (
        pytest.warns(UserWarning, match="not in available provider names"),
        pytest.raises(TargetError, match="could not start CUDAExecutionProvider: a library or"),
    ):
        engine.runner("head")


def test_what_runs_on_the_cpu_is_found(artifact: Path) -> None:
    """Nodes in the wrong place are told; those that compute with sizes may be there."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(cuda_provider.RECORD, "1")
    file = for_target(read_manifest(artifact), NAME).programs["prefill_chunk"].file
    session = onnxruntime.InferenceSession(
        str(artifact / file), options, providers=["CPUExecutionProvider"]
    )
    names = cuda_provider.misplaced(session)
    assert {"MatMul", "GroupQueryAttention", "RotaryEmbedding"} <= set(names)
    assert not {"Shape", "Add", "Cast", "Slice", "Concat"} & set(names)


@pytest.mark.skipif(not ON_GPU, reason="needs an NVIDIA GPU and onnxruntime-gpu 1.31 or newer")
def test_on_a_gpu(artifact: Path) -> None:
    there, here = (lcc.runtime.open(artifact, target=NAME, device=d) for d in (None, "cpu"))
    for session in (there, here):
        session.feed(TEXT, prefix=False)
    for i in range(3):
        np.testing.assert_array_equal(there.kept_tokens(i), here.kept_tokens(i))
    np.testing.assert_allclose(there.next_logits(), here.next_logits(), atol=2e-2)
