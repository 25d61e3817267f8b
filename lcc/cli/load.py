"""An artifact -> a session, for the commands that need one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcc import env
from lcc.errors import ConfigError

if TYPE_CHECKING:
    from lcc.runtime.session import Session


def on_cpu(device: str | None) -> bool:
    """What --device says. Raises ConfigError where it says something else."""
    if device not in (None, "cpu"):
        raise ConfigError(f"--device {device}: wanted cpu, or nothing: what it was compiled for")
    return device == "cpu"


def open_session(
    artifact: Path,
    *,
    capacity: int | None = None,
    budget: int | None = None,
    threads: int | None = None,
    target: str | None = None,
    device: str | None = None,
    mapped: bool = False,
    allow_native: bool = False,
    trusted_keys: Sequence[str] | None = None,
    **archive: Any,
) -> Session:
    """Open an artifact; the threads not given here are those of LCC_THREADS.

    `archive`: from `lcc.cli.options.archive_options`.
    """
    import lcc.runtime
    from lcc.artifact.code import check_code
    from lcc.artifact.manifest import for_target, read_manifest
    from lcc.artifact.signature import verify_signature

    whole, engine = read_manifest(artifact), None
    manifest = for_target(whole, target or whole.target)
    if manifest.target == "reference":
        if trusted_keys:  # before anything of it is unpickled
            verify_signature(artifact, trusted_keys)
        check_code(artifact, manifest, allowed=allow_native or bool(trusted_keys))
        with env.needs_extra("compile"):
            import lcc.passes.ops  # registers the operators
            from lcc.targets.reference import open_engine

        engine = open_engine(artifact, manifest)
    threads = threads or env.default_threads()
    return lcc.runtime.open(
        artifact,
        capacity=capacity,
        budget=budget,
        threads=threads,
        target=target,
        device="cpu" if on_cpu(device) else None,
        engine=engine,
        mapped=mapped,
        allow_native=allow_native,
        trusted_keys=trusted_keys or None,
        **archive,
    )
