"""Target onnxruntime:cuda, up to the launch: its programs and a device's buffers, on the CPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import lcc.runtime
from lcc.artifact.manifest import cache_dtype, read_manifest
from lcc.errors import TargetError
from lcc.ir.roles import Role
from lcc.measure.verify import verify
from lcc.runtime.engines import cuda_provider
from lcc.runtime.engines.base import Runner
from lcc.runtime.engines.device_array import DeviceArray
from lcc.runtime.engines.onnx_runtime import OnnxRuntimeEngine
from lcc.runtime.session import Session
from lcc.sources.models import LoadedModel

NAME = "onnxruntime:cuda"
TEXT = np.random.default_rng(5).permutation(250)[:200].tolist()
ON_GPU = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


@pytest.fixture(scope="module")
def artifact(compiled: Callable[..., Path], hybrid: str) -> Path:
    """With a layer of each kind."""
    return compiled(NAME, plan=hybrid)


@pytest.fixture(scope="module")
def exact(compiled: Callable[..., Path], hybrid: str) -> Path:
    """The same for a CPU, in float32."""
    return compiled("onnxruntime:cpu", plan=hybrid)


def margins(session: Session, count: int) -> tuple[list[int], float]:
    """Greedy tokens, and by how much the closest of them was ahead of the second."""
    written, least = [], float("inf")
    for _ in range(count):
        logits = np.sort(session.next_logits())
        least = min(least, float(logits[-1] - logits[-2]))
        written += list(session.generate_ids(max_new_tokens=1, eos=[]))
    return written, least


def test_a_text_of_several_cycles_is_read_as_in_float32(artifact: Path, exact: Path) -> None:
    half, wide = lcc.runtime.open(artifact, device="cpu"), lcc.runtime.open(exact)
    for session in (half, wide):
        session.feed(TEXT, prefix=False)
        assert len(session.cycles) >= 2
    for i in range(3):
        np.testing.assert_array_equal(half.kept_tokens(i), wide.kept_tokens(i))
    error = np.abs(half.next_logits() - wide.next_logits()).max()
    assert 0 < error < 2e-2
    written, least = margins(wide, 30)
    assert least > 2 * error  # or the tokens would prove nothing
    assert len(set(written)) > 2
    assert margins(half, 30)[0] == written


def test_the_cache_is_written_where_it_lies(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps are given one buffer as input and output; an eviction swaps it with the spare one."""
    model, steps = lcc.runtime.load(artifact, device="cpu"), list[Runner]()
    runner = model.engine.runner

    def watched(program: str) -> Runner:
        made = runner(program)
        if program in ("prefill_chunk", "decode"):
            steps.append(made)
        return made

    monkeypatch.setattr(model.engine, "runner", watched)
    session = model.session()
    buffers = session._executor.buffers
    caches = [n for n, spec in buffers.specs.items() if spec.role in (Role.KEY, Role.VALUE)]
    assert {name for name in caches if name.startswith("spare")}

    def places(names: list[str]) -> set[int]:
        arrays = [buffers.arrays[name] for name in names]
        assert all(isinstance(array, DeviceArray) for array in arrays)
        return {array.value.data_ptr() for array in arrays}  # type: ignore[union-attr]

    before, full = places(caches), places(["key_1"])
    session.feed(TEXT, prefix=False)
    list(session.generate_ids(max_new_tokens=20, eos=[]))
    assert len(session.cycles) == 3
    assert places(caches) == before  # nothing was allocated
    assert places(["key_1"]) != full  # an odd number of swaps
    own = places([name for name in caches if not name.startswith("spare")])
    last = [runner for runner in steps if runner._bound.get("key_1") is buffers.arrays["key_1"]]
    assert last  # the one that has run since the last swap
    for each in last:
        assert {output.data_ptr() for output in each._binding.get_outputs()} >= own
    key = buffers.rows("key_1", 0, session.used)
    assert key.dtype == np.float16
    assert key.any(axis=(0, 3)).all()  # every entry was written


