"""Messages to text, by the model's own chat template."""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from lcc.errors import ConfigError, first_line
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
        self._special = dict(special)
        try:
            self._template = environment.from_string(source)
        except Exception as error:  # a template is code of others
            raise _refusal(error) from None

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
        except Exception as error:  # a template is code of others
            raise _refusal(error) from None

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


def _refusal(error: Exception) -> ConfigError:
    """What a template says, or how its code fails, in one line."""
    import jinja2

    kind = "" if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: "
    return ConfigError(f"chat template: {kind}{first_line(error)}")


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


def _tojson(value: Any, indent: int | None = None, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _raise_exception(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)
