"""`manifest.json`: what an artifact says of itself, read strictly; opens no other file.

How it is run, `constants` to `schedule` and `text`, is in `schedule.py` and `docs/format.md`.

The manifest is JSON with sorted keys and no time stamp: the same input gives the same bytes.

    format      "lcc"
    version     3; a new meaning of anything below is a new version
    made_by     name and version of the writer
    target      what the programs were built for, e.g. "onnxruntime:cpu"
    also        other targets that the same model was built for: name -> their programs
    cpu         level of CPU (`lcc.artifact.cpu`), or architecture of GPU, that the programs need;
                absent = any
    note        what was not tried of what was built
    precision   of the weights: int8, int4 or given (as the checkpoint has them); absent = what the
                target has by itself, float32 or, on a GPU, float16
    model       name, architecture, hidden_size, vocab_size, trained_window (tokens), layers: per
                attention layer query_heads, kv_heads, head_size, window_size (the model's own, in
                tokens), kind and slots (of a plan, where it is not full): for people
    cache       `CacheConfig`: sizes in entries per KV head, and the rule of positions
    policy      its name, and its options with the values in force
    heads       what the retaining heads were trained for and on; absent = there are none
    programs    name -> file, inputs, outputs (name, role, layer, dtype, shape), updates (output ->
                the input whose storage it replaces)
    constants, counters, groups, buffers, schedule, archive, text
                how the programs are run; archive: the columns of what cycles evict
    passes      what the compiler rewrote: name, sites
    memory      the memory table: name, bytes
    files       path -> sha256 and size in bytes, of every other file of the artifact

A field that is not set is absent, never null, -1 or 0. A path is relative, with `/`, and stays in
the folder.
"""

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import msgspec
from msgspec import Struct, field

from lcc.artifact.heads_page import HeadsPage
from lcc.artifact.schedule import BufferSpec, Column, Group, Schedule, Strict, TensorSpec, TextFacts
from lcc.config import CacheConfig, PolicyConfig, Precision
from lcc.errors import ArtifactError
from lcc.ir.plan import Full, Kind
from lcc.ir.roles import Role

FORMAT_VERSION: Literal[3] = 3
MANIFEST = "manifest.json"
LONGEST_NAME = 200  # letters of a path in the folder
LARGEST_MANIFEST = 64 << 20  # bytes

CacheDtype = Literal["float32", "float16"]
CACHE_DTYPES = get_args(CacheDtype)  # of keys and values


class ProgramEntry(Strict, frozen=True, kw_only=True):
    """One program: its file, its signature, which outputs replace the storage of which inputs."""

    file: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    updates: dict[str, str] = field(default_factory=dict)


class LayerEntry(Strict, frozen=True, kw_only=True):
    """One attention layer; one whose kind is not full has a cache of `slots` entries of its own."""

    query_heads: int
    kv_heads: int
    head_size: int
    window_size: int | None = None
    kind: Kind = Full()
    slots: int | None = None


class ModelEntry(Strict, frozen=True, kw_only=True):
    """What the runtime must know of the model."""

    name: str
    architecture: str
    hidden_size: int
    vocab_size: int
    layers: list[LayerEntry]
    trained_window: int | None = None


class PassEntry(Strict, frozen=True, kw_only=True):
    """What one pass rewrote."""

    name: str
    sites: int


class MemoryEntry(Strict, frozen=True, kw_only=True):
    """One row of the memory table."""

    name: str
    bytes: int


class FileEntry(Strict, frozen=True, kw_only=True):
    """Size in bytes and sha256 (64 hex digits) of one file."""

    bytes: int
    sha256: str


class BuiltEntry(Strict, frozen=True, kw_only=True):
    """What was built for one more target; `cache_dtype`: what its keys and values are kept in."""

    cache_dtype: CacheDtype = "float32"
    cpu: str | None = None
    note: str | None = None
    programs: dict[str, ProgramEntry]


class Manifest(Strict, frozen=True, kw_only=True):
    """`manifest.json`; see the page above. `write_artifact` fills in `files`."""

    format: Literal["lcc"] = "lcc"
    version: Literal[3] = FORMAT_VERSION
    made_by: str
    target: str
    also: dict[str, BuiltEntry] = field(default_factory=dict)
    cpu: str | None = None
    note: str | None = None
    precision: Precision = "fp32"
    model: ModelEntry
    cache: CacheConfig
    policy: PolicyConfig
    heads: HeadsPage | None = None
    constants: dict[str, int]
    counters: dict[str, int]
    groups: tuple[Group, ...]
    buffers: tuple[BufferSpec, ...]
    schedule: Schedule
    archive: tuple[Column, ...] = ()
    text: TextFacts
    programs: dict[str, ProgramEntry]
    passes: list[PassEntry]
    memory: list[MemoryEntry]
    files: dict[str, FileEntry] = field(default_factory=dict)


def cache_dtype(manifest: "Manifest") -> str:
    """What keys and values are kept in."""
    keys = (each.dtype for each in manifest.buffers if each.role == Role.KEY)
    return next(keys, "float32")


class _Header(Struct):
    """What every version of the manifest has: read before anything else is believed."""

    format: str = ""
    version: int = 0


