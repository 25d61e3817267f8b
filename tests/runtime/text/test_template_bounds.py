"""Chat templates of strangers take no more steps, memory or time than their input is worth."""

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcc.errors import ConfigError
from lcc.runtime.text import bounds
from lcc.runtime.text.bounds import TemplateLimitError
from lcc.runtime.text.chat import ChatTemplate
from lcc.sources import text_facts as facts_module
from lcc.sources.text_facts import text_facts
from lcc.testing.tiny import VOCAB_SIZE, tiny_tokenizer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory: Linux")
HELLO = [{"role": "user", "content": "Hello"}]
MANY = "{% for i in range(99999) %}"
NESTED = "{% set ns = namespace(a=['x']) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}"

TOO_MUCH = {
    "three loops": (MANY * 3 + "{% endfor %}" * 3, "takes more than [0-9,]+ steps"),
    "loops that choose": (
        MANY + "{% for i in range(99999) if false %}{% endfor %}{% endfor %}",
        "steps",
    ),
    "a filter in loops": (MANY + "{{ [1]|first }}" * 9 + "{% endfor %}", "steps|bytes"),
    "letters": ("{{ 'x' * 10**10 }}", "makes more than [0-9,]+ bytes"),
    "letters at run time": (
        "{% set n = messages|length %}{{ ('x' * (n * 10**10))|length }}",
        "bytes",
    ),
    "a text doubled": (
        "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}"
        "{% endfor %}",
        "bytes",
    ),
    "a text joined to itself": (
        "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}"
        "{% endfor %}",
        "bytes",
    ),
    "lists within lists": (NESTED + "{% endfor %}", "steps"),
    "a literal text": (MANY + "x" * 5_000 + "{% endfor %}", "bytes"),
    "a literal text in a macro": (
        "{% macro f() %}" + MANY + "x" * 5_000 + "{% endfor %}{% endmacro %}{{ f() }}",
        "bytes",
    ),
    "a literal text in a block": (
        "{% set y %}" + MANY + "x" * 5_000 + "{% endfor %}{% endset %}",
        "bytes",
    ),
    "lists of one list": (
        "{% set a = [messages] * 9999 %}{% set b = [a] * 9999 %}{{ b }}",
        "bytes",
    ),
    "sums of lists": (
        "{% set ns = namespace(a=[messages]) %}{% for i in range(40) %}"
        "{% set ns.a = ns.a + [ns.a] %}{% endfor %}{{ ns.a }}",
        "bytes|steps",
    ),
    "replace": ("{% set x = 'x' * 9999 %}{{ x.replace('x', x) }}", "bytes"),
    "replace, a filter": ("{% set x = 'x' * 9999 %}{{ x|replace('x', x) }}", "bytes"),
    "join": ("{% set x = 'x' * 99999 %}{{ x.join(range(999)|map('string')) }}", "bytes"),
    "join, a filter": ("{% set x = 'x' * 99999 %}{{ range(999)|join(x) }}", "bytes"),
    "a field": ("{{ '%2000000000d'|format(1) }}", "a field of more than 100,000 characters"),
    "a field's width": ("{{ '%*d' % (2000000000, 1) }}", "a field of more than"),
    "fields": ("{{ ('%99999d' * 999)|format(*range(999)) }}", "bytes"),
    "a field of str": ("{{ '{:2000000000}'.format(1) }}", "a field of more than"),
    "a field in a field": ("{{ '{:{}}'.format(1, 2000000000) }}", "a field of more than"),
    "center": ("{{ 'x'|center(2000000000) }}", "characters"),
    "center, a method": ("{{ 'x'.center(2000000000) }}", "bytes"),
    "zfill": ("{{ 'x'.zfill(2000000000) }}", "bytes"),
    "indent": ("{{ 'x'|indent(2000000000, true) }}", "characters"),
    "lines indented": ("{{ ('x\n' * 99999)|indent(9999) }}", "bytes"),
    "JSON indented": ("{{ ([1] * 99999)|tojson(indent=9999) }}", "bytes"),
    "batches": ("{{ [1]|batch(2000000000, 'x')|list }}", "characters"),
    "words": ("{{ ('ab ' * 999999).split()|length }}", "bytes"),
    "letters in a list": ("{{ ('中' * 999999)|list|length }}", "bytes"),
    "expandtabs": ("{{ '\t'.expandtabs(2000000000) }}", "calls expandtabs of a str"),
    "format_map": ("{{ '{a:2000000000}'.format_map({'a': 1}) }}", "calls format_map of a str"),
    "to_bytes": ("{{ (1).to_bytes(2000000000, 'big') }}", "calls to_bytes of a int"),
    "sum of lists": ("{{ [[1]]|sum(start=[]) }}", "sums lists"),
    "a power": ("{% set n = 10 %}{{ n**(n**8) }}", "a number of more than 4,096 bits"),
    "a power of constants": ("{{ 10**(10**8) }}", "a number of more than"),
    "a long number": (
        "{% set ns = namespace(a=9) %}{% for i in range(99) %}{% set ns.a = ns.a * ns.a %}"
        "{% endfor %}",
        "a number of more than",
    ),
    "statements in statements": ("{% if 1 %}" * 200 + "{% endif %}" * 200, "nests more than 50"),
    "a long source": ("x" * 99_999, "has 99,999 characters, more than 65,536"),
    "a long text": ("{{ 'x' * 99999 }}", "a text of 99,999 characters, more than 7[0-9],[0-9]+"),
    "a long time": ("{{ strftime_now('%Y' * 10000000) }}", "bytes"),
}


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    """What is not refused must not take the memory of the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + (256 << 20), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_takes_too_much_is_refused(name: str) -> None:
    source, words = TOO_MUCH[name]
    start = time.thread_time()
    with pytest.raises(TemplateLimitError, match=f"chat template 'other': .*({words})"):
        ChatTemplate({"other": source}, {}).render(HELLO, chat_template="other")
    assert time.thread_time() - start < 10


@pytest.mark.parametrize(
    "source",
    [
        "{{ range(10**9)|join }}",
        "{{ cycler().next() }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ strftime_now('\\ud83d') }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ lipsum.__globals__ }}",
        "{{ messages|pprint }}",
        "{% include '/etc/passwd' %}",
        "{{ messages|tojson(default=raise_exception) }}",
        "{{ ''|attr('__class__')|attr('mro') }}{{ 'x'.encode() }}",
        "{{ 1|lcc made }}",
    ],
)
def test_what_fails_is_one_line(source: str) -> None:
    with pytest.raises(ConfigError, match=r"^chat template: "):
        ChatTemplate(source, {}).render(HELLO)


def test_a_single_step_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SECONDS", -1.0)
    with pytest.raises(TemplateLimitError, match="takes more than -1 s"):
        ChatTemplate(MANY + "{% endfor %}", {}).render(HELLO)


def test_a_long_conversation_is_rendered() -> None:
    source = (
        "{% set ns = namespace(text='', seen=[]) %}{% for m in messages %}"
        "{% if loop.index0 == messages|length - 1 and m in messages[-2:] %}last: {% endif %}"
        "{{ '%-9s' % m.role }}{{ m['content']|trim ~ '\n' }}{% set ns.seen = ns.seen + [m.role] %}"
        "{{ ['a', 'b']|join(',') }} {{ 'a,b'.split(',')|map('upper')|list }} {{ {'a': 1}|tojson }}"
        "{{ '{:>3}'.format(loop.index) }} {{ 'x'.join(['1', '2']) }} "
        "{{ m.content.replace('H', 'J') }}"
        "{% endfor %}{{ ns.seen|length }}"
    )
    talk = HELLO * 1_500
    text = ChatTemplate(source, {}).render(talk)
    assert text.startswith("user     Hello\na,b ['A', 'B'] {\"a\": 1}  1 1x2 Jello")
    assert text.endswith("last: user     Hello\na,b ['A', 'B'] {\"a\": 1}1500 1x2 Jello1500")
    book = [{"role": "user", "content": "A long line.\n" * 200_000}]
    assert len(ChatTemplate(source, {}).render(book)) > 5_000_000


def test_tools_and_dates_are_not_in_the_way() -> None:
    tools = [{"type": "function", "function": {"name": f"f{i}", "parameters": {"a": [1, 2]}}}
             for i in range(200)]  # fmt: skip
    source = (
        "{% for t in tools %}{{ t|tojson(indent=4) }}{% endfor %}{{ strftime_now('%d %B %Y') }}"
    )
    text = ChatTemplate(source, {}).render(HELLO, tools=tools)
    assert text.startswith(json.dumps(tools[0], indent=4))
    assert ChatTemplate("{{ '%d' % 1700000000 }}", {}).render(HELLO) == "1700000000"


def test_compiling_a_template_that_takes_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    def turns(source: str) -> object:
        files = {
            "tokenizer.json": tiny_tokenizer().to_str().encode(),
            "chat_template.jinja": source.encode(),
        }
        return text_facts(files, vocab_size=VOCAB_SIZE, catalyst=None, catalyst_size=0).turns

    regular = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    assert turns(regular) is not None
    assert turns(MANY * 3 + "{% endfor %}" * 3) is None
    monkeypatch.setattr(facts_module, "SECONDS", -1)
    assert turns(regular) is None
