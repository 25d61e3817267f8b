import json
import os
from pathlib import Path

import pytest

from lcc.artifact import replace
from lcc.artifact.folder import check_unchanged, verify_files, write_artifact
from lcc.artifact.manifest import (
    LayerEntry,
    Manifest,
    ModelEntry,
    PassEntry,
    ProgramEntry,
    fingerprint,
    read_manifest,
)
from lcc.artifact.schedule import (
    Block,
    BufferSpec,
    Group,
    Over,
    Run,
    Schedule,
    TensorSpec,
    TextFacts,
)
from lcc.config import CacheConfig, PolicyConfig
from lcc.errors import ArtifactError
from lcc.ir.roles import Role

KEY = TensorSpec(name="key_0", role=Role.KEY, layer=0, dtype="float32", shape=(1, 1, "slots", 4))
TOKENS = TensorSpec(name="tokens", role=Role.TOKENS, dtype="int64", shape=(1, "tokens"))
HIDDEN = TensorSpec(name="hidden", role=Role.HIDDEN, dtype="float32", shape=("rows", 8))
LOGITS = TensorSpec(name="logits", role=Role.LOGITS, dtype="float32", shape=(1, 16))


def key_out() -> TensorSpec:
    return TensorSpec(name="key_0_out", role=KEY.role, layer=0, dtype=KEY.dtype, shape=KEY.shape)


def small_manifest() -> Manifest:
    """One layer that is never evicted; a step, and the head."""
    step = Run(run="decode", bind={"tokens": ("ids", "used", "n"), "key_0": "key_0"})
    head = Run(run="head", bind={"hidden": ("hidden", "state", "one"), "logits": "logits"})
    counters = ("used", "kept", "tokens", "n", "start", "layer", "protected", "known", "left")
    return Manifest(
        made_by="lcc 0.1.0",
        target="onnxruntime:cpu",
        model=ModelEntry(
            name="tiny",
            architecture="TinyForCausalLM",
            hidden_size=8,
            vocab_size=16,
            layers=[LayerEntry(query_heads=2, kv_heads=1, head_size=4)],
        ),
        cache=CacheConfig(),
        policy=PolicyConfig(name="none"),
        constants={
            **{"zero": 0, "one": 1, "no_state": -1, "reserved": 0},
            **{"capacity": 2048, "budget": 1024, "chunk_size": 256, "catalyst_size": 64},
        },
        counters=dict.fromkeys(counters, 0) | {"state": -1},
        groups=(Group(name="full", used="used", kept="kept", slots="capacity", layers=(0,)),),
        buffers=(
            BufferSpec(name="ids", role=Role.TOKENS, dtype="int64", shape=(2305,)),
            BufferSpec(name="hidden", role=Role.HIDDEN, dtype="float32", shape=(257, 8)),
            BufferSpec(name="logits", role=Role.LOGITS, dtype="float32", shape=(1, 16)),
            BufferSpec(name="nll", role=Role.ENTRY_SCORE, dtype="float32", shape=(257,)),
            BufferSpec(
                name="key_0",
                role=Role.KEY,
                layer=0,
                group="full",
                dtype="float32",
                shape=(1, 1, "capacity", 4),
                axis=2,
                saved=("zero", "used"),
            ),
        ),
        schedule=Schedule(
            read=(
                Block(
                    over=Over(ids="text", most="chunk_size"),
                    do=(step,),
                    add=("used", "tokens"),
                    set={"state": "n"},
                ),
            ),
            logits=(Block(do=(head,)),),
            nll=(),
        ),
        text=TextFacts(ends=(2,)),
        programs={
            "decode": ProgramEntry(
                file="step.onnx",
                inputs=[TOKENS, KEY],
                outputs=[key_out()],
                updates={"key_0_out": "key_0"},
            ),
            "head": ProgramEntry(file="head.onnx", inputs=[HIDDEN], outputs=[LOGITS]),
        },
        passes=[PassEntry(name="find_attention", sites=1)],
        memory=[],
    )


def fill(folder: Path) -> Manifest:
    (folder / "step.onnx").write_bytes(b"step")
    (folder / "head.onnx").write_bytes(b"head")
    (folder / "data").mkdir()
    (folder / "data" / "weights.bin").write_bytes(bytes(1000))
    return small_manifest()


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "tiny.lcc", fill)
    return tmp_path / "tiny.lcc"


def test_manifest_is_byte_exact(artifact, tmp_path):
    data = (artifact / "manifest.json").read_bytes()
    assert data == (Path(__file__).parent / "golden" / "manifest.json").read_bytes()
    write_artifact(tmp_path / "again.lcc", fill)
    assert (tmp_path / "again.lcc" / "manifest.json").read_bytes() == data


def test_round_trip(artifact):
    manifest = read_manifest(artifact)
    verify_files(artifact, manifest)
    assert list(manifest.files) == ["data/weights.bin", "head.onnx", "step.onnx"]
    assert manifest.model == small_manifest().model
    assert manifest.schedule == small_manifest().schedule
    assert manifest.heads is None
    assert "heads" not in json.loads((artifact / "manifest.json").read_text())


