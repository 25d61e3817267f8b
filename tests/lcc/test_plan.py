"""Layer plans: every layer exactly once, or an error that says which are not."""

import pytest

from lcc.errors import ConfigError
from lcc.plan import Full, SinkWindow, parse_plan, show_plan

NARROW = SinkWindow(sink=4, window=512)


def test_ranges_name_every_layer() -> None:
    text = "0-1: sink_window(sink=4, window=512); 2:full ;3 - 5 : sink_window ( sink=0,window=8 )"
    plan = parse_plan(text, 6)
    assert plan == (NARROW, NARROW, Full(), *(SinkWindow(sink=0, window=8),) * 3)
    assert parse_plan(show_plan(plan), 6) == plan
    assert show_plan(plan).startswith("0-1: sink_window(sink=4, window=512); 2: full; 3-5: ")
    assert parse_plan("0-5: sink_window\n", 6) == (NARROW,) * 6


def test_presets() -> None:
    assert parse_plan("dense", 3) == (Full(),) * 3
    wide = SinkWindow(sink=64, window=2048)
    assert parse_plan("longgen", 30) == (wide,) * 10 + (Full(),) * 10 + (wide,) * 10
    sized = SinkWindow(sink=64, window=128, block=64)
    plan = parse_plan("longgen(window=128, block=64)", 32)
    assert plan == (sized,) * 11 + (Full(),) * 10 + (sized,) * 11
    assert parse_plan("longgen", 2) == (Full(), wide)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0-3: full; 3-4: full; 8: full", "no kind for layers 5-7, 9; more than .* layers 3;"),
        ("", "no kind for layers 0-9"),
        ("0-9: sparse", "no kind 'sparse'; wanted one of full, sink_window"),
        ("0-9 full", "'0-9 full' is not understood; wanted layers, a colon and a kind"),
        ("0-10: full", "wanted layers 0 to 9"),
        ("5-2: full", "the first one first"),
        ("0-9: full(window=3)", "unknown field `window`"),
        ("0-9: sink_window(window=-3)", "'window=-3' is not NAME=NUMBER"),
        ("0-9: sink_window(window=0)", "wanted sink 0 or more, window and block 1 or more"),
        ("longgen(sink=4, block=64)", "must be multiples of block"),
        ("dense(window=2)", "dense has no options"),
    ],
)
def test_what_is_not_a_plan_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_plan(text, 10)
