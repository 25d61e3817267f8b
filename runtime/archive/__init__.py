"""Rows in a file, in the order in which they came: appended in blocks, read as mapped arrays.

It knows columns, rows and blocks, and nothing of models: `docs/format.md` has its bytes.

    with Archive.open("book.lccarchive", fingerprint, columns, rows=256) as archive:
        archive.append(200, {"key_0": keys, "position": positions})
        for block in archive.blocks:
            keys, count = archive.column(block, "key_0"), archive.count(block)
"""

from lcc.runtime.archive.archive import Archive
from lcc.runtime.archive.layout import Column, Layout

__all__ = ["Archive", "Column", "Layout"]