def test_the_manifest_says_half_and_the_table_counts_it(artifact: Path, exact: Path) -> None:
    manifest, wide = read_manifest(artifact), read_manifest(exact)
    assert (cache_dtype(manifest), cache_dtype(wide)) == ("float16", "float32")
    table, other = ({row.name: row.bytes for row in page.memory} for page in (manifest, wide))
    session = lcc.runtime.open(artifact, device="cpu")
    names = ("cache", "spare layer", "queries", "logs")
    held = sum(size for name, size in table.items() if name.startswith(names))
    assert held == session._executor.cache_bytes
    # Keys, values and positions of a full layer, and keys and values of the two others.
    heads, size = (manifest.model.layers[0].kv_heads, manifest.model.layers[0].head_size)
    slots = [96, *(group.slots for group in manifest.groups[1:])]
    assert table["spare layer"] == heads * (sum(slots) * 2 * size * 2 + 96 * 8)
    assert 2 * table["weights"] < 1.03 * other["weights"]
    page = onnx.load(artifact / "step.onnx", load_external_data=False)
    large = [each for each in page.graph.initializer if np.prod(each.dims) > 1000]
    assert {each.data_type for each in large} == {onnx.TensorProto.FLOAT16}


def test_a_state_goes_on_exactly(artifact: Path, tmp_path: Path) -> None:
    session = lcc.runtime.open(artifact, device="cpu")
    session.feed(TEXT[:130], prefix=False)
    session.save(tmp_path / "s")
    other = lcc.runtime.open(artifact, device="cpu")
    other.feed(TEXT[:50], prefix=False)
    other.load(tmp_path / "s")
    for each in (session, other):
        each.feed(TEXT[130:], prefix=False)
    np.testing.assert_array_equal(session.next_logits(), other.next_logits())


def test_verify_knows_half_precision(
    artifact: Path, loaded: Callable[..., LoadedModel], hybrid: str
) -> None:
    report = verify(artifact, loaded("llama", hybrid), device="cpu")
    assert [row for row in report.rows if not row.ok] == []
    assert not report.exact
    limits = {row.what: row.tolerance for row in report.rows}
    of_programs = {limit for what, limit in limits.items() if what.startswith(("evict", "compact"))}
    assert of_programs == {1e-4, 5e-2}, "places are exact, entries in half"
    assert any("compact" in what for what in limits)
    assert any("cycles" in what for what in limits)


@pytest.mark.skipif(ON_GPU, reason="there is a GPU")
def test_never_quietly_on_the_cpu(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TargetError, match=r'this ONNX Runtime has only .* device="cpu"'):
        lcc.runtime.open(artifact)
    # onnxruntime-gpu says that it can, where a library of CUDA's is missing, and takes the CPU.
    real = onnxruntime.get_available_providers()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [cuda_provider.NAME, *real])
    with pytest.raises(TargetError, match="could not start CUDAExecutionProvider: a library or"):
        lcc.runtime.open(artifact)
    engine = OnnxRuntimeEngine(artifact, read_manifest(artifact), device="cpu")
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
    file = read_manifest(artifact).programs["prefill_chunk"].file
    session = onnxruntime.InferenceSession(
        str(artifact / file), options, providers=["CPUExecutionProvider"]
    )
    names = cuda_provider.misplaced(session)
    assert {"MatMul", "GroupQueryAttention", "RotaryEmbedding"} <= set(names)
    assert not {"Shape", "Add", "Cast", "Slice", "Concat"} & set(names)


@pytest.mark.skipif(not ON_GPU, reason="needs an NVIDIA GPU and onnxruntime-gpu 1.31 or newer")
def test_on_a_gpu(artifact: Path) -> None:
    there, here = (lcc.runtime.open(artifact, device=device) for device in (None, "cpu"))
    for session in (there, here):
        session.feed(TEXT, prefix=False)
    for i in range(3):
        np.testing.assert_array_equal(there.kept_tokens(i), here.kept_tokens(i))
    np.testing.assert_allclose(there.next_logits(), here.next_logits(), atol=2e-2)
