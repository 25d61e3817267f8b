"""Adds up how much attention queries pay to each entry, by the score programs."""

from collections.abc import Mapping

import numpy as np

from lcc.artifact.manifest import Manifest
from lcc.runtime.engines.base import Engine
from lcc.runtime.kv_cache import KVCache, zeros


class Scoring:
    """The score programs of one session, and the scalar of its cache that they add to.

    layers      those that are scored
    queries     whose attention counts, see `lcc.artifact.manifest`; None = nobody's
    """

    def __init__(self, manifest: Manifest, cache: KVCache, engine: Engine) -> None:
        """Programs are loaded when they are first run."""
        self.layers = [i for i, e in enumerate(cache.layers) if e.score is not None]
        self.queries = manifest.queries if self.layers else None
        self._cache, self._engine, self._policy = cache, engine, manifest.policy
        # Attention is summed up where the policy reads it, if only as the mean of all heads.
        self._agreed = "consensus" in manifest.scalars
        self._memory = np.float32(manifest.policy.memory)
        heads = {cache.layers[i].kv_heads for i in self.layers}
        self._new = {count: zeros((count, cache.capacity)) for count in heads}

    def add(self, queries: Mapping[int, np.ndarray], start: int) -> None:
        """Add what these queries see to what was seen before, as far as the policy remembers it.

        queries     scored layer -> [Hq, n, D] float32, rotated
        start       slot of the first one's token

        A call takes the logits of all its queries over all slots, twice: so a few rows at a time,
        where the sum of what they see is what all of them see.
        """
        for i, of_layer in queries.items():
            layer = self._cache.layers[i]
            runner = self._engine.runner(str(layer.score))
            new = self._new[layer.kv_heads]
            runner.bind({"key": self._cache.keys[i], "attention": new})
            attention = self._cache.scalar("consensus" if self._agreed else "attention", i)
            attention *= self._memory
            size = self._policy.score_rows(self.queries, of_layer.shape[1])
            for first in range(0, of_layer.shape[1], size):
                rows = np.ascontiguousarray(of_layer[:, first : first + size])
                runner({"queries": rows, "start": np.array([start + first], np.int32)})
                attention += new

    def agree(self, used: int) -> None:
        """Give every entry the mean over all heads and layers, where the policy reads only that."""
        if self._agreed and self.layers:
            self._cache.agree("consensus", self.layers, used)
