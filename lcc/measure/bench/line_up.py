"""Who takes part: artifacts, by target and budget, then peers, by precision and budget."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

import lcc
from lcc.artifact.code import check_code
from lcc.artifact.manifest import Manifest, fingerprint, for_target, read_manifest, targets_of
from lcc.config import Budget, CacheConfig
from lcc.errors import ConfigError, LccError
from lcc.measure.bench.engines import PEERS
from lcc.measure.bench.process import Progress, ask
from lcc.measure.machine import versions

DISTRIBUTIONS = {"onnxruntime": ("onnxruntime",), "tvm": ("apache-tvm", "apache-tvm-ffi")}


class Engine(Struct, frozen=True, kw_only=True):
    """One line of the tables.

    label       how it is called
    kind        its file in lcc/measure/bench/engines/
    precision   of its weights
    options     as in `Request`
    identity    what tells it from another one of this name: versions, and of an artifact its
                fingerprint
    source      what it loads; of a peer empty until its weights are prepared
    """

    label: str
    kind: str
    precision: str
    options: dict[str, Any]
    identity: dict[str, str]
    source: str = ""


def artifacts(
    folders: Sequence[Path], budgets: Sequence[Budget], *, allow_native: bool = False
) -> list[Engine]:
    """Every artifact with every one of its targets and every budget.

    budgets         none = as compiled
    allow_native    they may run machine code of their own

    Raises:
        ArtifactError: no artifact.
        TrustError: a target is machine code, and it is not allowed.
        ConfigError: they do not take the same token ids, or cannot have a budget.
    """
    manifests = {folder: read_manifest(folder) for folder in folders}
    if len(manifests) < len(folders):
        raise ConfigError("an artifact is named twice")
    sizes = {folder: manifest.model.vocab_size for folder, manifest in manifests.items()}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{folder}: {size}" for folder, size in sizes.items())
        raise ConfigError(f"vocabularies differ ({shown}); wanted artifacts of one model")
    for folder, manifest in manifests.items():
        for each in budgets:
            _check_budget(folder, manifest.cache, each)
    names = [folder.name for folder in manifests]
    found = []
    for folder, manifest in manifests.items():
        name = str(folder) if names.count(folder.name) > 1 else folder.name
        targets = targets_of(manifest)
        for target in targets:
            shown = f"{name} {target}" if len(targets) > 1 else name
            check_code(folder, for_target(manifest, target), allowed=allow_native)
            found += _artifact(shown, folder, for_target(manifest, target), budgets)
    return found


def _check_budget(folder: Path, compiled: CacheConfig, wanted: Budget) -> None:
    try:
        compiled.lowered(budget=wanted.budget, capacity=wanted.capacity)
    except LccError as error:
        raise ConfigError(f"--budgets: {folder}: {error}") from None


def _artifact(
    name: str, folder: Path, manifest: Manifest, budgets: Sequence[Budget]
) -> list[Engine]:
    packages = DISTRIBUTIONS.get(manifest.target.partition(":")[0], ())
    identity = {"lcc": lcc.__version__} | versions(packages) | {"artifact": fingerprint(manifest)}
    found = []
    choices: list[Budget | None] = [*budgets] or [None]
    for each in choices:
        # Whoever has come so far may: it was checked above.
        options: dict[str, Any] = {"target": manifest.target, "allow_native": True}
        words = [name, manifest.precision]
        if each is not None:
            options |= {"budget": each.budget, "capacity": each.capacity}
            words.append(f"budget {each.budget}" + (f":{each.capacity}" if each.capacity else ""))
        found.append(
            Engine(
                label=" ".join(words),
                kind="artifact",
                precision=manifest.precision,
                options=options,
                identity=identity,
                source=str(folder),
            )
        )
    return found


def peers(
    names: Sequence[str],
    model: str | None,
    precisions: Sequence[str],
    budgets: Sequence[int],
) -> tuple[list[Engine], dict[str, str]]:
    """Peers that are installed, their weights not prepared yet; and why the others are left out.

    model       folder or GGUF file, as `lcc compile` takes it
    budgets     of the presses: entries to keep

    Raises:
        ConfigError: a name, a precision or a model that is none.
    """
    for name in names:
        if name not in PEERS:
            raise ConfigError(f"--against {name}: wanted some of {', '.join(PEERS)}")
    for precision in precisions:
        if precision not in ("fp32", "int4"):
            raise ConfigError(f"--peer-precision {precision}: wanted fp32, int4, or both")
    if names and model is None:
        raise ConfigError("--against needs a --model: the folder or GGUF file of the artifacts")
    found, skipped = list[Engine](), dict[str, str]()
    for name in names:
        peer = PEERS[name]
        if importlib.util.find_spec(peer.package) is None:
            skipped[name] = f"not installed; do: {peer.pip}"
            continue
        for precision in precisions:
            label = f"{name} {precision}"
            if precision not in peer.precisions:
                skipped[label] = f"takes {' or '.join(peer.precisions)} here"
                continue
            options: list[dict[str, Any]] = [{}]
            if peer.kind == "press":
                options = [{"budget": budget} for budget in budgets]
            found += [
                Engine(
                    label=f"{label} budget {each['budget']}" if each else label,
                    kind=peer.kind,
                    precision=precision,
                    options=each,
                    identity=versions(peer.versions),
                )
                for each in options
            ]
    return found, skipped


def prepare(
    peers: Sequence[Engine], model: str, folder: Path, progress: Progress
) -> tuple[list[Engine], dict[str, str]]:
    """Peers with what they load; and why others have nothing to load.

    folder      for what is made from the model, and used again
    """
    ready, failed = list[Engine](), dict[str, str]()
    sources: dict[tuple[str, str], str | LccError] = {}
    for peer in peers:
        key = (peer.kind, peer.precision)
        if key not in sources:
            page = {"do": "prepare", "kind": peer.kind, "precision": peer.precision}
            progress(peer.label, 0.0)
            try:
                answer = ask(page | {"model": model, "folder": str(folder)}, progress=progress)
                sources[key] = answer["source"]
            except LccError as error:
                sources[key] = error
        source = sources[key]
        if isinstance(source, LccError):
            failed[peer.label] = str(source)
        else:
            ready.append(msgspec.structs.replace(peer, source=source))
    return ready, failed
