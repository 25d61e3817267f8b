"""Runs the programs that decide, or are told, which entries of a layer stay."""

from collections.abc import Mapping

import numpy as np

from lcc.artifact.manifest import ProgramEntry
from lcc.runtime.engines.base import Engine
from lcc.runtime.engines.device_array import Buffer
from lcc.runtime.kv_cache import KVCache, zeros


class Evictions:
    """The evict programs of all layers, and the memory that they write to.

    A program gives either the kept entries, which are copied into the layer, or a whole layer that
    begins with them, which takes the layer's place: on a device, where the host writes nothing.
    """

    def __init__(
        self, engine: Engine, programs: Mapping[str, ProgramEntry], cache: KVCache, budget: int
    ) -> None:
        """Allocate: rows share one block, whatever their shape; of whole layers, one a shape."""
        self._engine, self._programs, self._cache = engine, programs, cache
        self._layers: dict[tuple[int, ...], tuple[Buffer, Buffer]] = {}
        largest = 0
        for i, layer in enumerate(cache.layers):
            shape = cache.keys[i].shape
            if not self._gives_layer(i):
                largest = max(largest, layer.kv_heads * layer.head_size * (layer.slots or budget))
            elif shape not in self._layers:
                self._layers[shape] = (
                    engine.zeros(shape, cache.dtype),
                    engine.zeros(shape, cache.dtype),
                )
        self._rows = zeros((largest,), cache.dtype), zeros((largest,), cache.dtype)

    def _gives_layer(self, i: int) -> bool:
        program = self._programs.get(str(self._cache.layers[i].evict))
        return program is not None and any(t.name == "key_out" for t in program.outputs)

    def keep(self, i: int, feeds: Mapping[str, np.ndarray], kept: np.ndarray | None = None) -> bool:
        """Make what a layer's program keeps the first entries of the layer.

        feeds       what the program reads besides the cache
        kept        [Hkv, n] int64, slots; None = the program says which
        returns     whether the layer's buffers are others now: steps are to be bound anew
        """
        cache, layer = self._cache, self._cache.layers[i]
        runner, fetch = self._engine.runner(str(layer.evict)), ["kept"] if kept is None else []
        bound: dict[str, Buffer] = {"key": cache.keys[i], "value": cache.values[i]}
        if not self._gives_layer(i):
            shape = (1, layer.kv_heads, feeds["new_slots"].size, layer.head_size)
            rows = [block[: int(np.prod(shape))].reshape(shape) for block in self._rows]
            runner.bind(bound | {"kept_key": rows[0], "kept_value": rows[1]})
            results = runner(feeds, fetch)
            cache.compact(i, results["kept"] if kept is None else kept, *rows)
            return False
        key, value = self._layers[cache.keys[i].shape]
        runner.bind(bound | {"key_out": key, "value_out": value})
        results = runner(feeds, fetch)
        old = cache.replace(i, results["kept"] if kept is None else kept, key, value)
        self._layers[key.shape] = old
        return True
