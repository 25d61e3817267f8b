"""What a run binds of whole numbers in a row."""

from types import SimpleNamespace

import msgspec
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


@pytest.mark.parametrize(("size", "count"), [(2**31, 1), (9, 1), ("n", 9), ("n", 2**62), ("n", -2)])
def test_more_than_there_is_memory_for(size, count):
    with pytest.raises(ArtifactError, match=r"positions: -?\d+ numbers, buffers have 8"):
        view(size)({"first": 0, "count": count}, None)


def test_rows_of_another_shape():
    """2^62 rows of 4 are more numbers than 64 bits count: the product is not taken for 0."""
    spec = TensorSpec(name="queries", role=Role.QUERIES, dtype="float32", shape=("n", 3))
    buffers = SimpleNamespace(rows=lambda *_: np.zeros((2, 4)))
    with pytest.raises(ArtifactError, match=r"queries: is bound to numbers \[2, 4\]"):
        _View(spec, ("first", "count"), "rows", 4)({"first": 0, "count": 2}, buffers)
    many = msgspec.structs.replace(spec, shape=(2**62, 4))
    assert _View(many, ("first", "count"), "rows", 4).fixed == 2**62
