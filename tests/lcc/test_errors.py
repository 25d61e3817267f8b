"""Whatever a file brings into an error's text, it is one line that moves no cursor."""

import pytest

from lcc.errors import ArtifactError, ConfigError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve 中文 'x'", "naïve 中文 'x'"),
        ("a\nb\r\x1b[2J", "a\\nb\\r\\x1b[2J"),
        ("\u202ex\ud800", "\\u202ex\\ud800"),
        ("\0\x7f\u2028", "\\x00\\x7f\\u2028"),
    ],
)
def test_control_characters_are_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown
    for kind in (ArtifactError, ConfigError):
        assert str(kind(text)) == shown
        assert str(kind(str(kind(text)))) == shown, "once, however often it is passed on"
