"""The artifact folder: written in one step, and checked file by file.

    my_model.lcc/
      manifest.json             what the folder holds, and what to know of it: `manifest.py`
      step.onnx  head.onnx ...  the programs; one file may serve several of them
      weights.bin ...           whatever the programs refer to
      tokenizer.json  tokenizer_config.json  chat_template.jinja  generation_config.json
      text.bin                  the tokenizer as tables, where every rule of it has one

Files that the manifest does not list are never opened.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Literal

import msgspec

from lcc.artifact.manifest import MANIFEST, FileEntry, Manifest, check, manifest_bytes
from lcc.artifact.replace import folder_beside, put_in_place
from lcc.errors import ArtifactError, ConfigError

Stamp = tuple[int, int, int, int, int]  # device, inode, bytes, times of the two changes, in ns
Stamps = dict[Path, Stamp]


class ReplacedError(ArtifactError):
    """A file was written to, replaced or linked to while an artifact was loaded: load it again."""


def verify_files(
    folder: str | Path, manifest: Manifest, *, level: Literal["full", "size"] = "full"
) -> Stamps:
    """Check every file of the manifest: there, inside the folder, of its size and its sha256.

    `level="size"` leaves out the hash (540 MB of weights take about 0.4 s): for an app that ships
    the artifact inside a package that is itself signed.

    Returns what the files were as they were read, for `check_unchanged`.

    Raises:
        ArtifactError: names the first file that is not as it was written.
        ConfigError: a level that is none of the two.
    """
    if level not in ("full", "size"):
        raise ConfigError(f'verify is {level!r}, wanted "full" or "size"')
    root, stamps = Path(folder).resolve(), Stamps()
    trees = [root, *_blobs(root)]
    for name, entry in sorted(manifest.files.items()):
        path = root / name
        with _opened(path, trees) as file:
            stamps[path] = _checked_size(path, file, entry)
            if level == "full" and _sha256(file) != entry.sha256:
                raise _changed(path)
    return stamps


def read_listed(folder: str | Path, manifest: Manifest, name: str) -> bytes:
    """The bytes of a file, read once and compared with what the manifest says of it.

    Raises:
        ArtifactError: it is not listed, or not as it was written.
    """
    root = Path(folder).resolve()
    path, entry = root / name, manifest.files.get(name)
    if entry is None:
        raise ArtifactError(f"{path}: the manifest does not list it")
    with _opened(path, [root, *_blobs(root)]) as file:
        _checked_size(path, file, entry)
        data = file.read(entry.bytes)
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise _changed(path)
    return data


@contextlib.contextmanager
def _opened(path: Path, trees: Sequence[Path]) -> Iterator[BufferedReader]:
    """A file that lies in one of these folders, links followed."""
    try:
        real = path.resolve()
        if not any(real.is_relative_to(tree) for tree in trees):
            raise ArtifactError(f"{path}: a link that leaves the artifact's folder")
        if not path.is_file():
            raise ArtifactError(f"{path}: missing; copy the whole folder, or compile anew")
        with path.open("rb") as file:
            yield file
    except (OSError, RuntimeError) as error:  # a link to itself; a disk that fails
        why = getattr(error, "strerror", None) or error
        raise ArtifactError(f"{path}: cannot be read ({why}); copy it anew") from None


def _checked_size(path: Path, file: BufferedReader, entry: FileEntry) -> Stamp:
    stamp = _stamp(os.fstat(file.fileno()))
    if (size := stamp[2]) != entry.bytes:
        raise ArtifactError(f"{path}: {size} bytes, the manifest says {entry.bytes}; copy it anew")
    return stamp


def _changed(path: Path) -> ArtifactError:
    return ArtifactError(f"{path}: changed since it was written (sha256 differs); copy it anew")


def _blobs(root: Path) -> list[Path]:
    """Where the links of a hub's cache lead: blobs/, beside the snapshots/ that `root` lies in."""
    above = [parent for parent in root.parents if parent.name == "snapshots"]
    return [parent.with_name("blobs") for parent in above[:1]]


