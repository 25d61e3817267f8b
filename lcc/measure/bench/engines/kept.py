"""What is made once for a peer and used again."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lcc.errors import ConfigError


def kept(path: Path, made_from: dict[str, Any], make: Callable[[Path], object]) -> Path:
    """Return `path`, made by `make` unless it is there and was made from the same.

    What was made from something else stays until `make` has done its work.

    made_from   for JSON; noted beside it, in NAME.made.json
    make        is given a path on the same disk to write, a file or a folder

    Raises:
        ConfigError: something is there without such a note: it is someone else's.
    """
    page, note = json.dumps(made_from, sort_keys=True), path.with_name(f"{path.name}.made.json")
    if path.exists() and note.is_file() and note.read_text(encoding="utf-8") == page:
        return path
    if path.exists() and not note.is_file():
        raise ConfigError(
            f"{path} is there and was not made by lcc bench; move it, or give another --peers"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        partial = Path(folder, path.name)
        make(partial)
        # Stopped in between, there is a note without what it is of: then that is made again.
        if path.exists():
            os.replace(path, Path(folder, "old"))
        note.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    return path


def identity(model: str) -> dict[str, Any]:
    """What tells a model from another one: its name, and size and time of its files."""
    from lcc.sources.locate import gguf_path

    path = gguf_path(model) or Path(model).expanduser()
    files = sorted(path.glob("*")) if path.is_dir() else [path] if path.is_file() else []
    return {
        "model": model,
        "files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()],
    }
