"""The artifact folder: its manifest, written atomically and read strictly."""

from typing import Literal

import msgspec

from lcc.config import CacheConfig, PolicyConfig

FORMAT_VERSION = 1

Queries = Literal["catalyst", "recent", "all"]


class TensorEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One named input or output of a program; a string in `shape` is a size known at run time."""

    name: str
    dtype: str
    shape: list[int | str]


class ProgramEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One program: its file, its signature, and which outputs replace the storage of which inputs."""

    file: str
    inputs: list[TensorEntry]
    outputs: list[TensorEntry]
    updates: dict[str, str] = {}


class LayerEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One attention layer, and the programs that score and evict its cache."""

    query_heads: int
    kv_heads: int
    head_size: int
    evict: str | None = None
    score: str | None = None
    window_size: int | None = None


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the runtime must know of the model."""

    name: str
    architecture: str
    hidden_size: int
    vocab_size: int
    layers: list[LayerEntry]
    trained_window: int | None = None


class PassEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one pass rewrote."""

    name: str
    sites: int


class MemoryEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row of the memory table."""

    name: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`manifest.json`.

    scalars     per-entry numbers the evict programs read, in order: attention, novelty, noise
    queries     which queries the score programs are given; None = no scoring by attention
    files       sha256 of every other file of the folder
    """

    format: Literal["lcc"] = "lcc"
    version: int = FORMAT_VERSION
    made_by: str
    target: str
    model: ModelEntry
    cache: CacheConfig
    policy: PolicyConfig
    scalars: list[str]
    queries: Queries | None = None
    programs: dict[str, ProgramEntry]
    passes: list[PassEntry]
    memory: list[MemoryEntry]
    files: dict[str, str]
