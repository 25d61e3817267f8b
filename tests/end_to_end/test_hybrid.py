"""A hybrid artifact in use: saved and loaded, rewound, inspected, verified."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import lcc.runtime
from lcc.artifact.manifest import read_manifest
from lcc.cli import app
from lcc.errors import CacheError, ConfigError
from lcc.ir.plan import BlockSparse
from lcc.runtime.session import Session
from lcc.testing.tiny import save_tiny

PLAN = "0: sink_window(sink=2, window=9); 1: full"
BLOCKS = "0: block_sparse(block=4, stride=3, local=2, reach=12, shift=1); 1: full"
TEXT = np.random.default_rng(5).integers(5, 250, 90).tolist()


def lcc_command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hybrid")
    save_tiny(folder / "model", "llama")
    sizes = "--capacity 96 --budget 40 --chunk-size 16 --catalyst-size 32 --recent-size 8".split()
    for name, plan in {"m.lcc": PLAN, "blocks.lcc": BLOCKS}.items():
        lcc_command("compile", folder / "model", "-o", folder / name, "--plan", plan, *sizes)
    return folder / "m.lcc"


@pytest.fixture(params=["m.lcc", "blocks.lcc"])
def either(artifact: Path, request: pytest.FixtureRequest) -> Path:
    return artifact.with_name(request.param)


@pytest.fixture
def session(either: Path) -> Session:
    return lcc.runtime.open(either)


def test_small_layers_take_little_memory(artifact: Path) -> None:
    manifest, session = read_manifest(artifact), lcc.runtime.open(artifact)
    sparse, full = manifest.model.layers
    assert (sparse.slots, full.slots) == (2 + 9 + 32, None)  # the catalyst's 32 tokens fit, too
    arrays = session._executor.buffers.arrays
    assert arrays["key_0"].shape[2] == 43
    assert manifest.groups[1].layers == (0,)
    heads, entry = full.kv_heads, 2 * full.kv_heads * full.head_size * 4
    rows = {row.name: row.bytes for row in manifest.memory}
    # Of each group, where its entries were in the text, twice, and which of them stay.
    assert rows["cache, sink_window_1"] == 43 * (entry + 3 * 8 * heads)
    # Of each entry of a full layer, its token position and two entry scores.
    assert rows["cache, full"] == 96 * (entry + heads * (8 + 4 + 4))
    specs = session._executor.buffers.specs
    for row, group in (("cache, sink_window_1", "sink_window_1"), ("cache, full", "full")):
        held = [arrays[name].nbytes for name, spec in specs.items() if spec.group == group]
        assert rows[row] == sum(held)
    assert "sink_window(sink=2, window=9)" in lcc_command("inspect", artifact)


def test_blocks_that_nobody_sees_are_freed(artifact: Path) -> None:
    """The cache of a text without end has room for what the pattern sees, a chunk, a catalyst."""
    session = lcc.runtime.open(artifact.with_name("blocks.lcc"))
    assert session._executor.buffers.arrays["key_0"].shape[2] == (1 + 4 + 2) * 4 + 16 + 32
    session.feed(TEXT * 4, prefix=False)
    kept = session.kept_tokens(0)
    assert kept[:, :4].tolist() == [[0, 1, 2, 3]] * 2
    assert kept.shape[1] <= 28 + 16
    assert kept[:, 4].min() > 360 - 16 - 4 * 12  # nothing is left from beyond the reach
    assert kept[0].tolist() != kept[1].tolist()
    row = "block_sparse(block=4, stride=3, local=2, reach=12, shift=1)"
    assert row in lcc_command("inspect", artifact.with_name("blocks.lcc"))


def test_how_a_text_is_cut_does_not_matter(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks are dropped behind the same tokens: a key's angle depends on it, a little."""
    dropped: list[tuple[int, list]] = []
    executor = session._executor
    change, compact = executor._change, session.manifest.schedule.compact

    def spy(blocks: tuple, ids: list[int] | tuple[()] = ()) -> None:
        before = session.kept_tokens(0).shape[1]
        change(blocks, ids)
        if any(blocks is each for each in compact.values()):
            assert session.kept_tokens(0).shape[1] <= before
            dropped.append((session.tokens, session.kept_tokens(0).tolist()))

    monkeypatch.setattr(executor, "_change", spy)
    session.feed(TEXT, prefix=False)
    whole, at_once = session.next_logits().copy(), dropped.copy()
    session.reset()
    dropped.clear()
    for piece in (TEXT[:7], TEXT[7:8], TEXT[8:41], TEXT[41:48], TEXT[48:]):
        session.feed(piece, prefix=False)
    np.testing.assert_allclose(session.next_logits(), whole, atol=1e-5)
    assert dropped
    if isinstance(session.manifest.model.layers[0].kind, BlockSparse):
        assert dropped == at_once  # windows meet their first tokens by angles of their own


def test_verify(either: Path) -> None:
    output = lcc_command("verify", either, "--model", either.parent / "model")
    assert "entries kept by 2 cycles" in output
    assert "compact_0" in output