def manifest_bytes(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`: sorted keys, two spaces, one newline at the end."""
    page = {"format": "lcc", "version": FORMAT_VERSION} | msgspec.to_builtins(manifest)
    return msgspec.json.format(msgspec.json.encode(page, order="sorted"), indent=2) + b"\n"


def fingerprint(manifest: Manifest) -> str:
    """sha256: equal means the same artifact, file by file, whichever of its targets runs."""
    page = msgspec.structs.replace(
        manifest, target="", programs={}, also={}, cpu=None, note=None, buffers=()
    )
    return hashlib.sha256(manifest_bytes(page)).hexdigest()


def targets_of(manifest: Manifest) -> list[str]:
    """All targets that an artifact was built for, the first one first."""
    return [manifest.target, *manifest.also]


def for_target(manifest: Manifest, target: str) -> Manifest:
    """What the artifact says of itself as one for this target alone.

    Raises:
        ArtifactError: it was not built for it.
    """
    if target == manifest.target:
        return msgspec.structs.replace(manifest, also={})
    if target not in manifest.also:
        raise ArtifactError(
            f"the artifact was not compiled for {target}; wanted one of "
            f"{', '.join(targets_of(manifest))}"
        )
    built = manifest.also[target]
    buffers = tuple(
        msgspec.structs.replace(each, dtype=built.cache_dtype)
        if each.role in (Role.KEY, Role.VALUE)
        else each
        for each in manifest.buffers
    )
    return msgspec.structs.replace(
        manifest,
        target=target,
        also={},
        cpu=built.cpu,
        note=built.note,
        programs=built.programs,
        buffers=buffers,
    )


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check `manifest.json`; opens no other file.

    Raises:
        ArtifactError: the folder is no artifact, or the manifest is newer, damaged, has a field
            this version does not know, or contradicts itself.
    """
    return parse_manifest(manifest_data(folder), Path(folder) / MANIFEST)


def manifest_data(folder: str | Path) -> bytes:
    """The bytes of `manifest.json`, unchecked; raises as `read_manifest`."""
    try:
        with (Path(folder) / MANIFEST).open("rb") as file:
            data = file.read(LARGEST_MANIFEST + 1)
    except OSError as error:
        wanted = f"{folder} is not an artifact: " if Path(folder).is_dir() else f"{folder}: "
        raise ArtifactError(f"{wanted}cannot read {MANIFEST} ({error.strerror})") from None
    if len(data) > LARGEST_MANIFEST:
        raise ArtifactError(f"{folder}: {MANIFEST} has more than {LARGEST_MANIFEST:,} bytes")
    return data


def parse_manifest(data: bytes, path: Path) -> Manifest:
    """What these bytes say, checked; `path` is named in errors. Raises as `read_manifest`."""
    try:
        _check_header(msgspec.json.decode(data, type=_Header))
        manifest = msgspec.json.decode(data, type=Manifest)
        check(manifest)
    except (ArtifactError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: {error}") from None
    except RecursionError:
        raise ArtifactError(f"{path}: lists in lists without end; wanted a manifest") from None
    return manifest


def _check_header(header: _Header) -> None:
    if header.format != "lcc":
        raise ArtifactError(f'format is "{header.format}", wanted "lcc"')
    if header.version != FORMAT_VERSION:
        newer = "install a newer lcc or " if header.version > FORMAT_VERSION else ""
        raise ArtifactError(
            f"version {header.version}, this lcc reads version {FORMAT_VERSION}; "
            f"{newer}compile the model anew"
        )


def check(manifest: Manifest) -> None:
    """Refuse a manifest whose parts do not fit together, with an `ArtifactError`."""
    from lcc.artifact.check_schedule import check_schedule  # not before one is read

    for name, entry in manifest.files.items():
        _check_path(name)
        if entry.bytes < 0 or not re.fullmatch("[0-9a-f]{64}", entry.sha256):
            raise ArtifactError(f"files: {name}: wanted bytes >= 0 and a sha256 of 64 hex digits")
    if manifest.target in manifest.also:
        raise ArtifactError(f"also: {manifest.target} is the target already")
    everyone = [manifest.programs, *(built.programs for built in manifest.also.values())]
    for name, program in [item for programs in everyone for item in programs.items()]:
        if program.file not in manifest.files:
            raise ArtifactError(f"programs: {name} is in {program.file}, which files does not list")
        inputs = {tensor.name for tensor in program.inputs}
        outputs = {tensor.name for tensor in program.outputs}
        for output, source in program.updates.items():
            if output not in outputs or source not in inputs:
                raise ArtifactError(f"programs: {name} has no update {output} -> {source}")
    for index, layer in enumerate(manifest.model.layers):
        if (layer.slots is None) != isinstance(layer.kind, Full):
            raise ArtifactError(f"layer {index}: wanted slots where the kind is not full, only")
    for name in targets_of(manifest):
        own = for_target(manifest, name)  # with the cache as this target keeps it
        check_schedule(msgspec.structs.replace(manifest, buffers=own.buffers), own.programs)


def _check_path(name: str) -> None:
    parts = PurePosixPath(name).parts
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise ArtifactError(f"files: {name[:40]!r} is no name of a file; wanted a shorter one")
    if not parts or name.startswith("/") or ".." in parts or set(name) & set("\\:\0"):
        raise ArtifactError(f'files: "{name}" leaves the folder; wanted a relative path')
    if name == MANIFEST:
        raise ArtifactError(f"files: {MANIFEST} cannot list itself")
