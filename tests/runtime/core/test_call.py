"""What a run binds of whole numbers in a row."""

import numpy as np
import pytest

from lcc.artifact.schedule import TensorSpec
from lcc.errors import ArtifactError
from lcc.ir.roles import Role
from lcc.runtime.core.call import _View


def view(size) -> _View:
    spec = TensorSpec(name="positions", role=Role.POSITIONS, dtype="int64", shape=(1, size))
    return _View(spec, ("first", "count"), np.zeros(8, np.int64))


def test_numbers_are_counted_from_the_first():
    assert view("n")({"first": 5, "count": 3}, None).tolist() == [[5, 6, 7]]
    assert view(4)({"first": 5, "count": 3}, None).tolist() == [[5, 6, 7, 8]]


@pytest.mark.parametrize(("size", "count"), [(2**31, 1), (9, 1), ("n", 9), ("n", 2**62)])
def test_more_than_there_is_memory_for(size, count):
    with pytest.raises(ArtifactError, match=r"positions: \d+ numbers, buffers have 8"):
        view(size)({"first": 0, "count": count}, None)
