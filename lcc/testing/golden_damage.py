"""Goldens in which one number is wrong: whoever compares with them must find it."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path


def changed(folder: Path, copy: Path, change: Callable[[dict], None]) -> Path:
    """A copy of an artifact with another golden, whose hash is right."""
    shutil.copytree(folder, copy)
    page = json.loads((copy / "golden.json").read_bytes())
    change(page)
    data = json.dumps(page).encode()
    (copy / "golden.json").write_bytes(data)
    manifest = json.loads((copy / "manifest.json").read_bytes())
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["files"]["golden.json"] = entry
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def kept(page: dict) -> None:
    """Another token was kept."""
    head = page["cycles"][1]["kept"]["1"][1]
    place = next(i for i in range(1, len(head)) if head[i] > head[i - 1] + 1)
    head[place] -= 1


def counter(page: dict) -> None:
    """A counter is one more."""
    page["cycles"][0]["counters"]["known"] += 1


def logit(page: dict) -> None:
    """A logit is larger."""
    page["logits"][4]["top"][7][1] += 0.01


def next_token(page: dict) -> None:
    """Another token comes next."""
    page["next"][3] = (page["next"][3] + 1) % 256


def tokens(page: dict) -> None:
    """One more token was read."""
    page["logits"][0]["tokens"] += 1


def cycle_less(page: dict) -> None:
    """A cycle is missing."""
    del page["cycles"][-1]


def cycle_more(page: dict) -> None:
    """A cycle comes twice."""
    page["cycles"].append(page["cycles"][-1])
