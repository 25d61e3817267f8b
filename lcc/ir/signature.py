"""Signatures: what goes in and out of a graph or a program, by name, role, dtype and shape."""

from dataclasses import dataclass

from msgspec import Struct

from lcc.ir.roles import Role

Size = int | str  # a string is the name of a size that the call decides


class Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of everything in the manifest: nothing unknown is read, nothing unset is written."""


class TensorSpec(Strict, frozen=True, kw_only=True):
    """One input or output of a program; a string in `shape` is a size that the call decides."""

    name: str
    role: Role
    dtype: str
    shape: tuple[Size, ...]
    layer: int | None = None


@dataclass(frozen=True)
class Port:
    """An input or output of a graph whose dtype and shape its node tells."""

    name: str
    role: Role
    layer: int | None = None
