"""Added tokens as trees of bytes, in which the longest one is found by walking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lcc.sources.text_tables import code_points as cp
from lcc.sources.text_tables.described import Added
from lcc.sources.text_tables.layout import NONE, Flag, Kind
from lcc.sources.text_tables.paged import paged
from lcc.sources.text_tables.unfit import Unfit

LSTRIP, RSTRIP, SINGLE_WORD = 1, 2, 4
SPACE, LETTER = 1, 2  # bits of a code point's sort
_CIRCLED = [(0x345, 0x345), (0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169)]
_MORE = [*_CIRCLED, (0x1F170, 0x1F189), (0x200C, 0x200D)]  # alphabetic; joiners

Tables = dict[tuple[Kind, int], bytes]


def added_tables(
    added: Sequence[Added], normalized: Sequence[str], template: str, *, strips: bool
) -> Tables:
    """A tree of those found in the text, of those found behind the normalizer, of control tokens.

    normalized  content of each as it is found
    template    source of the chat templates: words of theirs are control tokens, too
    strips      a step needs to know what white space is
    """
    tables: Tables = {}
    records = np.zeros((len(added), 2), np.uint32)
    for i, each in enumerate(added):
        flags = each.lstrip * LSTRIP | each.rstrip * RSTRIP | each.single_word * SINGLE_WORD
        records[i] = each.id, flags | (Flag.SPECIAL if each.special else 0)
    tables[Kind.ADDED, 0] = records.tobytes()
    for index, late in enumerate((False, True)):
        own = [i for i, each in enumerate(added) if each.normalized == late and normalized[i]]
        contents = {normalized[i].encode(): i for i in own}
        if len(contents) < len(own):
            raise Unfit("two added tokens have the same text")
        rstrips = any(added[i].rstrip for i in own)
        if rstrips and any(normalized[i][0].isspace() for i in own):
            raise Unfit("an added token takes the space behind it, and another one begins with one")
        if contents:
            tables |= _tree(contents, index)
    control = {
        each.content.encode(): i
        for i, each in enumerate(added)
        if each.special or (each.content in template and each.content.strip())
    }
    if control := {content: i for content, i in control.items() if content}:
        tables |= _tree(control, 2)
    if strips or any(each.lstrip or each.rstrip or each.single_word for each in added):
        tables |= _sorts(letters=any(each.single_word for each in added))
    return tables


def _tree(contents: dict[bytes, int], index: int) -> Tables:
    """Nodes: first edge, edges, token + 1; edges: byte, and node behind it, ascending by byte."""
    children: list[dict[int, int]] = [{}]
    ends = {}
    for content, token in contents.items():
        node = 0
        for byte in content:
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
            node = children[node][byte]
        ends[node] = token + 1
    nodes, edges = np.zeros((len(children), 3), np.uint32), list[tuple[int, int]]()
    for node, below in enumerate(children):
        nodes[node] = len(edges), len(below), ends.get(node, 0)
        edges += sorted(below.items())
    root = np.full(256, NONE, np.uint32)
    for byte, node in children[0].items():
        root[byte] = node
    return {
        (Kind.TRIE_ROOT, index): root.tobytes(),
        (Kind.TRIE_NODES, index): nodes.tobytes(),
        (Kind.TRIE_EDGES, index): np.array(edges, np.uint32).tobytes(),
    }


def _sorts(*, letters: bool) -> Tables:
    """Which code points are white space, and which belong to words."""
    sorts = np.zeros(cp.LIMIT, np.uint8)
    points = np.arange(cp.LIMIT)
    sorts[cp.holds(cp.spaces(), points)] |= SPACE
    if letters:
        found = cp.of_ranges(_MORE)
        for name in ("L", "M", "Nd", "Nl", "Pc"):
            found = cp.union(found, cp.category(name))
        sorts[cp.holds(found, points)] |= LETTER
    return paged(sorts, (Kind.SORT_PAGES, 0), (Kind.SORT_BLOCKS, 0))
