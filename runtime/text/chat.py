"""Messages to text, by the model's own chat template."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lcc.errors import ConfigError, first_line
from lcc.runtime.text.bounds import TemplateLimitError
from lcc.runtime.text.jinja import Template, compiled, plain
from lcc.runtime.text.tokenizer import Tokenizer
from lcc.runtime.text.tools import schemas

Message = Mapping[str, Any]
OWN = {"messages", "generation_prompt", "add_generation_prompt"}  # no options of a template
# Names that a message's reasoning goes by; templates read the first one.
REASONING = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """A jinja template, or several by name, rendered as `apply_chat_template` renders them."""

    def __init__(self, source: str | Mapping[str, str], special: Mapping[str, str]) -> None:
        """`special`: bos_token, eos_token, ... as text."""
        sources = {"default": source} if isinstance(source, str) else dict(source)
        self._special = dict(special)
        self._templates = {name: _compiled(name, each) for name, each in sources.items()}

    def render(
        self,
        messages: Sequence[Message],
        *,
        generation_prompt: bool = True,
        strftime_now: Callable[[str], str] | None = None,
        **more: Any,
    ) -> str:
        """The text of a conversation; `more` is handed to the template (tools, ...).

        Of several templates, `chat_template` names one; else it is that for tools where there are
        tools, else the default one.

        Raises:
            ConfigError: the messages are none, or the template refuses them.
        """
        check_messages(messages)
        name = self._chosen(more.pop("chat_template", None), more.get("tools"))
        names: dict[str, Any] = {"documents": None, **self._special}
        names |= {key: plain(value) for key, value in more.items()}
        names |= {"tools": schemas(more.get("tools"))}
        names["strftime_now"] = strftime_now or _clock(now())
        names["messages"] = [_told(message) for message in messages]
        names["add_generation_prompt"] = generation_prompt
        try:
            return self._templates[name].render(names)
        except Exception as error:  # a template is code of others
            raise _refusal(name, error) from None

    def _chosen(self, name: Any, tools: Any) -> str:
        if name is None:
            name = "tool_use" if tools is not None and "tool_use" in self._templates else "default"
        if name not in self._templates:
            raise ConfigError(
                f"the model has no chat template {name!r}, it has "
                f"{', '.join(sorted(self._templates))}; name one: chat_template in template_options"
            )
        return str(name)

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


def _compiled(name: str, source: str) -> Template:
    try:
        return compiled(source)
    except Exception as error:  # a template is code of others
        raise _refusal(name, error) from None


def _refusal(name: str, error: Exception) -> ConfigError:
    """What a template says, how its code fails, or what it takes too much of, in one line."""
    import jinja2

    which = "chat template" if name == "default" else f"chat template {name!r}"
    if isinstance(error, TemplateLimitError):
        return TemplateLimitError(f"{which}: {error}; render it yourself, if you trust it")
    kind = "" if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: "
    return ConfigError(f"{which}: {kind}{first_line(error)}")


def _told(message: Message) -> dict[str, Any]:
    """A message as a template sees it: nothing that is None, reasoning under the usual names."""
    told: dict[str, Any] = {key: plain(each) for key, each in message.items() if each is not None}
    thought = next((told[name] for name in REASONING if told.get(name) is not None), None)
    if thought is None:
        return told
    return {"thinking": thought, **told, "reasoning_content": thought}


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
    if not source:
        raise ConfigError(
            "this model has no chat template; use feed() and generate(), or put a "
            "chat_template.jinja beside the model and compile anew"
        )
    return ChatTemplate(source, tokenizer.special_tokens)
