"""Files of a folder, as a manifest lists them: for engines without a whole artifact."""

from pathlib import Path

from lcc.artifact.folder import file_entry
from lcc.artifact.manifest import FileEntry


def listed_files(folder: str | Path) -> dict[str, FileEntry]:
    """Name -> size and hash, of what lies there now."""
    return {path.name: file_entry(path) for path in Path(folder).iterdir() if path.is_file()}
