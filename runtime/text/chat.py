"""Messages to text, by the model's own template; and what of it a session has not read yet."""

import datetime
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from lcc.errors import ConfigError
from lcc.runtime.text.tokenizer import Tokenizer

Message = Mapping[str, Any]
SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")
OWN = {"messages", "generation_prompt", "add_generation_prompt"}  # no options of a template


class ChatTemplate:
    """A jinja template, rendered in a sandbox with the names that transformers gives it."""

    def __init__(self, source: str, special: Mapping[str, str]) -> None:
        """`special`: bos_token, eos_token, ... as text."""
        import jinja2
        import jinja2.ext
        import jinja2.sandbox

        class Generation(jinja2.ext.Extension):
            """`{% generation %}` marks the answers for training: here its body alone counts."""

            tags = {"generation"}  # noqa: RUF012

            def parse(self, parser: Any) -> Any:
                next(parser.stream)
                return parser.parse_statements(("name:endgeneration",), drop_needle=True)

        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        self._error = jinja2.TemplateError
        self._special = dict(special)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ConfigError(f"chat template: {error}") from None

    def render(
        self, messages: Sequence[Message], *, generation_prompt: bool = True, **more: Any
    ) -> str:
        """The text of a conversation; `more` is handed to the template (tools, ...).

        Raises:
            ConfigError: the messages are none, or the template refuses them.
        """
        check_messages(messages)
        names = {"tools": None, "documents": None, "strftime_now": _clock(now())}
        names |= self._special | more
        try:
            return self._template.render(
                messages=list(messages), add_generation_prompt=generation_prompt, **names
            )
        except (self._error, TypeError, AttributeError) as error:
            raise ConfigError(f"chat template: {error}") from None

    def render_turn(
        self,
        messages: Sequence[Message],
        more: Mapping[str, Any] | None = None,
        begun: float | None = None,
    ) -> tuple[str, str]:
        """The text of a conversation, and what is put after it to ask for an answer; see `render`.

        Where a template tells a conversation only to ask, or otherwise, all is the first text.

        begun       the time that a template is told, see `now`; None = the present
        """
        more = {"strftime_now": _clock(now() if begun is None else begun), **(more or {})}
        if taken := OWN & more.keys():
            raise ConfigError(
                f"template_options has {', '.join(sorted(taken))}, which chat() says itself; "
                "leave it out"
            )
        whole = self.render(messages, **more)
        try:
            told = self.render(messages, **(more | {"generation_prompt": False}))
        except ConfigError:
            return whole, ""
        return (told, whole[len(told) :]) if whole.startswith(told) else (whole, "")


def now() -> float:
    """Seconds since 1970."""
    return datetime.datetime.now().timestamp()


def _clock(seconds: float) -> Callable[[str], str]:
    """`strftime_now` of a template at that time."""
    return datetime.datetime.fromtimestamp(seconds).strftime


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse what is no list of {"role": ..., "content": ...}."""
    if isinstance(messages, str) or not isinstance(messages, Sequence) or not messages:
        raise ConfigError(
            f"messages is {type(messages).__name__}, wanted a list with something in it, like "
            '[{"role": "user", "content": "Hello"}]'
        )
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ConfigError(
                f'messages[{i}] is {message!r}, wanted {{"role": ..., "content": ...}}'
            )


def load_template(tokenizer: Tokenizer) -> ChatTemplate:
    """The template of an artifact.

    Raises:
        ConfigError: the model has none.
    """
    source = tokenizer.chat_template
    if source is None:
        raise ConfigError(
            "this model has no chat template; use feed() and generate(), or put a "
            "chat_template.jinja beside the model and compile anew"
        )
    special = {name: text for name in SPECIAL if (text := tokenizer.special(name)) is not None}
    return ChatTemplate(source, special)


@dataclass(frozen=True)
class Conversation:
    """What a session holds of the conversation it is in.

    size, digest    characters and sha256 of the text before the prompt, as it was read
    prompt          what was put after the text to ask for the answer
    turn            tokens in the session before the prompt; None = not known
    answer          what was generated then
    eos             text of the token that ended the answer and is in the session too; None = the
                    answer was cut short
    end             tokens in the session behind the answer
    begun           when it was first rendered: a date in it stays the same from turn to turn
    """

    size: int
    digest: str
    prompt: str = ""
    turn: int | None = None
    answer: str = ""
    eos: str | None = None
    end: int | None = None
    begun: float = 0.0

    @classmethod
    def of(cls, told: str, prompt: str, turn: int | None, *, begun: float = 0.0) -> "Conversation":
        """The conversation after `prompt` has asked for an answer to `told`."""
        return cls(len(told), _digest(told), prompt, turn, begun=begun)

    def said(self, answer: str, eos: str | None, end: int) -> "Conversation":
        """The conversation after this answer."""
        return replace(self, answer=answer, eos=eos, end=end)

    def before_turn(self) -> "Conversation":
        """The conversation before the answer was asked for."""
        return replace(self, prompt="", answer="", eos=None, end=self.turn)

    def is_in(self, rendered: str) -> bool:
        """Whether this is the conversation, further on or not, and no other one."""
        return self._rest(rendered) is not None

    def is_retold(self, rendered: str) -> bool:
        """Whether it goes on from here, but the last answer does not stand there as it was read."""
        rest = self._rest(rendered)
        if rest is None:
            return False
        turn = rest.removeprefix(self.prompt)
        told = rest.startswith(self.prompt) and self._behind(turn, self.answer.strip()) is not None
        return not told or not turn

    def unread(self, rendered: str) -> str | None:
        """The part of a rendered conversation that is new; None if it is not this conversation.

        Templates may strip an answer or not, so spaces around it do not count. They may leave out
        what comes before </think>, and a thought that they begin in the prompt. Where the answer is
        not there at all, another one is wanted: then the prompt is what is new.
        """
        rest = self._rest(rendered)
        if rest is None or (rest == self.prompt and rest):
            return rest
        answers = (self.answer.strip(), self.answer.rpartition("</think>")[2].strip())
        for turn in self._turns(rest):
            for said in answers:
                if (new := self._behind(turn, said)) is not None:
                    return new
        return None

    def _turns(self, rest: str) -> Iterator[str]:
        """What may be the answer and all behind it: a prompt's thought may be there or not."""
        if rest.startswith(self.prompt):
            yield rest.removeprefix(self.prompt)
            return
        same = next(i for i, letter in enumerate(self.prompt) if rest[i : i + 1] != letter)
        thought = self.prompt.find("<think>")
        if thought >= 0:  # the answer may begin with the same letters
            yield from (rest[place:] for place in range(same, thought - 1, -1))

    def _behind(self, turn: str, said: str) -> str | None:
        """What follows an answer at the beginning of `turn`; None = it is not there."""
        if not said and not self.eos:
            return turn
        turn = turn.lstrip()
        if not turn.startswith(said):
            return None
        rest = turn.removeprefix(said)
        if not self.eos:
            return rest
        if rest.lstrip().startswith(self.eos):
            return rest.lstrip().removeprefix(self.eos)
        # A template may end answers in a way of its own; else this one is longer.
        return None if self.eos in rest or not said else rest

    def _rest(self, rendered: str) -> str | None:
        """What is told behind the text before the prompt; None = another conversation."""
        if _digest(rendered[: self.size]) != self.digest:
            return None
        return rendered[self.size :]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _tojson(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _raise_exception(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)
