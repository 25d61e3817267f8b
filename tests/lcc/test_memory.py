"""The memory table by the dtypes that programs have."""

from lcc.capture import capture
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.memory import RUNTIME_BYTES, memory_table
from lcc.specialize import specialize
from lcc.targets.half_precision import half
from lcc.tiny import tiny_model


def test_half_precision_is_half_of_it() -> None:
    cache = CacheConfig(capacity=96, budget=40, chunk_size=16, catalyst_size=8, recent_size=4)
    config = CompileConfig(cache=cache, policy=PolicyConfig(name="knorm"))
    special = specialize(capture(tiny_model("llama")), config, "m", "llama", None)
    wide = {row.name: row.bytes for row in special.memory}
    programs = [half(program) for program in special.programs]
    table = memory_table(programs, special.model.layers, cache, scalars=0)
    narrow = {row.name: row.bytes for row in table}
    entries = 2 * 2 * 96  # layers, heads, slots; of 16 numbers each in keys and in values
    assert wide["cache"] == entries * (2 * 16 * 4 + 8)
    assert narrow["cache"] == entries * (2 * 16 * 2 + 8)
    assert wide["spare layer"] == 2 * narrow["spare layer"] == 2 * 2 * 40 * 16 * 4
    assert 0.5 <= narrow["weights"] / wide["weights"] < 0.52  # but for numbers that are not weights
    assert narrow["runtime"] == RUNTIME_BYTES
