"""What the report shows of a cache: after every cycle the tokens that a slow reader holds."""

from collections import Counter
from typing import Any

import numpy as np

from lcc.measure.evaluate.kept import KeptWatch, kept_page, marked, spelled

TEXT = "Call me Ishmael. Some years ago, never mind how long, I thought I would sail about."


def test_the_counts_are_those_of_a_slow_reader(make_session: Any, make_oracle: Any) -> None:
    session = make_session()
    oracle = make_oracle(session.manifest, session.catalyst)
    wanted: list[tuple[int, Counter]] = []

    def look() -> None:
        held = Counter(token for layer in (0, 1) for head in oracle.kept(layer) for token in head)
        wanted.append((oracle.tokens, held))

    cycle = oracle.cycle
    oracle.cycle = lambda: (cycle(), look())
    with KeptWatch(session) as watch:
        session.feed(TEXT, prefix=False)
        watch.end()
        list(session.generate("And then?", max_new_tokens=20))
    assert session.stats().cycles > len(watch.steps) - 1, "cycles of the answer are not looked at"
    assert session.on_cycle is None
    oracle.read(session.encode(TEXT))
    look()
    assert len(wanted) >= 4
    found = [(len(counts), Counter(dict(enumerate(counts.tolist())))) for counts in watch.steps]
    assert [(tokens, +counts) for tokens, counts in found] == wanted
    assert any(0 < count < 4 for count in wanted[-1][1].values()), "heads differ"
    page = watch.page(TEXT, ["Ishmael"])
    assert "".join(text for text, _, _ in page["pieces"]) == TEXT
    assert page["tokens"] == [tokens for tokens, _ in wanted]
    marks = {mark: "".join(t for t, _, m in page["pieces"] if m == mark) for mark in (0, 1, 2)}
    assert (marks[2], marks[1]) == ("Ishmael", "Call me .")
    levels = "".join(levels[-1] * len(text) for text, levels, _ in page["pieces"])
    assert levels == "".join("03579"[wanted[-1][1][token]] for token in range(len(TEXT)))


def test_characters_of_several_tokens_are_whole(make_session: Any) -> None:
    session, text = make_session(), "élan 10 € 漢字"
    ids = session.encode(text)
    assert len(ids) > len(text), "or each character is one token"
    texts = spelled(session, ids)
    assert "".join(texts) == text
    assert texts[:3] == ["", "é", "l"]
    assert spelled(session, ids[:-1])[-1] == "\ufffd", "what is left of a half one"
    assert spelled(session, []) == []


def test_pieces_join_what_went_the_same_way() -> None:
    steps = [np.array([2, 2, 0], np.uint16), np.array([2, 1, 0, 2, 2], np.uint16)]
    page = kept_page(steps, ["a", "b", "c", "d", "e"], 2, [])
    assert page == {
        "heads": 2,
        "tokens": [3, 5],
        "pieces": [["a", "99", 0], ["b", "95", 0], ["c", "00", 0], ["de", "-9", 0]],
    }


def test_long_texts_show_some_cycles_and_the_last() -> None:
    steps = [np.zeros(n, np.uint16) for n in range(1, 101)]
    tokens = kept_page(steps, ["x"] * 100, 2, [])["tokens"]
    assert (len(tokens), tokens[0], tokens[-1]) == (24, 1, 100)


def test_answers_are_marked_whatever_their_case() -> None:
    texts = ["No", " it", ".", " The", " key", " is", " SE", "VEN", ".", " Yes"]
    assert marked(texts, ["seven"]) == [0, 0, 0, 1, 1, 1, 2, 2, 1, 0]
    assert marked(texts, ["eight", ""]) == [0] * 10
