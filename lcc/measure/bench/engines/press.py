"""kvpress: transformers that reads everything, then keeps as many entries as the artifact does.

SnapKV (arXiv 2404.14469), the press that its documentation begins with.
"""

import contextlib

from lcc.measure.bench.engines.eager import Eager, prepare
from lcc.measure.bench.measure import Request

__all__ = ["load", "prepare"]


class Pressed(Eager):
    """The cache is compressed layer by layer while the prompt is read, not while tokens follow."""

    def __init__(self, request: Request) -> None:
        """Load the folder; options["budget"] is in entries per KV head."""
        super().__init__(request)
        self.budget: int = request.options["budget"]

    def reading(self, tokens: int) -> contextlib.AbstractContextManager[object]:
        """A press whose ratio leaves `budget` of so many tokens."""
        import kvpress

        if tokens <= self.budget:
            return contextlib.nullcontext()
        # Half an entry more, for the press rounds down what is left of the ratio.
        press = kvpress.SnapKVPress(compression_ratio=1 - (self.budget + 0.5) / tokens)
        return press(self.model)


load = Pressed
