"""An artifact -> a session, for the commands that need one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lcc import env

if TYPE_CHECKING:
    from lcc.runtime.session import Session


def load_session(
    artifact: Path,
    *,
    capacity: int | None = None,
    budget: int | None = None,
    threads: int | None = None,
) -> Session:
    """Load an artifact; the threads not given here are those of LCC_THREADS."""
    from lcc import runtime

    return runtime.load(
        artifact, capacity=capacity, budget=budget, threads=threads or env.default_threads()
    )
