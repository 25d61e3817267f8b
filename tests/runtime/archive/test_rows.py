"""Rows that a program asks for, of an archive that does not have them."""

import numpy as np
import pytest

from lcc.errors import ArchiveError
from lcc.runtime.archive.rows import ArchiveRows


@pytest.fixture(params=[None, 4])
def rows(book, request) -> ArchiveRows:
    """Of three blocks; or what is left of six where four have room."""
    archive = book.open(slots=request.param)
    book.fill(archive, range(3 if request.param is None else 6))
    made = ArchiveRows(archive)
    yield made
    made.close()


def test_rows_that_are_there(rows):
    count = rows.archive.length
    every, some = np.zeros(count, np.int64), np.zeros(3, np.int64)
    rows.read("position", 0, every)
    assert every.all()
    rows.take("position", np.array([count - 1, 0, 5]), some)
    assert some.tolist() == every[[-1, 0, 5]].tolist()
    rows.take("position", np.zeros(0, np.int64), np.zeros(0, np.int64))
    rows.read("position", count, np.zeros(0, np.int64))


@pytest.mark.parametrize("first", [-1, -12, 1, 2**40])
def test_rows_that_are_not(rows, first):
    count = rows.archive.length
    with pytest.raises(ArchiveError, match=f"rows {first} .. {first + count - 1} of {count}"):
        rows.read("position", first, np.zeros(count, np.int64))
    for place in (-1, count, -(2**62), 2**62):
        wanted = np.array([0, place])
        with pytest.raises(ArchiveError, match=rf"rows {min(place, 0)} \.\. {max(place, 0)} of"):
            rows.take("position", wanted, np.zeros(2, np.int64))
