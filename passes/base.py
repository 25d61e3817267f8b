"""What a pass is: it takes a graph, gives a new one, and counts the places it rewrote."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from lcc import env
from lcc.errors import PassError
from lcc.passes.graph import ModelGraph


@dataclass(frozen=True)
class PassResult:
    """A rewritten graph, and how many places of it changed."""

    graph: ModelGraph
    sites: int


class Pass(ABC):
    """One rewrite. `requires` and `ensures` raise PassError; `rewrite` edits a copy in place."""

    required = True

    @property
    def name(self) -> str:
        """The file's name: FindAttention is find_attention."""
        return re.sub(
            r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(self).__name__
        ).lower()

    def requires(self, graph: ModelGraph) -> None:  # noqa: B027 - most passes need nothing
        """Raise PassError if the graph is not fit for this pass."""

    @abstractmethod
    def rewrite(self, graph: ModelGraph) -> int:
        """Edit the graph in place and return the number of places rewritten."""

    def ensures(self, graph: ModelGraph) -> None:  # noqa: B027
        """Raise PassError if the result breaks the pass's promise."""

    @final
    def __call__(self, graph: ModelGraph) -> PassResult:
        """Check, copy, rewrite, clean, check."""
        self.requires(graph)
        result = graph.copy()
        sites = self.rewrite(result)
        if sites == 0 and self.required:
            raise PassError(f"{self.name}: nothing to rewrite in {len(graph.graph.nodes)} nodes")
        result.clean()
        if env.check_passes():
            self.ensures(result)
        return PassResult(result, sites)
