"""Programs over a cache in float16: inputs, outputs, and what is rounded."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lcc.errors import PassError
from lcc.ir.program import HEAD
from lcc.ir.roles import Role
from lcc.passes.programs.base import run_program_passes
from lcc.passes.programs.half_cache import HalfCache, half_cache
from lcc.passes.specialize import Specialized

CACHES = (Role.KEY, Role.VALUE)


def test_keys_and_values_and_nothing_else(specialized: Callable[..., Specialized]) -> None:
    programs = specialized("h2o").programs
    halved = run_program_passes(programs, [HalfCache()])
    assert [each.names for each in halved] == [each.names for each in programs]
    for old, new in zip(programs, halved, strict=True):
        if HEAD in old.names:
            assert new is old
        for before, after in zip(
            (*old.inputs, *old.outputs), (*new.inputs, *new.outputs), strict=True
        ):
            narrow = "float16" if before.role in CACHES else before.dtype
            assert after.dtype == narrow
            assert (after.name, after.shape, after.role) == (before.name, before.shape, before.role)
    with pytest.raises(PassError, match="half_cache: step: key_0 is not float16"):
        HalfCache().ensures(programs[0])


def test_a_step_computes_with_what_the_cache_holds(
    specialized: Callable[..., Specialized], call: Callable[..., dict[str, Tensor]]
) -> None:
    """New entries are rounded; the rest is as if the cache were float32 with the same numbers."""
    step = specialized("knorm").programs[0]
    draw = torch.Generator().manual_seed(1)
    names = [spec.name for spec in step.with_role(*CACHES)]
    caches = {name: torch.randn(1, 2, 96, 16, generator=draw).half() for name in names}
    given = {
        "tokens": torch.arange(9)[None],
        "positions": torch.arange(20, 29)[None],
        "used": torch.tensor([20], dtype=torch.int32),
    }
    wanted = call(step, **given, **{name: cache.float() for name, cache in caches.items()})
    got = call(half_cache(step), **given, **caches)
    torch.testing.assert_close(got["hidden"], wanted["hidden"], atol=1e-5, rtol=0)
    for name in names:
        assert torch.equal(got[f"{name}_out"], wanted[f"{name}_out"].half())


def test_a_specialized_model_keeps_half_of_it(specialized: Callable[..., Specialized]) -> None:
    special = specialized("knorm", kv_precision="fp16")
    dtypes = {each.name: each.dtype for each in special.plan.buffers if each.role in CACHES}
    assert {"key_0", "value_1", "spare_key_2xcapacityx16"} <= dtypes.keys()
    assert set(dtypes.values()) == {"float16"}
