"""Sizes that nobody has memory for, and rows that are not there, are refused by the buffer."""

import numpy as np
import pytest

from lcc.artifact.schedule import BufferSpec
from lcc.errors import ArtifactError, CacheError
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


@pytest.mark.parametrize("first", [-1, 7, 8, 9])
def test_rows_that_are_not_there(first):
    spec = BufferSpec(name="ids", role=Role.TOKENS, dtype="int64", shape=(8,))
    buffers = Buffers([spec], {}, Host())
    buffers.write_rows("ids", 6, np.array([1, 2]))
    assert buffers.rows("ids", 5, 8).tolist() == [0, 1, 2]
    with pytest.raises(ArtifactError, match=rf"ids: rows {first} \.\. {first + 1} of 8"):
        buffers.write_rows("ids", first, np.array([3, 4]))
    assert buffers.rows("ids", 5, 8).tolist() == [0, 1, 2]
