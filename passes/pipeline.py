"""Run passes in order: count, dump, and name the pass that failed."""

import logging
from collections.abc import Sequence
from pathlib import Path

from lcc.artifact.manifest import PassEntry
from lcc.errors import LccError, PassError, first_cause
from lcc.ir.show import show
from lcc.passes.base import Pass
from lcc.passes.graph import ModelGraph

log = logging.getLogger(__name__)


def run(
    graph: ModelGraph,
    passes: Sequence[Pass],
    *,
    dump: Path | None = None,
    done: Sequence[PassEntry] = (),
) -> tuple[ModelGraph, list[PassEntry]]:
    """The rewritten graph, and what each pass rewrote.

    dump    folder for the graph before the first and after every pass, as numbered text files
    done    passes that rewrote the graph before; the result goes on from them
    """
    passed = list(done)
    if not passed:
        _dump(graph, dump, 0, "capture")
    total = len(passed) + len(passes)
    for number, each in enumerate(passes, start=len(passed) + 1):
        names = ", ".join(p.name for p in passed) or "none"
        where = f"in pass {number} of {total}, {each.name}; passed: {names}"
        try:
            graph, sites = (result := each(graph)).graph, result.sites
        except LccError as error:
            error.add_note(where)
            raise
        except Exception as error:  # a spelling that nobody thought of
            wrong = PassError(
                f"{each.name} stumbled ({first_cause(error)}): the model is written in a way that "
                "lcc does not know; please report it with the name of the model"
            )
            wrong.add_note(where)
            raise wrong from error
        passed.append(PassEntry(name=each.name, sites=sites))
        log.info("%s: %d sites", each.name, sites)
        _dump(graph, dump, number, each.name)
    return graph, passed


def _dump(graph: ModelGraph, folder: Path | None, number: int, name: str) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02d}_{name}.txt").write_text(show(graph.graph), encoding="utf-8")
