"""Which blocks of a file are whole, after whatever happened to the process that wrote it.

A block is written into a slot whose header is zero, and its own header last. So a process that was
killed leaves blocks that follow one another, and one slot behind them whose header is zero. A
machine that lost power may have kept later blocks and lost earlier ones, or parts of them.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from lcc.errors import ArchiveError
from lcc.runtime.archive.block_file import BlockFile
from lcc.runtime.archive.headers import LARGEST_NUMBER, BlockHeader, decode_block_header
from lcc.runtime.archive.layout import Layout


class Found(NamedTuple):
    """The slots of a file.

    blocks      those that are whole and follow one another, oldest first
    clear       slots of all other headers; clearing them in this order leaves, after each, a file
                in which the same blocks are found
    """

    blocks: list[BlockHeader]
    clear: list[int]


def keep_whole(file: BlockFile) -> Found:
    """Find the whole blocks and clear all other slots; returns both.

    Columns are compared with their checksums from both ends on, until a block is whole: without
    power, the newest blocks may lack parts, and so may the oldest one of a full file, which was
    being overwritten. Columns between them are left for their first use.

    Raises:
        ArchiveError: a block between others is damaged.
        OSError: the system refuses.
    """
    found = find_blocks(file.layout, file.held, file.slots, file.read_header)
    blocks, clear = list(found.blocks), list(found.clear)
    while blocks and file.any_wrong(blocks[-1].number):
        clear.append(file.slot(blocks.pop().number))
    while len(blocks) > 1 and blocks[0].number and file.any_wrong(blocks[0].number):
        clear.append(file.slot(blocks.pop(0).number))
    if found.blocks and not blocks:
        file.write_start(*found.blocks[0][:2])
    for slot in clear:
        file.clear(slot)
    return Found(blocks, clear)


def find_blocks(
    layout: Layout, held: int, slots: int | None, read: Callable[[int], bytes]
) -> Found:
    """Find the blocks that follow one another; their columns are not looked at.

    held        slots that the file holds wholly
    slots       most that it may hold; None = no limit
    read        the block header in a slot, as bytes

    Raises:
        ArchiveError: the header of a block is damaged, and blocks behind it are whole. Nothing
            that lcc does leaves that, so nothing is dropped for it.
    """
    modulus, headers, damaged = slots or LARGEST_NUMBER, dict[int, BlockHeader](), list[int]()
    for slot in range(held):
        header = decode_block_header(layout, raw := read(slot))
        if header and header.number % modulus == slot:
            headers[header.number] = header
        elif any(raw):
            damaged.append(slot)
    if not headers:
        return Found([], damaged)
    newest = max(headers)
    first = 0 if slots is None else min(n for n in headers if n > newest - slots)
    blocks = list(_following(headers, first))
    end = first + len(blocks)
    if end <= newest and end % modulus in damaged:
        raise ArchiveError(f"header of block {end} is damaged; delete the file and begin anew")
    # Older ones first: while a newer header is there, it shows that they are old.
    old = sorted(number for number in headers if number < first)
    behind = sorted((number for number in headers if number >= end), reverse=True)
    return Found(blocks, [*(number % modulus for number in [*old, *behind]), *damaged])


def _following(headers: dict[int, BlockHeader], first: int) -> Iterator[BlockHeader]:
    """The headers from the first number on, as far as none is missing."""
    block = headers.get(first)
    while block:
        yield block
        after = headers.get(block.number + 1)
        if after and after.first_row != block.first_row + block.rows:
            raise ArchiveError(
                f"block {after.number} begins at row {after.first_row}, wanted row "
                f"{block.first_row + block.rows}; delete the file and begin anew"
            )
        block = after
