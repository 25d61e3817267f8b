"""StreamingLLM: the first entries and the newest ones."""

from torch import Tensor

from lcc.passes.policies.base import Entries, EvictionPolicy


class SinkWindow(EvictionPolicy):
    """Newest first; the sinks are protected by the cache's `sink_size` (arXiv 2309.17453)."""

    name = "sink_window"

    def rank(self, entries: Entries) -> Tensor:
        """The slot: entries are in token order."""
        return entries.slot.float().expand(entries.key.shape[:2])
