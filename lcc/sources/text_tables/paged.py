"""A number of each code point in two steps: page, then place in a block that pages share."""

from __future__ import annotations

import numpy as np

from lcc.sources.text_tables.layout import Kind

PAGE = 256


def paged(
    values: np.ndarray, pages: tuple[Kind, int], blocks: tuple[Kind, int]
) -> dict[tuple[Kind, int], bytes]:
    """The sections of an array [0x110000]: uint16 pages, and blocks in the array's own dtype."""
    known: dict[bytes, int] = {}
    size = PAGE * values.itemsize
    data = values.tobytes()
    starts = range(0, len(data), size)
    index = [known.setdefault(data[i : i + size], len(known)) for i in starts]
    return {pages: np.array(index, np.uint16).tobytes(), blocks: b"".join(known)}
