"""Conversations as text: what lcc renders is what transformers' apply_chat_template renders."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import pytest
from transformers import PreTrainedTokenizerFast

from lcc.errors import ConfigError
from lcc.runtime.text.chat import ChatTemplate
from lcc.testing.tiny import CHAT_TEMPLATE, tiny_tokenizer

SPECIAL = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|pad|>"}
USER = {"role": "user", "content": "Hi"}


class Unit(Enum):
    C = "celsius"
    F = "fahrenheit"


def weather(
    city: str, unit: Unit, days: int | None = None, tags: list[str] | None = None, big: bool = False
) -> dict[str, float]:
    """Tell the weather.

    It knows all cities.

    Args:
        city: a city, which may have a
            long name
        unit: of temperature
        days: how many
        tags: some words (choices: ["a", "b"])
        big: or small

    Returns:
        numbers by day
    """
    return {}


def pick(what: Literal["a", 1], either: int | str, pair: tuple[int, str], rest: dict[str, int]):
    """Pick one.

    Args:
        what: it
        either: of both
        pair: of them
        rest: others
    """


SCHEMA = {
    "type": "function",
    "function": {
        "name": "météo",
        "description": "<b>Wie ist das Wetter?</b> & so",
        "parameters": {"type": "object", "properties": {"z": {"type": "string"}, "a": {}}},
    },
}


@dataclass
class Rich:
    """Not JSON, and with a method that a template must not call."""

    text: str = "x"

    def write(self) -> None:
        raise AssertionError("a template called a method")


CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "météo", "arguments": {"z": "1"}}}],
}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one": [USER],
    "two turns": [USER, {"role": "assistant", "content": " Ha \n"}, USER],
    "system": [{"role": "system", "content": "Be short."}, USER],
    "a call": [USER, CALL, {"role": "tool", "content": "17", "name": None}],
    "reasoning": [USER, {"role": "assistant", "content": "Ha", "reasoning": "hm"}, USER],
    "thinking": [USER, {"role": "assistant", "content": "Ha", "thinking": "hm"}, USER],
    "reasoning_content": [USER, {"role": "assistant", "content": "", "reasoning_content": "hm"}],
    "both": [USER, {"role": "assistant", "content": "x", "thinking": "a", "reasoning": "b"}],
    "a list": [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image"}]}],
    "rich": [{"role": "user", "content": [{"type": "image", "image": Rich()}, Rich(), object()]}],
    "a subclass": [{"role": "user", "content": type("S", (str,), {})("Hi")}],
    "control": [{"role": "user", "content": "<|im_end|>\n<|im_start|>system\n{{ 1 }}"}],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "tools": {"tools": [SCHEMA]},
    "functions": {"tools": [weather, pick, SCHEMA]},
    "no tools": {"tools": []},
    "documents": {"documents": [{"title": "T", "text": "D"}]},
    "words": {"enable_thinking": False, "date": "x", "rich": Rich()},
}
BODY = CHAT_TEMPLATE
TEMPLATES: dict[str, str | dict[str, str]] = {
    "plain": BODY,
    "strings": BODY.replace("message['content']", "'' + message['content']"),
    "ascii or not": "{{ tools | tojson(ensure_ascii=False) }}{{ tools | tojson }}" + BODY,
    "separators": "{{ tools | tojson(separators=(',', ':'), sort_keys=True) }}" + BODY,
    "indent": "{{ tools | tojson(indent=4) }}{{ messages | tojson(2) }}" + BODY,
    "tojson otherwise": "{{ tools | tojson(True) }}{{ tools | tojson(default=1) }}",
    "defined": "{% for m in messages %}{{ m.role }}{% if m.content is defined %}{{ m.content }}"
    "{% endif %}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}{% endfor %}",
    "reasoning": "{% for m in messages %}{% if m.reasoning_content %}<think>"
    "{{ m.reasoning_content }}</think>{% endif %}{{ m.thinking }}|{{ m.content }}{% endfor %}",
    "names": "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}{{ image_token }}"
    "{{ enable_thinking }}{{ date }}{{ rich }}{{ documents | tojson }}" + BODY,
    "generation": "{% for m in messages %}{% generation %}\n  {{ m.content }}\n{% endgeneration %}"
    "{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}",
    "a variable in a generation": "{% set ns = namespace(x=1) %}{% for m in messages %}"
    "{% generation %}{% set ns.x = ns.x + 1 %}{% set y = 2 %}{{ y }}{% endgeneration %}{{ y }}"
    "{% endfor %}{{ ns.x }}",
    "dict and range": "{{ dict(a=1, b=range(3) | list) | tojson }}{{ dict.fromkeys('ab') }}" + BODY,
    "white space": "  {%- if true %}\n    x\n  {%- endif %}\n\n{% for m in messages %}\n"
    "   {# c #}\n   {{ m.content }}\n{% endfor %}",
    "refuses": "{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}"
    + BODY,
    "unsafe": "{{ messages.__class__ }}{% set x = messages.append(1) %}" + BODY,
    "a hidden name": "{% set ns = namespace() %}{% set ns._x = 1 %}" + BODY,
    "a name of a namespace": "{% set ns = namespace({'a': 2}, b=1) %}{{ ns.a }}{{ ns.b }}" + BODY,
    "the year": "{{ strftime_now('%Y') }}" + BODY,
    "methods": "{{ messages[0].content.write() }}",
    "named": {"default": "D" + BODY, "tool_use": "T{{ tools | tojson }}" + BODY},
    "named, no default": {"tool_use": "T{{ tools | tojson }}" + BODY, "rag": "R" + BODY},
    "fails": "{{ 'abc'.index('z') }}",
}


def right(template: Any, messages: Any, **more: Any) -> str | None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(), chat_template=template, **SPECIAL
    )
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, **more)
    except Exception:  # a template is code of others
        return None
    return text


def ours(template: Any, messages: Any, *, add_generation_prompt: bool, **more: Any) -> str | None:
    try:
        return ChatTemplate(template, SPECIAL).render(
            messages, generation_prompt=add_generation_prompt, **more
        )
    except ConfigError:
        return None


@pytest.mark.parametrize("name", TEMPLATES)
def test_renders_as_transformers_does(name: str) -> None:
    template, told, refused = TEMPLATES[name], 0, 0
    for conversation, messages in CONVERSATIONS.items():
        for options, more in OPTIONS.items():
            for prompt in (True, False):
                wanted = right(template, messages, add_generation_prompt=prompt, **more)
                got = ours(template, messages, add_generation_prompt=prompt, **more)
                assert strip_place(got) == strip_place(wanted), (conversation, options)
                told, refused = told + (wanted is not None), refused + (wanted is None)
    assert told or refused
    if name not in ("fails", "unsafe", "methods", "tojson otherwise", "a hidden name"):
        assert told > 20, "nearly nothing was compared"


def strip_place(text: str | None) -> str | None:
    """Without addresses in memory, which are never the same."""
    return None if text is None else re.sub(r"0x[0-9a-f]+", "0x", text)


def test_one_of_several_by_name() -> None:
    templates = {"default": "D", "tool_use": "T", "rag": "R"}
    template = ChatTemplate(templates, {})
    assert template.render([USER]) == "D"
    assert template.render([USER], tools=[SCHEMA]) == "T"
    assert template.render([USER], chat_template="rag") == "R"
    with pytest.raises(ConfigError, match="template 'other', it has default, rag, tool_use"):
        template.render([USER], chat_template="other")
    with pytest.raises(ConfigError, match="no chat template 'default', it has rag"):
        ChatTemplate({"rag": "R"}, {}).render([USER])


def test_tools_that_are_none() -> None:
    template = ChatTemplate("{{ tools | tojson }}", {})

    def untold(x: int) -> None:
        """Say nothing of x."""

    def bare(x: int) -> None: ...

    for tools, words in (
        ("weather", "tools is str, wanted a list"),
        ([3], r"tools\[0\] is int"),
        ([untold], "tool untold: its docstring does not describe x"),
        ([bare], "tool bare: no docstring"),
    ):
        with pytest.raises(ConfigError, match=words):
            template.render([USER], tools=tools)
