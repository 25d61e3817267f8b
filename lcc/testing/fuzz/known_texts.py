"""Hostile tokenizers, chat templates and generation defaults."""

import json
from collections.abc import Callable
from typing import Any

from lcc.testing.fuzz.known_manifests import put
from lcc.testing.fuzz.mutant import Mutant

Change = Callable[[Mutant], None]
PAD = {"id": "<|pad|>", "ids": [259], "tokens": ["<|pad|>"]}


def _tokenizer(change: Callable[[dict[str, Any]], Any]) -> Change:
    """A changed tokenizer.json; `change` may return its text."""

    def go(mutant: Mutant) -> None:
        page = mutant.json_of("tokenizer.json")
        told = change(page)
        mutant.put("tokenizer.json", told if isinstance(told, str) else page)

    return go


def _normalizer(value: Any) -> Change:
    return _tokenizer(lambda page: page.update(normalizer=value))


def _first(step: dict[str, Any]) -> Change:
    """Something that cuts before the tokenizer's own steps."""

    def change(page: dict[str, Any]) -> None:
        own = page["pre_tokenizer"]
        page["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [step, own]}

    return _tokenizer(change)


def _split(pattern: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def _begun_by(ids: list[int], times: int = 1) -> Change:
    """What is put in front of every text."""
    token = {"SpecialToken": {"id": "<|pad|>", "type_id": 0}}
    texts = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    processor = {
        "type": "TemplateProcessing",
        "single": [token] * times + texts[:1],
        "pair": texts,
        "special_tokens": {"<|pad|>": PAD | {"ids": ids}},
    }
    return _tokenizer(lambda page: page.update(post_processor=processor))


def _deep(page: dict[str, Any]) -> str:
    inside = '{"type":"Sequence","normalizers":[' * 100_000 + "]}" * 100_000
    return json.dumps(page | {"normalizer": None}).replace(
        '"normalizer": null', f'"normalizer": {inside}'
    )


def _added(page: dict[str, Any]) -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    page["added_tokens"].append({"id": 2**32 - 1, "content": "zzz", "special": True, **flags})


def _charsmap(text: str) -> Change:
    return _normalizer({"type": "Precompiled", "precompiled_charsmap": text})


GROWTH = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
UNIGRAM = {"type": "Unigram", "unk_id": 2**40, "vocab": [["a", 0.0]]}
TOKENIZERS: dict[str, tuple[Change, bool]] = {
    "10^6 tokens": (
        _tokenizer(lambda p: p["model"]["vocab"].update({f"t{i}": i for i in range(260, 10**6)})),
        False,
    ),
    "ids of 2^31": (
        _tokenizer(lambda p: p["model"]["vocab"].update({"zz": 2**31, "a": 2**32 - 1})),
        False,
    ),
    "an added id of 2^32 - 1": (_tokenizer(_added), False),
    "10^5 deep": (_tokenizer(_deep), False),
    "text that grows by 10^12": (
        _normalizer({"type": "Sequence", "normalizers": [GROWTH] * 12}),
        False,
    ),
    "a pattern that tries everything": (_first(_split(r"([a-zA-Z .,;?0-9]+)+\x01")), False),
    "a pattern that is none": (_first(_split("((((")), False),
    "10^6 tokens in front": (_begun_by([259], 10**6), False),
    "a beginning beyond the vocabulary": (_begun_by([99_999]), False),
    "a beginning of 10^9": (_begun_by([10**9]), False),
    "a table of letters, damaged": (_charsmap("AAAAAAAAAAAA"), False),
    "a table of letters of 2^32": (_charsmap("/////////w=="), False),
    "no decoder": (_tokenizer(lambda page: page.update(decoder=None)), False),
    "an unknown token beyond the model": (_tokenizer(lambda p: p.update(model=UNIGRAM)), False),
}
LOOPS = "".join(f"{{% for {x} in range(99999) %}}" for x in "ijk") + "{% endfor %}" * 3
DOUBLING = (
    "{% set ns = namespace(a='x') %}{% for i in range(60) %}{% set ns.a = ns.a + ns.a %}"
    "{% endfor %}"
)
REFUSED_TEMPLATES = (
    *("{{ ''.__class__.__mro__ }}", "{{ raise_exception.__globals__ }}"),
    *("{{ strftime_now.__self__.__class__ }}", "{{ cycler.__init__.__globals__ }}"),
    *("{{ self._TemplateReference__context }}", "{{ raise_exception.func_code }}"),
    *("{{ lipsum.__globals__['os'].popen('id').read() }}", "{{ messages.append(1) }}"),
    *("{{ ('{0.__class__.__mro__}'|attr('format'))(1) }}", "{{ messages[0].update(a=1) }}"),
    *("{% include '/etc/passwd' %}", "{% import 'os' as x %}", "{% extends '/etc/passwd' %}"),
    *("{{ range(10**9)|join }}", LOOPS, "{{ 'x' * 10**10 }}", DOUBLING),
    "{{ 'x' * 1000000 }}",  # little to make, and long to read
    *("{% set n = messages|length %}{{ ('x' * (n * 10**10))|length }}",),
    *("{{ '%2000000000d'|format(1) }}", "{{ 'x'|center(2000000000) }}"),
    *("{{ 'x'|indent(2000000000, true) }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    *("{{ 1/0 }}", "{% set n = messages|length %}{{ 1 // (n - 1) }}", "{{ {}['a']['b'] }}"),
    *("{{ messages[5]['content'] }}", "{{ 'a'.index('b') }}"),
    *("{{ strftime_now('\\ud83d') }}",),
    *("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{% debug %}"),
    *("{% for i in [1] %}" * 200 + "{% endfor %}" * 200, "{{ cycler().next() }}"),
    *("{% if 1 %}" * 1500 + "{% endif %}" * 1500, "{{ messages|tojson(cls=raise_exception) }}"),
)
OTHER_TEMPLATES = (
    *("{{ ''.__class__ }}", "{{ ''|attr('__class__') }}", "{{ namespace.__init__ }}", ""),
    *("{{ [messages]|map(attribute='__class__')|list }}", "{{ messages|groupby('__class__') }}"),
    *("{{ '{0.__class__}'.format(messages) }}", "{{ '{a.__class__}'.format_map({'a': 1}) }}"),
    *("{% set messages[0]['content'] = 1 %}", "{{ messages|tojson(default=raise_exception) }}"),
    *("{{ 10**10**8 }}", "{{ '\\ud83d' }}", "{{ strftime_now('%Y' * 10000000)|length }}"),
    *("{% set n = messages|length + 9 %}{{ (n**n**9)|string|length }}",),
    *("{{ cycler|tojson(default=cycler) }}", "{{ (10**(10**8))|string|length }}"),
)
TEMPLATES: dict[str, tuple[Change, bool]] = {
    **{text[:60]: (put("chat_template.jinja", text), True) for text in REFUSED_TEMPLATES},
    **{text[:60] or "empty": (put("chat_template.jinja", text), False) for text in OTHER_TEMPLATES},
}


def _templates(value: Any) -> Change:
    """Templates where tokenizer_config.json has them."""

    def go(mutant: Mutant) -> None:
        (mutant.folder / "chat_template.jinja").unlink()
        del mutant.page["files"]["chat_template.jinja"]
        page = mutant.json_of("tokenizer_config.json")
        mutant.put("tokenizer_config.json", page | {"chat_template": value})

    return go


ODD_TEMPLATES: tuple[Any, ...] = ([{"name": "default"}], [1], {"default": "x"}, None, 5, [[]])
ODD_TOKENS: tuple[Any, ...] = ({"content": 5}, [1], 7, {}, "\ud800")
TEMPLATES |= {f"chat_template {each!r}": (_templates(each), False) for each in ODD_TEMPLATES}
TEMPLATES |= {
    f"bos_token {each!r}"[:60]: (put("tokenizer_config.json", {"bos_token": each}), False)
    for each in ODD_TOKENS
}
NAN, INFINITY = float("nan"), float("inf")
ODD_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "eos_token_id": ({"a": 1}, [[1]], "x", [{}], 2**80, -1, 1.5, [None], True),
    "max_new_tokens": (10**18, 1.5, True, -1, "x"),
    "temperature": (NAN, INFINITY, 1e-320, -1, "x"),
    "top_p": (NAN, -1.0, 2.0, "x"),
    "top_k": (2**70, -1, 0.5, "x"),
    "repetition_penalty": (INFINITY, NAN, 1e-320, 0, -1, "a"),
    "do_sample": ([1], "x", {}),
}
GENERATION: dict[str, tuple[Change, bool]] = {
    f"{key} {value!r}": (put("generation_config.json", {"do_sample": True, key: value}), False)
    for key, values in ODD_DEFAULTS.items()
    for value in values
}