def test_verify_a_plan_that_sees_next_to_nothing(artifact: Path, tmp_path: Path) -> None:
    """Nothing can be compared with the model itself behind what a layer sees of a text."""
    sizes = "--capacity 96 --budget 40 --chunk-size 16 --catalyst-size 32 --recent-size 8".split()
    sizes += ["--policy", "knorm"]
    for number, plan in enumerate(
        ["block_sparse(block=8, stride=4, local=1, reach=8)", "sink_window(sink=0, window=2)"]
    ):
        model, folder = artifact.parent / "model", tmp_path / f"{number}.lcc"
        lcc_command("compile", model, "-o", folder, "--plan", f"0: {plan}; 1: full", *sizes)
        output = lcc_command("verify", folder, "--model", model)
        assert "prefill_chunk + head" in output
        assert "entries kept by 2 cycles" in output


def test_a_state_goes_on_as_if_there_had_been_none(
    either: Path, session: Session, tmp_path: Path
) -> None:
    session.feed(TEXT, prefix=False)
    session.save(tmp_path / "s")
    other = lcc.runtime.open(either)
    other.load(tmp_path / "s")
    for each in (session, other):
        each.feed(TEXT[:60], prefix=False)
    for i in range(2):
        np.testing.assert_array_equal(session.kept_tokens(i), other.kept_tokens(i))
    np.testing.assert_array_equal(session.next_logits(), other.next_logits())
    assert session.kept_tokens(0)[0].tolist()[:2] == [0, 1]
    newest = session.kept_tokens(0)[:, -8:].tolist()
    assert newest == [list(range(142, 150))] * len(newest)


def test_a_state_of_larger_chunks(artifact: Path, tmp_path: Path) -> None:
    """A smaller device reads on in smaller chunks; all that a query sees is held all the same."""
    sizes = "--capacity 96 --budget 40 --chunk-size 32 --catalyst-size 4 --recent-size 8".split()
    folder = tmp_path / "m.lcc"
    lcc_command(
        "compile",
        artifact.parent / "model",
        "-o",
        folder,
        "--plan",
        BLOCKS,
        "--policy",
        "knorm",
        *sizes,
    )
    whole = lcc.runtime.open(folder)
    kind, heads = whole.manifest.model.layers[0].kind, np.arange(2)[:, None]
    assert isinstance(kind, BlockSparse)
    for chunk in (8, 20, 24, 31):
        session = lcc.runtime.open(folder, chunk_size=chunk)
        for length in (31, 63, 90):
            whole.reset()
            whole.feed(TEXT[:length], prefix=False)
            whole.save(tmp_path / "s")
            session.load(tmp_path / "s")
            session.feed(TEXT[:60], prefix=False)
            tokens = np.arange(length + 60)[None]
            seen = kind.sees(tokens[:, -1:], np.repeat(tokens, 2, 0), heads)
            for head, held in enumerate(session.kept_tokens(0)):
                assert {*np.flatnonzero(seen[head])} <= {*held}
            assert session.kept_tokens(0).shape[1] < length + 60


def test_rewinding_reaches_back_to_what_was_dropped(session: Session) -> None:
    session.feed(TEXT[:50], prefix=False)
    session.feed(TEXT[50:60], prefix=False)
    wanted = session.next_logits()
    reach = session.rewindable
    assert session.kept_tokens(0).shape[1] < 60  # something was dropped on the way
    assert 0 < reach < 60
    with pytest.raises(CacheError, match=f"rewind.60.: {reach} tokens"):
        session.rewind(60)
    session.rewind(reach)
    session.feed(TEXT[60 - reach : 60], prefix=False)
    np.testing.assert_allclose(session.next_logits(), wanted, atol=1e-5)
    session.rewind(1)
    before = session.next_logits()
    session.reset()
    session.feed(TEXT[:59], prefix=False)
    np.testing.assert_allclose(before, session.next_logits(), atol=1e-5)


def test_plans_that_do_not_fit_are_refused(artifact: Path, tmp_path: Path) -> None:
    command = ["compile", str(artifact.parent / "model"), "-o", str(tmp_path / "m")]
    command += ["--policy", "knorm", "--plan"]
    result = CliRunner().invoke(app, [*command, "0: full"])
    assert result.exit_code == 2
    assert "no kind for layers 1; every layer needs exactly one" in result.output
    result = CliRunner().invoke(app, [*command, "longgen(sink=4, window=4096)"])
    assert isinstance(result.exception, SystemExit | ConfigError)
    assert "was trained on positions below 512" in result.output
    for option in ("--chunk-size", "--budget"):
        small = ["dense", option, "1", "--sink-size", "0", "--recent-size", "0"]
        assert (
            "is 1, wanted 2 or more to compile"
            in CliRunner().invoke(app, [*command, *small]).output
        )
    chosen = ["0: sink_window(sink=4, window=600); 1: full", "--memory", "1GB"]
    assert "trained on positions below 512" in CliRunner().invoke(app, [*command, *chosen]).output
    assert not (tmp_path / "m").exists()
