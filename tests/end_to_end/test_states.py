"""Models whose layers carry a state, compiled: sessions that go on, go back, and forget nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import lcc.runtime
from lcc.artifact.manifest import read_manifest
from lcc.cli import app
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import CacheError, ConfigError
from lcc.ir.roles import Role
from lcc.runtime.session import Session
from lcc.testing.tiny import save_tiny, tiny_model

CACHE = CacheConfig(capacity=160, budget=40, chunk_size=16, catalyst_size=8, recent_size=8)
CASES = {  # a cycle reads the newest tokens again; a catalyst; no layer attends
    "newest": ("lfm2", "snapkv"),
    "catalyst": ("qwen3_5_text", "infinipot"),
    "alone": ("mamba", "snapkv"),
}
GREEDY = {"eos": [], "temperature": 0.0, "repetition_penalty": 1.0}
TEXT = np.random.default_rng(5).integers(5, 250, 1000).tolist()


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("states")
    for name, (architecture, policy) in CASES.items():
        config = CompileConfig(cache=CACHE, policy=PolicyConfig(name=policy))
        save_tiny(folder / name, architecture)
        compile_model(folder / name, folder / f"{name}.lcc", config)
    return folder


@pytest.fixture(params=CASES)
def session(artifacts: Path, request: pytest.FixtureRequest) -> Session:
    return lcc.runtime.open(artifacts / f"{request.param}.lcc")


def states(session: Session) -> dict[str, np.ndarray]:
    """Copies of what the layers carry."""
    buffers = session._executor.buffers
    marks = {mark for _, mark in session.manifest.schedule.marks}
    names = [n for n, spec in buffers.specs.items() if spec.role == Role.STATE and n not in marks]
    assert names
    return {name: buffers.arrays[name].copy() for name in names}


def written(session: Session, count: int = 24) -> list[int]:
    """Greedy tokens from where the session is."""
    return list(session.generate_ids(None, max_new_tokens=count, **GREEDY))


def test_saved_in_the_middle_and_loaded(session: Session, artifacts: Path, tmp_path: Path) -> None:
    session.feed(TEXT[:300])
    session.save(tmp_path / "s")
    session.feed(TEXT[300:500])
    wanted, logits = written(session), session.next_logits()
    other = session.model.session()
    other.feed(TEXT[400:480])
    other.load(tmp_path / "s")
    other.feed(TEXT[300:500])
    assert written(other) == wanted
    assert np.array_equal(other.next_logits(), logits)


@pytest.mark.parametrize("back", [1, 3, 17, 40])
def test_rewound_within_the_last_text(session: Session, back: int) -> None:
    """It is as if what was taken back had never been read, whatever follows."""
    session.feed(TEXT[:90])
    session.feed(TEXT[90:140])
    assert session.rewindable >= 50
    session.rewind(back)
    logits = session.next_logits()
    session.feed(TEXT[600:630])
    other = session.model.session()
    other.feed(TEXT[:90])
    other.feed(TEXT[90 : 140 - back])
    assert np.allclose(other.next_logits(), logits, atol=2e-5)
    other.feed(TEXT[600:630])
    assert written(other) == written(session)
    for name, array in states(other).items():
        assert np.allclose(array, states(session)[name], atol=2e-5), name


def test_rewound_to_the_last_turn_and_no_further(session: Session) -> None:
    session.feed(TEXT[:100])
    before, logits = states(session), session.next_logits()
    written(session, 20)
    session.feed(TEXT[100:130])
    with pytest.raises(CacheError, match="rewind"):
        session.rewind(session.rewindable + 1)
    session.reset()
    session.feed(TEXT[:100])
    session.feed(TEXT[100:130])
    written(session, 20)
    session.rewind(50)
    assert session.tokens == 100
    for name, array in states(session).items():
        assert np.array_equal(array, before[name]), name
    assert np.allclose(session.next_logits(), logits, atol=2e-5)


def test_an_answer_can_be_asked_for_again(artifacts: Path) -> None:
    """The last answer is taken back, with the states before it; only its prompt is read again."""
    session = lcc.runtime.open(artifacts / "newest.lcc")
    asked, how = [{"role": "user", "content": "ab" * 20}], {"max_new_tokens": 8, "temperature": 0.0}
    answer, logits = "".join(session.chat(asked, **how)), session.next_logits()
    read = session.stats().prefill_tokens
    assert "".join(session.chat(asked, **how)) == answer
    assert session.stats().prefill_tokens - read < read / 2
    assert np.allclose(session.next_logits(), logits, atol=1e-4)


def test_what_a_cycle_reads_changes_no_state(session: Session) -> None:
    session.feed(TEXT[:145])
    before, cycles = states(session), len(session.cycles)
    session.distill()
    assert len(session.cycles) == cycles + 1
    for name, array in states(session).items():
        assert np.array_equal(array, before[name]), name


def test_what_is_read_again_becomes_the_same_entries(artifacts: Path) -> None:
    """The newest tokens, from the states that they had before them: their values do not change."""
    session = lcc.runtime.open(artifacts / "newest.lcc")
    arrays, recent = session._executor.buffers.arrays, CACHE.recent_size
    session.feed(TEXT[: session._executor.limits.usable])
    newest = slice(session.used - recent, session.used)
    before = {i: arrays[f"value_{i}"][:, :, newest].copy() for i in (0, 1)}
    session.distill()
    for i, array in before.items():
        after = arrays[f"value_{i}"][:, :, session.used - recent : session.used]
        assert np.allclose(after, array, atol=1e-5), i


def test_a_cycle_before_it_is_due_goes_by_the_same_queries(artifacts: Path) -> None:
    """It reads as many of the newest tokens again as one that is due, of a smaller cache."""
    session = lcc.runtime.open(artifacts / "newest.lcc")
    smaller = session.model.session(capacity=130)
    for each in (session, smaller):
        each.feed(TEXT[:130])
        each.distill()
    kept = session._executor.kept_tokens(0)
    assert np.array_equal(smaller._executor.kept_tokens(0), kept)


def test_memory_is_what_is_allocated(session: Session) -> None:
    rows = {row.name: row.bytes for row in session.manifest.memory}
    arrays, specs = session._executor.buffers.arrays, session._executor.buffers.specs
    held = sum(arrays[name].nbytes for name, spec in specs.items() if spec.role == Role.STATE)
    held += 4 * sum(array.nbytes for array in states(session).values())  # to go back, to put back
    assert rows["states"] == held


def test_without_attention_nothing_is_forgotten(artifacts: Path) -> None:
    """A text many times longer than the cache gives the model's own logits."""
    session, model = lcc.runtime.open(artifacts / "alone.lcc"), tiny_model("mamba")
    assert not session.manifest.model.layers
    session.feed(TEXT)
    with torch.no_grad():
        wanted = model(torch.tensor([TEXT])).logits[0, -1].numpy()
    assert np.allclose(session.next_logits(), wanted, atol=1e-4 * np.abs(wanted).max())
    assert session.stats().held_bytes < 200_000


def test_inspect_says_what_there_is(artifacts: Path) -> None:
    for name, words in {"alone": "no layer attends", "newest": "capacity 160, budget 40"}.items():
        result = CliRunner().invoke(app, ["inspect", str(artifacts / f"{name}.lcc")])
        assert result.exit_code == 0
        assert words in result.output
        assert "states     2 of recurrent layers" in result.output or name == "alone"


def test_a_plan_names_the_layers_that_attend(tmp_path: Path) -> None:
    config = CompileConfig(
        cache=CACHE,
        policy=PolicyConfig(name="snapkv"),
        plan="0: full; 1: sink_window(sink=2, window=24)",
    )
    compile_model(tiny_model("lfm2"), tmp_path / "m.lcc", config)
    assert len(read_manifest(tmp_path / "m.lcc").model.layers) == 2
    session = lcc.runtime.open(tmp_path / "m.lcc")
    session.feed(TEXT[:400])
    assert np.isfinite(session.next_logits()).all()
    config = CompileConfig(cache=CACHE, policy=config.policy, plan="0-3: full")
    with pytest.raises(ConfigError, match="plan"):
        compile_model(tiny_model("lfm2"), tmp_path / "n.lcc", config)
