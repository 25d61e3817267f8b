"""Files that commands write: refused before the work, not after it, and whole or not at all."""

import secrets
from pathlib import Path

from lcc.artifact.replace import write_pieces
from lcc.errors import ConfigError


def check_output(path: Path, *suffixes: str) -> None:
    """Raise ConfigError where no file can be written; what is there stays as it is.

    suffixes    what the name may end in; none = anything
    """
    if not path.name or path.is_dir():
        raise ConfigError(f"{path}: a folder; wanted a file")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path.parent}: no such folder; make it first")
    if suffixes and path.suffix.lower() not in suffixes:
        raise ConfigError(f"{path}: wanted a name that ends in {' or '.join(suffixes)}")
    beside = path.absolute().with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        beside.touch(exist_ok=False)
        beside.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever reads it meanwhile finds all of the old one or of the new."""
    write_pieces(path, [text.encode()])
