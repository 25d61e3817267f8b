"""Layer plans: every layer exactly once, or an error that says which are not."""

import pytest

from lcc.errors import ConfigError
from lcc.ir.plan import BlockSparse, Full, SinkWindow, Sparse, parse_plan, positions_of, show_plan
from lcc.testing.oracles import sees

NARROW = SinkWindow(sink=4, window=512)


def test_ranges_name_every_layer() -> None:
    text = "0-1: sink_window(sink=4, window=512); 2:full ;3 - 5 : sink_window ( sink=0,window=8 )"
    plan = parse_plan(text, 6)
    assert plan == (NARROW, NARROW, Full(), *(SinkWindow(sink=0, window=8),) * 3)
    assert parse_plan(show_plan(plan), 6) == plan
    assert show_plan(plan).startswith("0-1: sink_window(sink=4, window=512); 2: full; 3-5: ")
    assert parse_plan(show_plan(()), 0) == ()
    assert parse_plan("0-5: sink_window\n", 6) == (NARROW,) * 6


def test_presets() -> None:
    assert parse_plan("dense", 3) == (Full(),) * 3
    wide = SinkWindow(sink=64, window=2048)
    assert parse_plan("longgen", 30) == (wide,) * 10 + (Full(),) * 10 + (wide,) * 10
    sized = SinkWindow(sink=64, window=128, block=64)
    plan = parse_plan("longgen(window=128, block=64)", 32)
    assert plan == (sized,) * 11 + (Full(),) * 10 + (sized,) * 11
    assert parse_plan("longgen", 2) == (Full(), wide)
    blocks = BlockSparse(block=64, stride=64, local=8, sink=1, reach=2048, offset=0, shift=0)
    assert parse_plan("longgen_blocks", 6) == (blocks,) * 2 + (Full(),) * 2 + (blocks,) * 2
    assert blocks.seen == 64 * (1 + 32 + 8)  # at 128K tokens, of which 32 blocks are LongGen's 2K
    plan = parse_plan("longgen_blocks(stride=16, reach=256, shift=1)", 3)
    assert plan[0] == BlockSparse(stride=16, reach=256, shift=1)
    assert parse_plan(show_plan(plan), 3) == plan


KINDS = [
    SinkWindow(sink=2, window=5),
    SinkWindow(sink=4, window=6, block=2),
    BlockSparse(block=2, stride=3, local=1, sink=0, reach=7),
    BlockSparse(block=3, stride=4, local=2, sink=2, reach=9, offset=1, shift=1),
    BlockSparse(block=1, stride=2, local=3, sink=0, reach=0),
    BlockSparse(block=4, stride=1, local=1, sink=0, reach=3),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_seen_is_the_loops(kind: Sparse) -> None:
    """Once hidden, for ever hidden; never more than `seen`; all of it in short texts."""
    for head in range(5):
        for key in range(60):
            hidden = False
            for query in range(key, 60):
                seen = bool(kind.sees(query, key, head))
                assert seen == sees(kind, query, key, head)
                assert not (seen and hidden)
                hidden = not seen
        counts = [sum(sees(kind, i, j, head) for j in range(i + 1)) for i in range(60)]
        assert max(counts) <= kind.seen
        assert counts[: kind.dense_length] == list(range(1, kind.dense_length + 1))
    assert sum(counts) < 60 * 61 / 2


def test_blocks_go_by_places_in_the_text() -> None:
    assert positions_of(parse_plan("0: full; 1: block_sparse", 2)) == "absolute"
    assert positions_of(parse_plan("0: full; 1: sink_window", 2)) == "contiguous"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0-3: full; 3-4: full; 8: full", "no kind for layers 5-7, 9; more than .* layers 3;"),
        ("", "no kind for layers 0-9"),
        ("0-9: sparse", "no kind 'sparse'; wanted one of full, sink_window, block_sparse"),
        ("0-9 full", "'0-9 full' is not understood; wanted layers, a colon and a kind"),
        ("0-10: full", "wanted layers 0 to 9"),
        ("5-2: full", "the first one first"),
        ("0-9: full(window=3)", "unknown field `window`"),
        ("0-9: sink_window(window=-3)", "'window=-3' is not NAME=NUMBER"),
        ("0-9: sink_window(window=0)", "wanted sink 0 or more, window and block 1 or more"),
        ("longgen(sink=4, block=64)", "must be multiples of block"),
        ("0-9: block_sparse(stride=0)", "wanted block, stride and local 1 or more"),
        ("0-9: block_sparse(window=9)", "unknown field `window`"),
        ("longgen_blocks(window=9)", "unknown field `window`"),
        ("0-9: sink_window(window=8, window=9)", "window is given twice"),
        ("dense(window=2)", "dense has no options"),
    ],
)
def test_what_is_not_a_plan_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_plan(text, 10)
