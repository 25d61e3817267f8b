"""Chat templates in the style of the families that are in use, cut into pieces."""

import datetime

import pytest

from lcc.artifact.schedule import Turns
from lcc.errors import ConfigError
from lcc.runtime.text.chat import ChatTemplate
from lcc.sources.chat_turns import Message, chat_turns, compose, template_words

ASK = "{% if add_generation_prompt %}"
LOOP = "{% for m in messages %}"
CHATML = (
    LOOP + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "" + ASK + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_DEFAULT = (
    "{% if messages[0].role != 'system' %}"
    "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}" + CHATML
)
HEADERS = (  # Llama 3
    "{{ bos_token }}" + LOOP + "<|start|>{{ m.role }}<|end|>\n\n{{ m.content | trim }}<|eot|>"
    "{% endfor %}" + ASK + "<|start|>assistant<|end|>\n\n{% endif %}"
)
PREAMBLE = (  # Llama 3.1, whose system message is never absent
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content.strip() %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ bos_token }}<|start|>system<|end|>\n\nKnows little.\n{{ system }}<|eot|>"
    "" + HEADERS.removeprefix("{{ bos_token }}")
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}" + LOOP + "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant take turns') }}{% endif %}"
    "{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' + m.content | trim"
    " + '</turn>\n' }}{% endfor %}" + ASK + "{{ '<turn>model\n' }}{% endif %}"
)
MERGED = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{% set first = messages[0].content + '\n\n' %}{% set messages = messages[1:] %}{% endif %}"
    "" + LOOP + "<turn>{{ m.role }}\n{{ first if loop.first }}{{ m.content }}</turn>\n{% endfor %}"
    "" + ASK + "<turn>assistant\n{% endif %}"
)
INST = (  # Mistral, which ignores add_generation_prompt
    "{{ bos_token }}" + LOOP + "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
INST_LAST = (  # the system message moves to the last turn
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content %}"
    "{% set messages = messages[1:] %}{% endif %}" + LOOP + "{% if m.role == 'user' %}[INST] "
    "{% if loop.last and system is defined %}{{ system }}\n\n{% endif %}{{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
TAGS = (  # Phi 3: an end of text where no answer is asked for
    LOOP + "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "" + ASK + "{{ '<|assistant|>\n' }}{% else %}{{ '<|endoftext|>' }}{% endif %}"
)
REASONING = (
    LOOP + "<|{{ m.role }}|>{{ m.content.split('</think>')[-1] if m.role == 'assistant'"
    " else m.content }}{% endfor %}" + ASK + "<|assistant|>{% endif %}"
)
EXPECTED = {
    "chatml": Turns(
        system=("<|im_start|>system\n", "<|im_end|>\n"),
        user=("<|im_start|>user\n", "<|im_end|>\n"),
        assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
        prompt="<|im_start|>assistant\n",
    ),
    "chatml_default": Turns(
        system=("<|im_start|>system\n", "<|im_end|>\n"),
        user=("<|im_start|>user\n", "<|im_end|>\n"),
        assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
        prompt="<|im_start|>assistant\n",
        default_system="Be kind.",
    ),
    "headers": Turns(
        begin="<s>",
        system=("<|start|>system<|end|>\n\n", "<|eot|>"),
        user=("<|start|>user<|end|>\n\n", "<|eot|>"),
        assistant=("<|start|>assistant<|end|>\n\n", "<|eot|>"),
        prompt="<|start|>assistant<|end|>\n\n",
        strip=True,
    ),
    "preamble": Turns(
        system=("<s><|start|>system<|end|>\n\nKnows little.\n", "<|eot|>"),
        user=("<|start|>user<|end|>\n\n", "<|eot|>"),
        assistant=("<|start|>assistant<|end|>\n\n", "<|eot|>"),
        prompt="<|start|>assistant<|end|>\n\n",
        default_system="",
        strip=True,
    ),
    "gemma": Turns(
        begin="<s>",
        user=("<turn>user\n", "</turn>\n"),
        assistant=("<turn>model\n", "</turn>\n"),
        prompt="<turn>model\n",
        strip=True,
    ),
    "inst": Turns(begin="<s>", user=("[INST] ", " [/INST]"), assistant=(" ", "</s>")),
    "tags": Turns(
        system=("<|system|>\n", "<|end|>\n"),
        user=("<|user|>\n", "<|end|>\n"),
        assistant=("<|assistant|>\n", "<|end|>\n"),
        prompt="<|assistant|>\n",
    ),
}
REGULAR = {
    "chatml": CHATML,
    "chatml_default": CHATML_DEFAULT,
    "headers": HEADERS,
    "preamble": PREAMBLE,
    "gemma": GEMMA,
    "inst": INST,
    "tags": TAGS,
}
IRREGULAR = {
    "system merged into the first turn": MERGED,
    "system moved to the last turn": INST_LAST,
    "earlier reasoning dropped": REASONING,
    "the date": "{{ strftime_now('%d %b %Y') }}" + CHATML,
    "the date, in a long conversation": CHATML.replace(
        "{% endfor %}", "{% if loop.index == 4 %}{{ strftime_now('%H') }}{% endif %}{% endfor %}"
    ),
    "refused in some years": "{% if strftime_now('%Y') > '2010' %}{{ raise_exception('old') }}"
    "{% endif %}" + CHATML,
    "raises for anything": "{{ raise_exception('no') }}",
    "raises what is no error of templates": "{{ 1 // 0 }}" + CHATML,
    "says nothing": "",
    "no answers": CHATML.replace(
        LOOP, LOOP + "{% if m.role == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
    ),
    "system dropped": CHATML.replace(LOOP, "{% for m in messages if m.role != 'system' %}"),
    "system refused before a single question": "{% if messages[0].role == 'system' and "
    "messages | length == 2 %}{{ raise_exception('no') }}{% endif %}" + CHATML,
    "newest turn marked": CHATML.replace("'<|im_end|>", "('!' if loop.last else '') + '<|im_end|>"),
    "turns numbered": CHATML.replace("m.role +", "m.role + loop.index | string +"),
    "only answers stripped": CHATML.replace(
        "m.content", "(m.content | trim if m.role == 'assistant' else m.content)"
    ),
    "stripped on the left": CHATML.replace("m.content", "m.content.lstrip()"),
    "empty contents left out": CHATML.replace(LOOP, "{% for m in messages if m.content %}"),
    "lines joined": CHATML.replace("m.content", "m.content.replace('\n', ' ')"),
    "other letters": CHATML.replace("m.content", "m.content | upper"),
    "escaped": CHATML.replace("m.content", "m.content | e"),
    "one user after another merged": CHATML.replace(
        "'<|im_start|>' + m.role",
        "('' if loop.previtem and loop.previtem.role == m.role else '<|im_start|>') + m.role",
    ),
}


def render_of(source: str):
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})

    def render(messages: list[Message], prompt: bool, when: float) -> str:
        clock = datetime.datetime.fromtimestamp(when).strftime
        return template.render(messages, generation_prompt=prompt, strftime_now=clock)

    return render


