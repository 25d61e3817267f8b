"""Whether what a schedule writes to an archive, and reads there, fits its columns and buffers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lcc.artifact.schedule import Block, BufferSpec, Column, Run
from lcc.errors import ArtifactError
from lcc.ir.roles import Role

if TYPE_CHECKING:
    from lcc.artifact.manifest import Manifest

COUNTERS = ("archiving", "archived", "archived_to", "leaving", "back", "row")
DTYPES = ("float32", "int64")
CHOSEN = "rows"


def check_columns(manifest: "Manifest") -> None:
    """Refuse columns without what a recall needs, with an `ArtifactError`."""
    columns, buffers = manifest.archive, {spec.name: spec for spec in manifest.buffers}
    if bool(columns) != bool(manifest.schedule.recall):
        raise ArtifactError("archive: wanted columns where there is a list recall, and only there")
    if not columns:
        return
    if missing := [name for name in COUNTERS if name not in manifest.counters]:
        raise ArtifactError(f"counters: no {', '.join(missing)}, which an archive needs")
    if manifest.constants.get("scan_rows", 0) < 1:
        raise ArtifactError("constants: wanted scan_rows of 1 or more")
    chosen = buffers.get(CHOSEN)
    if chosen is None or (chosen.role, chosen.dtype) != (Role.KEPT, "int64"):
        raise ArtifactError(f"buffers: wanted {CHOSEN}, of role kept int64")
    names = [each.name for each in columns]
    for each in columns:
        where = f"archive: {each.name}"
        if names.count(each.name) > 1:
            raise ArtifactError(f"{where} is there twice")
        if each.dtype not in DTYPES or any(size < 1 for size in each.shape):
            raise ArtifactError(
                f"{where} is {each.dtype} {list(each.shape)}, wanted {' or '.join(DTYPES)} and "
                "sizes of 1 or more"
            )


def check_archive(
    manifest: "Manifest", block: Block, buffers: Mapping[str, BufferSpec], where: str
) -> None:
    """Refuse a block whose columns or buffers do not exist, or are not of one kind."""
    columns = {each.name: each for each in manifest.archive}
    for name in block.grow:
        if name not in buffers or not set(buffers[name].shape) & manifest.counters.keys():
            raise ArtifactError(f"{where}: grow: no buffer {name} whose size is a counter")
    if block.append is not None and block.append not in manifest.counters:
        raise ArtifactError(f"{where}: append: no counter {block.append}")
    stored = set[str]()
    parts: list[Block | Run] = [block, *block.do]
    for part in parts:
        for layer in (part.each if isinstance(part, Run) else None) or [None]:
            pairs = [
                *((name, column) for name, (column, _) in part.load.items()),
                *((name, column) for name, column in part.gather.items()),
                *((name, column) for column, name in part.store.items()),
            ]
            for name, column in pairs:
                column = column if layer is None else column.replace("*", str(layer))
                _check_pair(columns, buffers, column, name, where)
            stored |= {c if layer is None else c.replace("*", str(layer)) for c in part.store}
        for _, first in part.load.values():
            if first not in manifest.counters and first not in manifest.constants:
                raise ArtifactError(f"{where}: load: no counter or constant {first}")
    if (stored or block.append) and (block.append is None or stored != columns.keys()):
        raise ArtifactError(f"{where}: it appends {sorted(stored)}, wanted every column at once")


def _check_pair(
    columns: Mapping[str, Column],
    buffers: Mapping[str, BufferSpec],
    column: str,
    name: str,
    where: str,
) -> None:
    if column not in columns or name not in buffers:
        what = f"column {column}" if column not in columns else f"buffer {name}"
        raise ArtifactError(f"{where}: no {what}")
    one, other = columns[column], buffers[name]
    if (one.dtype, one.shape) != (other.dtype, other.shape[1:]):
        raise ArtifactError(
            f"{where}: {name} is {other.dtype} {list(other.shape)}, a row of {column} is "
            f"{one.dtype} {list(one.shape)}"
        )
