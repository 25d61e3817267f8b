"""One turn of a chat in two halves, so that a text can be read long before it is asked about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lcc.errors import ConfigError

if TYPE_CHECKING:
    from lcc.measure.evaluate.sample import Sample
    from lcc.runtime.session import Session
    from lcc.runtime.text.tokenizer import Tokenizer

_MARK = "\u2060user text\u2060"


def user_turn(session: Session, *, raw: bool = False) -> tuple[str, str]:
    """Return what stands before the user's words, and what follows them until the answer begins.

    Args:
        session: its artifact's own chat template decides.
        raw: no template and nothing else around the words.
    """
    return ("", "") if raw else halves(session.tokenizer)


def asked(sample: Sample, after: str) -> str:
    """What follows a sample's text, up to where the model goes on.

    Args:
        sample: its question, and how the answer begins.
        after: what ends the turn, by `user_turn`; "" = there is no template.
    """
    return f"\n{sample.question}{after}{sample.answer_prefix}" if after else sample.asked


def halves(tokenizer: Tokenizer) -> tuple[str, str]:
    """What `user_turn` returns, from the files of a model.

    Raises:
        ConfigError: a template that cannot be rendered, or leaves out what the user says.
    """
    from lcc.runtime.text.chat import load_template

    if tokenizer.chat_template is None:  # the model goes on from where the question ends
        return "", "\n"
    rendered = load_template(tokenizer).render([{"role": "user", "content": _MARK}])
    before, found, after = rendered.partition(_MARK)
    if not found:
        raise ConfigError("chat template: it leaves out the user's words; use --raw")
    return before, after
