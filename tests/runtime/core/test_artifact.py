"""The core on a compiled model, by ONNX Runtime: token ids only."""

import threading
from pathlib import Path

import numpy as np
import pytest

from lcc.artifact.manifest import read_manifest
from lcc.runtime.core import state
from lcc.runtime.core.executor import Executor
from lcc.runtime.core.plan import CYCLE, next_step
from lcc.runtime.engines.onnx_runtime import OnnxRuntimeEngine

TEXT = [int(t) for t in np.random.default_rng(0).integers(0, 200, 500)]


def feed(executor: Executor, ids: list[int], most: int = 999) -> None:
    while ids:
        count = next_step(min(len(ids), most), executor.used, executor.limits)
        if count == CYCLE:
            executor.evict([1, 2, 3])
        else:
            executor.read(ids[:count])
            ids = ids[count:]


@pytest.fixture(scope="module")
def engine(tiny_artifact: Path) -> OnnxRuntimeEngine:
    engine = OnnxRuntimeEngine(tiny_artifact, read_manifest(tiny_artifact), threads=1)
    engine.load_all()
    return engine


def session(engine: OnnxRuntimeEngine) -> Executor:
    manifest = engine._manifest
    return Executor(manifest, manifest.cache, engine)


def test_the_cut_into_steps_does_not_matter(engine):
    whole, cut = session(engine), session(engine)
    feed(whole, TEXT)
    feed(cut, TEXT, most=1)
    assert whole.counters.keys() == cut.counters.keys()
    for layer in range(2):
        assert (whole.kept_tokens(layer) == cut.kept_tokens(layer)).all()
    np.testing.assert_allclose(whole.logits(), cut.logits(), atol=1e-5)
    assert whole.tokens == 500 > 3 * whole.limits.capacity


def test_a_state_and_a_rewind_go_on_as_before(engine, tmp_path):
    executor, other = session(engine), session(engine)
    feed(executor, TEXT[:300])
    state.save(tmp_path / "a", executor, None)
    state.load(tmp_path / "a", other)
    executor.read(TEXT[300:303])
    executor.rewind(3)
    for each in (executor, other):
        feed(each, TEXT[300:])
    np.testing.assert_allclose(executor.logits(), other.logits(), atol=1e-5)
    assert (executor.kept_tokens(0) == other.kept_tokens(0)).all()


def test_sessions_of_one_engine_run_in_threads_of_their_own(engine):
    texts = [TEXT[i:] + TEXT[:i] for i in range(4)]
    alone, together = [], [session(engine) for _ in texts]
    for text in texts:
        executor = session(engine)
        feed(executor, text, most=7)
        alone.append((executor.logits().copy(), executor.kept_tokens(0)))
    pairs = zip(together, texts, strict=True)
    threads = [threading.Thread(target=feed, args=(each, text, 7)) for each, text in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for executor, (logits, kept) in zip(together, alone, strict=True):
        np.testing.assert_allclose(executor.logits(), logits, atol=1e-5)
        assert (executor.kept_tokens(0) == kept).all()
