"""What is made once for a peer and used again."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def kept(path: Path, made_from: dict[str, Any], make: Callable[[Path], object]) -> Path:
    """Return `path`, made by `make` unless it is there and was made from the same.

    make        is given a path beside it to write, a file or a folder
    """
    page, note = json.dumps(made_from, sort_keys=True), path.with_name(f"{path.name}.made.json")
    if path.exists() and note.is_file() and note.read_text(encoding="utf-8") == page:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    for old in (note, path, partial):
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    make(partial)
    os.replace(partial, path)
    note.write_text(page, encoding="utf-8")
    return path


def identity(model: str) -> dict[str, Any]:
    """What tells a model from another one: its name, and size and time of its files."""
    from lcc.models import gguf_path

    path = gguf_path(model) or Path(model).expanduser()
    files = sorted(path.glob("*")) if path.is_dir() else [path] if path.is_file() else []
    return {
        "model": model,
        "files": [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files if f.is_file()],
    }