def test_fingerprint_follows_every_file(artifact, tmp_path):
    def other(folder: Path) -> Manifest:
        manifest = fill(folder)
        (folder / "step.onnx").write_bytes(b"stop")
        return manifest

    first = fingerprint(read_manifest(artifact))
    assert first == fingerprint(write_artifact(tmp_path / "same.lcc", fill))
    assert first != fingerprint(write_artifact(tmp_path / "other.lcc", other))


def change(artifact: Path, path: list, value: object) -> None:
    page = json.loads((artifact / "manifest.json").read_text())
    place = page
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (artifact / "manifest.json").write_text(json.dumps(page))


def rename_in_files(artifact: Path, name: str) -> None:
    page = json.loads((artifact / "manifest.json").read_text())
    page["files"][name] = page["files"].pop("data/weights.bin")
    (artifact / "manifest.json").write_text(json.dumps(page))


def link_outside(artifact: Path) -> None:
    (artifact.parent / "secret").write_bytes(bytes(1000))
    (artifact / "data" / "weights.bin").unlink()
    (artifact / "data" / "weights.bin").symlink_to(artifact.parent / "secret")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)


BROKEN = {
    "no manifest": (lambda a: (a / "manifest.json").unlink(), "is not an artifact"),
    "not json": (
        lambda a: (a / "manifest.json").write_text("{oops"),
        r"manifest\.json: JSON is malformed",
    ),
    "cut manifest": (
        lambda a: (a / "manifest.json").write_bytes((a / "manifest.json").read_bytes()[:99]),
        r"manifest\.json: Input data was truncated",
    ),
    "another format": (
        lambda a: change(a, ["format"], "onnx"),
        'format is "onnx", wanted "lcc"',
    ),
    "newer, and unknown inside": (
        lambda a: (change(a, ["version"], 4), change(a, ["wavelets"], [])),
        r"manifest\.json: version 4, this lcc reads version 3; install a newer lcc",
    ),
    "a program over a cache of another type": (
        lambda a: change(a, ["programs", "decode", "inputs", 1, "dtype"], "float16"),
        "key_0",
    ),
    "a role that there is not": (
        lambda a: change(a, ["buffers", 0, "role"], "rumours"),
        r"Invalid enum value 'rumours' - at `\$\.buffers",
    ),
    "an unknown field of a run": (
        lambda a: change(a, ["schedule", "read", 0, "do", 0, "if"], "full"),
        r"unknown field `if` - at `\$\.schedule",
    ),
    "unknown field": (
        lambda a: change(a, ["cache", "tiers"], 3),
        r"unknown field `tiers` - at `\$\.cache`",
    ),
    "unknown field of a layer": (
        lambda a: change(a, ["model", "layers", 0, "dilation"], 3),
        r"unknown field `dilation` - at `\$\.model\.layers\[0\]`",
    ),
    "wrong type": (
        lambda a: change(a, ["model", "hidden_size"], "8"),
        r"Expected `int`, got `str` - at `\$\.model\.hidden_size`",
    ),
    "impossible sizes": (
        lambda a: change(a, ["cache", "budget"], 4096),
        r"budget \(4096\) must be smaller than capacity \(2048\)",
    ),
    "parent folder": (
        lambda a: rename_in_files(a, "../weights.bin"),
        r'"\.\./weights\.bin" leaves the folder',
    ),
    "absolute path": (
        lambda a: rename_in_files(a, "/etc/passwd"),
        '"/etc/passwd" leaves the folder',
    ),
    "drive": (lambda a: rename_in_files(a, "C:weights"), '"C:weights" leaves the folder'),
    "link outside": (link_outside, r"weights\.bin: a link that leaves"),
    "missing file": (lambda a: (a / "step.onnx").unlink(), r"step\.onnx: missing"),
    "truncated file": (
        lambda a: os.truncate(a / "data" / "weights.bin", 999),
        r"weights\.bin: 999 bytes, the manifest says 1000",
    ),
    "changed file": (
        lambda a: flip(a / "data" / "weights.bin"),
        r"weights\.bin: changed since it was written",
    ),
    "program in no file": (
        lambda a: change(a, ["programs", "decode", "file"], "other.onnx"),
        r"decode is in other\.onnx, which files does not list",
    ),
    "update of nothing": (
        lambda a: change(a, ["programs", "decode", "updates"], {"key_0_out": "value_0"}),
        "decode has no update key_0_out -> value_0",
    ),
    "a run of no program": (
        lambda a: change(a, ["schedule", "read", 0, "do", 0, "run"], "evict_7"),
        "evict_7",
    ),
    "bad hash": (
        lambda a: change(a, ["files", "step.onnx", "sha256"], "00"),
        r"step\.onnx: wanted bytes >= 0 and a sha256",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_artifact_is_refused_by_name(artifact, name):
    verify_files(artifact, read_manifest(artifact))  # it was whole
    breaks, message = BROKEN[name]
    breaks(artifact)
    with pytest.raises(ArtifactError, match=message) as caught:
        verify_files(artifact, read_manifest(artifact))
    assert "\n" not in str(caught.value)


def test_level_size_leaves_out_the_hash_only(artifact):
    manifest = read_manifest(artifact)
    flip(artifact / "data" / "weights.bin")
    verify_files(artifact, manifest, level="size")
    os.truncate(artifact / "step.onnx", 0)
    with pytest.raises(ArtifactError, match="0 bytes"):
        verify_files(artifact, manifest, level="size")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_failed_write_leaves_the_old_artifact(artifact, error):
    def fails(folder: Path) -> Manifest:
        (folder / "step.onnx").write_bytes(b"half")
        raise error

    before = (artifact / "manifest.json").read_bytes()
    with pytest.raises((KeyboardInterrupt, ArtifactError), match=r"^$|No space left on device"):
        write_artifact(artifact, fails)
    assert [path.name for path in artifact.parent.iterdir()] == ["tiny.lcc"]
    assert (artifact / "manifest.json").read_bytes() == before
    verify_files(artifact, read_manifest(artifact))


def test_failed_write_leaves_no_folder_that_was_not_there(tmp_path):
    def failing(folder: Path) -> Manifest:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_artifact(tmp_path / "new" / "er" / "tiny.lcc", failing)
    assert list(tmp_path.iterdir()) == []
    write_artifact(tmp_path / "new" / "er" / "tiny.lcc", fill)
    assert (tmp_path / "new" / "er" / "tiny.lcc" / "manifest.json").exists()


def test_failed_rename_puts_the_old_artifact_back(artifact, monkeypatch):
    rename = Path.rename

    def fails_once(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(replace, "_exchanging", lambda: None)
    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(ArtifactError, match="No space"):
        write_artifact(artifact, fill)
    assert [path.name for path in artifact.parent.iterdir()] == ["tiny.lcc"]
    verify_files(artifact, read_manifest(artifact))


def test_replaces_an_artifact_as_a_whole(artifact):
    def smaller(folder: Path) -> Manifest:
        manifest = fill(folder)
        (folder / "data" / "weights.bin").unlink()
        return manifest

    write_artifact(artifact, smaller)
    assert not (artifact / "data" / "weights.bin").exists()
    assert [path.name for path in artifact.parent.iterdir()] == ["tiny.lcc"]


def test_never_replaces_what_is_no_artifact(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(ArtifactError, match="exists and is no artifact"):
        write_artifact(tmp_path / "home", fill)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"
    for manifest in ('{"name": "my web app"}', "[]", "{"):  # other things have one, too
        (tmp_path / "home" / "manifest.json").write_text(manifest)
        with pytest.raises(ArtifactError, match="exists and is no artifact"):
            write_artifact(tmp_path / "home", fill)
        assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


def as_a_hub_keeps_it(artifact: Path, snapshot: Path) -> None:
    """Links to files that are named by their hash, in `blobs` beside `snapshots`."""
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir(parents=True)
    for i, path in enumerate(sorted(p for p in artifact.rglob("*") if p.is_file())):
        link = snapshot / path.relative_to(artifact)
        link.parent.mkdir(parents=True, exist_ok=True)
        (blobs / f"{i:040}").write_bytes(path.read_bytes())
        link.symlink_to(blobs / f"{i:040}")


def test_an_artifact_of_links_is_read_and_one_that_leaves_the_cache_is_not(artifact, tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "f00"
    as_a_hub_keeps_it(artifact, snapshot)
    verify_files(snapshot, read_manifest(snapshot))
    weights = snapshot / "data" / "weights.bin"
    content = weights.read_bytes()
    weights.unlink()
    for place in (tmp_path / "secret", tmp_path / "models--a--b" / "refs", snapshot.parent / "x"):
        place.write_bytes(content)
        weights.symlink_to(place)
        with pytest.raises(ArtifactError, match=r"weights\.bin: a link that leaves"):
            verify_files(snapshot, read_manifest(snapshot))
        weights.unlink()


def test_links_are_not_written(tmp_path):
    def links(folder: Path) -> Manifest:
        manifest = fill(folder)
        (folder / "more").symlink_to("/etc/passwd")
        return manifest

    with pytest.raises(ArtifactError, match="more is a link"):
        write_artifact(tmp_path / "tiny.lcc", links)
    assert list(tmp_path.iterdir()) == []


def test_a_file_replaced_while_it_is_loaded_is_found(artifact):
    stamps = verify_files(artifact, read_manifest(artifact))
    check_unchanged(stamps)
    other = artifact / "data" / "other.bin"
    other.write_bytes(bytes(1000))  # the same bytes in another file
    other.rename(artifact / "data" / "weights.bin")
    with pytest.raises(ArtifactError, match=r"weights\.bin: replaced while .* was loaded"):
        check_unchanged(stamps)