@pytest.mark.parametrize("family", REGULAR)
def test_regular_templates(family: str) -> None:
    source = REGULAR[family]
    assert chat_turns(render_of(source), template_words(source)) == EXPECTED[family]


@pytest.mark.parametrize("family", IRREGULAR)
def test_irregular_templates(family: str) -> None:
    render = render_of(IRREGULAR[family])
    if not family.startswith("raises"):
        shown = render([{"role": "user", "content": "Hi"}], True, 0.0)
        assert shown.upper().count("HI") == (family != "says nothing"), "refused: no test"
    assert chat_turns(render) is None


def test_what_a_template_looks_for_in_a_content_is_tried() -> None:
    source = CHATML.replace("m.content", "m.content.replace('/no_' + 'think', '')")
    assert chat_turns(render_of(source)) is not None, "the contents would do: no test of words"
    source = CHATML.replace("m.content", "m.content.replace('/no_think', '')")
    assert "/no_think" in template_words(source)
    assert chat_turns(render_of(source), template_words(source)) is None


def test_words_of_a_template() -> None:
    source = (
        "text 'no word'{# 'nor this' #}{{ 'a\\nb' }}{% if x == \"c\" or '' or 'c' %}{% endif %}"
    )
    assert template_words(source) == ["a\nb", "c"]


def test_the_default_system_message_may_be_empty() -> None:
    """It is written as such, which is not the same as none at all."""
    source = CHATML_DEFAULT.replace("Be kind.", "")
    turns = chat_turns(render_of(source))
    assert turns is not None
    assert turns.default_system == ""
    hello = [{"role": "user", "content": "Hi"}]
    assert compose(turns, hello, prompt=False) == (
        "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    )


def test_a_conversation_composed() -> None:
    turns = Turns(begin="B", system=("[", "]"), user=("(", ")"), assistant=("<", ">"), prompt="?")
    talk = [
        {"role": "system", "content": " s "},
        {"role": "user", "content": "u\n"},
        {"role": "assistant", "content": "{a}"},
    ]
    assert compose(turns, talk) == "B[ s ](u\n)<{a}>?"
    assert compose(turns, talk[1:2]) == "B(u\n)?"
    stripping = Turns(
        system=("[", "]"), user=("(", ")"), prompt="?", default_system=" d ", strip=True
    )
    assert compose(stripping, talk[:2]) == "[s](u)?"
    assert compose(stripping, talk[1:2], prompt=False) == "[ d ](u)"


@pytest.mark.parametrize(
    ("roles", "error"),
    [
        (["user", "system"], r"messages\[1\]: role is system; put the system message first"),
        (["tool"], r"messages\[0\]: role is tool, wanted one of system, user"),
        (["user", "assistant"], r"messages\[1\]: role is assistant, wanted one of system, user"),
        (["begin"], r"messages\[0\]: role is begin"),
    ],
)
def test_what_cannot_be_composed(roles: list[str], error: str) -> None:
    turns = Turns(begin="B", system=("[", "]"), user=("(", ")"))
    with pytest.raises(ConfigError, match=error):
        compose(turns, [{"role": role, "content": "x"} for role in roles])


def test_a_template_may_change_its_messages() -> None:
    """What a rendering does to them is gone by the next one."""
    inner = render_of(CHATML)

    def render(messages: list[Message], prompt: bool, when: float) -> str:
        text = inner(messages, prompt, when)
        for message in messages:
            message["content"] = "gone"
        return text

    assert chat_turns(render) == EXPECTED["chatml"]
