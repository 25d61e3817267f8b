"""Sizes that nobody has memory for are refused by the buffer that asks for them."""

import pytest

from lcc.artifact.schedule import BufferSpec
from lcc.errors import CacheError
from lcc.ir.roles import Role
from lcc.runtime.core.buffers import Buffers
from lcc.runtime.engines.host_array import zeros


class Host:
    """As the engines of the CPU do it."""

    def zeros(self, shape, dtype, role):
        return zeros(shape, dtype)


@pytest.mark.parametrize("size", [2**50, 2**62, 2**63, 10**30])
def test_memory_that_is_not_there(size):
    spec = BufferSpec(name="key_0", role=Role.KEY, dtype="float32", shape=(1, 2, "slots", 16))
    assert Buffers([spec], {"slots": 8}, Host()).arrays["key_0"].shape == (1, 2, 8, 16)
    with pytest.raises(CacheError, match=rf"key_0: no memory for float32 \[1, 2, {size}, 16\]"):
        Buffers([spec], {"slots": size}, Host())
