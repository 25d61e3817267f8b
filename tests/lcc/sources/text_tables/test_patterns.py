"""Patterns as automata, against the library that runs them as expressions."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from lcc.sources.from_gguf.pre_tokenizers import SPLITS
from lcc.sources.text_tables.automaton import Automaton, compile_pattern, match_end
from lcc.sources.text_tables.unfit import Unfit

PUBLISHED = sorted({pattern for split in SPLITS.values() for pattern in split.patterns})
OTHERS = [
    r"a{2,3}?b|a+",
    r"(?=[ab])\p{L}+x?",
    r"(?:ab|a)(?:c|bcd)",
    r"a*?b|\s+$",
    r"[^\W\d]+",
    r"[\p{L}&&[^a-z]]+|[^\p{L}]",
    r"(?i:[sdmt]|ll|ve|re)k?",
    r"[[:punct:]]+|\P{L}",
    r"\p{Han}+|\p{^L}{2}",
    r"(ab|cd)*e|.",
    r"\x41\x{1F600}|\u00e9|\t",
    r"[^\r\n\p{L}\p{N}]?+\p{L}+| ?[^\s\p{L}]++[\r\n]*",
    r"\s+\z|(?!\d)[0-9a-f]{1,3}",
]
LETTERS = st.text(
    st.sampled_from(
        "aAbBcdefsStTlLvVrRxkK'’ \t\n\r1٣½Ⅷ.,!-éſKǅʰ中あ한\u0301\u0903😀\U00010400\u0378"
    )
    | st.characters(exclude_categories=["Cs"]),
    max_size=30,
)


def pieces_of(automaton: Automaton, text: str) -> list[str]:
    """Matches, and what lies between them."""
    found, done, place = [], 0, 0
    while place < len(text):
        end = match_end(automaton, text, place)
        if end is None:
            place += 1
            continue
        found += [text[done:place], text[place:end]]
        done = place = end
    return [piece for piece in [*found, text[done:]] if piece]


@pytest.mark.parametrize("pattern", [each for each in PUBLISHED if r"\b" not in each] + OTHERS)
def test_cuts_as_the_library_does(pattern: str) -> None:
    automaton = compile_pattern(pattern)
    library = pre_tokenizers.Split(Regex(pattern), "isolated")

    @settings(max_examples=50)
    @given(LETTERS)
    def compare(text: str) -> None:
        wanted = [piece for piece, _ in library.pre_tokenize_str(text)]
        assert pieces_of(automaton, text) == wanted

    compare()


def test_all_but_one_published_pattern_has_an_automaton() -> None:
    (refused,) = [each for each in PUBLISHED if r"\b" in each]
    assert len(PUBLISHED) > 20
    with pytest.raises(Unfit, match=r"\\b is not supported"):
        compile_pattern(refused)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(a)\1", r"\\1 is not supported"),
        (r"(?<=a)b", r"\(\?<= is not supported"),
        (r"(?>a+)b", r"\(\?>a is not supported"),
        (r"a(?=bc)", "looks ahead by more than one character"),
        (r"^a", r"\^ is not supported here"),
        (r"a|b*", "matches the empty text"),
        (r"(a*)*b", "repeats what may be empty"),
        (r"a++ab", "possessive part that is not also greedy"),
        (r"a{1001}", "repetitions 1001"),
        (r"(?i:ss)", "equals a single letter"),
        (r"(?i:ß)", "is several letters"),
        (r"\p{Nonsense}", "no property is named 'Nonsense'"),
        (r"(a", r"no \) follows"),
        (r"a)", r"unbalanced \)"),
        (r"[a", "ends too early"),
        (r"a{2}?", r"\{n\}\? is read in several ways"),
    ],
)
def test_refused_by_name(pattern: str, words: str) -> None:
    with pytest.raises(Unfit, match=words):
        compile_pattern(pattern)