def check_unchanged(stamps: Mapping[Path, Stamp]) -> None:
    """Refuse files that were replaced or written to after `verify_files` has read them.

    To be called when all programs are loaded: engines open files by their path once more.

    Raises:
        ReplacedError: names the first one that is another file now.
    """
    for path, stamp in stamps.items():
        if not path.is_file() or _stamp(path.stat()) != stamp:
            raise ReplacedError(
                f"{path}: replaced while the artifact was loaded; load it again when nothing "
                "writes to its folder"
            )


def _stamp(status: os.stat_result) -> Stamp:
    """A file's own; the second time is the system's, which nobody sets back."""
    size, changed = status.st_size, status.st_mtime_ns
    return status.st_dev, status.st_ino, size, changed, status.st_ctime_ns


def stamp_of(folder: str | Path) -> Stamp | None:
    """That of the manifest: another one = the artifact was replaced; None = there is none."""
    try:
        return _stamp((Path(folder) / MANIFEST).stat())
    except OSError:
        return None


def _sha256(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def write_artifact(folder: str | Path, fill: Callable[[Path], Manifest]) -> Manifest:
    """Write an artifact in one step: `folder` is the old one until it is the new one.

    fill        is given an empty folder beside the target, writes every file but the manifest into
                it (sub-folders allowed), and returns the manifest; its `files` are replaced
    returns     the manifest as written, with `files`

    Whatever `fill` raises, Ctrl-C and a full disk included, the new folder goes away and an
    artifact that was there stays. Links are refused: an artifact is moved as a folder.

    Raises:
        ArtifactError: `folder` exists and is no artifact, the manifest contradicts itself, or the
            disk refused.
    """
    try:
        return _write_artifact(Path(os.path.abspath(folder)), fill)
    except OSError as error:
        raise ArtifactError(
            f"{error.filename or folder}: cannot write the artifact ({error.strerror or error}); "
            f"{folder} is as it was"
        ) from error


def _write_artifact(folder: Path, fill: Callable[[Path], Manifest]) -> Manifest:
    if folder.is_symlink() or (folder.exists() and not _replaceable(folder)):
        raise ArtifactError(f"{folder} exists and is no artifact; remove it or choose another name")
    with _parents_of(folder), folder_beside(folder) as staging:
        manifest = msgspec.structs.replace(fill(staging), files={})
        files = {
            name: file_entry(path) for name, path in sorted(_walk(staging)) if name != MANIFEST
        }
        manifest = msgspec.structs.replace(manifest, files=files)
        check(manifest)
        (staging / MANIFEST).write_bytes(manifest_bytes(manifest))
        put_in_place(folder, staging)
    return manifest


def file_entry(path: Path) -> FileEntry:
    """Size and sha256 of a file."""
    with path.open("rb") as file:
        return FileEntry(bytes=path.stat().st_size, sha256=_sha256(file))


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and (not any(folder.iterdir()) or _is_ours(folder / MANIFEST))


def _is_ours(path: Path) -> bool:
    """Whether a manifest is lcc's, of any version: many other things have a file of that name."""
    try:
        page = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return False
    return isinstance(page, dict) and page.get("format") == "lcc"


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    for path in root.rglob("*"):
        if path.is_symlink():
            raise ArtifactError(f"{path.relative_to(root)} is a link; an artifact holds only files")
        if path.is_file():
            yield path.relative_to(root).as_posix(), path


@contextlib.contextmanager
def _parents_of(folder: Path) -> Iterator[None]:
    """Make the folders that it is to stand in; those that were not there go after an error."""
    new = [parent for parent in folder.parents if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for parent in new:
            with contextlib.suppress(OSError):  # not made, or something else has come meanwhile
                parent.rmdir()
        raise
