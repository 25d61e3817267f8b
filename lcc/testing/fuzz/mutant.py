"""A copy of an artifact of which some files are others, with sizes and hashes that fit them."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from lcc.artifact.manifest import MANIFEST
from lcc.testing.fuzz.damaged import digest_of, page_bytes


class Mutant:
    """The files of a good artifact as hard links, until they are written.

    page    of the manifest; `seal` writes it
    """

    def __init__(self, good: Path, folder: Path) -> None:
        """`folder` is made anew."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder, copy_function=os.link)
        self.folder = folder
        self.page: dict[str, Any] = json.loads(self.read(MANIFEST))

    def names(self, *ends: str) -> list[str]:
        """Files but the manifest and code, which may do whatever it likes."""
        names = sorted(path.name for path in self.folder.iterdir() if path.is_file())
        apart = (MANIFEST, ".so", ".pt2")
        return [n for n in names if not n.endswith(apart) and n.endswith(ends or ("",))]

    def read(self, name: str) -> bytes:
        """A file."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Another file in its place: the good artifact stays as it is."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.write_bytes(data)

    def seal(self) -> None:
        """Size and sha256 of every file that is listed and there, as one would who means harm."""
        files = self.page.get("files")
        for name, entry in files.items() if isinstance(files, dict) else ():
            with contextlib.suppress(OSError, ValueError):
                if isinstance(entry, dict) and (self.folder / name).is_file():
                    data = self.read(name)
                    entry |= {"bytes": len(data), "sha256": digest_of(data)}
        self.write(MANIFEST, page_bytes(self.page))

    def json_of(self, name: str) -> Any:
        """A file's page."""
        return json.loads(self.read(name))

    def put(self, name: str, page: Any) -> None:
        """A page as a file, or bytes, or text; and the manifest with its hash."""
        if isinstance(page, str):
            page = page.encode("utf-8", "surrogatepass")
        self.write(name, page if isinstance(page, bytes) else page_bytes(page))
        self.seal()
