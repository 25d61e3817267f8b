"""`tokenizer.json` read strictly: every field is used, known to change no ids, or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcc.sources.text_tables.page import Page
from lcc.sources.text_tables.steps import Step, normalizer_steps, pre_tokenizer_steps
from lcc.sources.text_tables.unfit import Unfit

LIMIT = 1 << 22  # ids


@dataclass(frozen=True)
class Added:
    """A token that is found in the text itself."""

    id: int
    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


@dataclass(frozen=True)
class Decoding:
    """How the texts of tokens become one text.

    in_bytes    tokens are bytes, and invalid ones become U+FFFD; else they are text
    replace     a text, and what is shown in its place
    strip       spaces that go at the beginning of all
    drop_first  the first token loses all of `replace[0]` (Metaspace)
    """

    in_bytes: bool
    replace: tuple[str, str] | None = None
    byte_fallback: bool = False
    strip: int = 0
    drop_first: bool = False


@dataclass(frozen=True)
class Described:
    """A tokenizer of merges (BPE).

    in_bytes        words are merged from bytes; else from letters
    merges          pairs of tokens, the first to be merged first
    normalizer, pre_tokenizer   steps before merging
    """

    vocabulary: Mapping[str, int]
    merges: list[tuple[str, str]]
    in_bytes: bool
    byte_fallback: bool
    ignore_merges: bool
    fuse_unknown: bool
    unknown: str | None
    normalizer: list[Step]
    pre_tokenizer: list[Step]
    added: list[Added]
    decoding: Decoding


def describe(page: str) -> Described:
    """What the library's own writing of a tokenizer says.

    Raises:
        Unfit: names what the tables have no place for.
    """
    whole = Page(json.loads(page), "tokenizer.json")
    whole.skip("version", "truncation", "padding", "post_processor")
    normalizer = normalizer_steps(whole.take("normalizer", dict, None))
    pre_tokenizer, in_bytes = pre_tokenizer_steps(whole.take("pre_tokenizer", dict, None))
    decoding = _decoding(whole.take("decoder", dict, None), in_bytes=in_bytes)
    added = [_added(each) for each in whole.take("added_tokens", list)]
    model = Page(whole.take("model", dict), "model")
    whole.done()
    kind = model.take("type", str)
    if kind != "BPE":
        raise Unfit(f"model is of type {kind}, wanted BPE")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        model.need(name, None, "")
    described = Described(
        vocabulary=model.take("vocab", dict),
        merges=[_pair(each) for each in model.take("merges", list)],
        in_bytes=in_bytes,
        byte_fallback=model.take("byte_fallback", bool),
        ignore_merges=model.take("ignore_merges", bool),
        fuse_unknown=model.take("fuse_unk", bool),
        unknown=model.take("unk_token", str, None),
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        added=added,
        decoding=decoding,
    )
    model.done()
    ids = [*described.vocabulary.values(), *(each.id for each in added)]
    if not ids or not all(isinstance(i, int) and 0 <= i < LIMIT for i in ids):
        raise Unfit(f"the vocabulary is empty or has an id that is not in 0 to {LIMIT - 1}")
    return described


def _pair(value: Any) -> tuple[str, str]:
    pair = value.split(" ") if isinstance(value, str) else value
    if not isinstance(pair, list) or len(pair) != 2:
        raise Unfit(f"model: a merge is {value!r}, wanted a pair")
    return pair[0], pair[1]


def _added(value: Any) -> Added:
    page = Page(value, "added_tokens")
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    added = Added(
        page.take("id", int),
        page.take("content", str),
        **{name: page.take(name, bool) for name in flags},
    )
    page.done()
    return added


def _decoding(value: Any, *, in_bytes: bool) -> Decoding:
    if value is None:
        raise Unfit("decoder is absent, and so words would be joined by spaces")
    kinds = _decoders(value)
    names = [kind for kind, _ in kinds]
    if names == ["ByteLevel"]:
        return Decoding(in_bytes=True)
    if in_bytes:
        raise Unfit(f"decoder is {', '.join(names)}, and words are merged from bytes")
    replace, strip, fallback, drop_first = None, 0, False, False
    for kind, page in kinds:
        if names.count(kind) > 1:
            raise Unfit(f"decoder has {kind} twice")
        if kind == "Replace" and names.index(kind) == 0:
            inner = Page(page.take("pattern", dict), "decoder: pattern")
            replace = (inner.take("String", str), page.take("content", str))
            inner.done()
            if not replace[0]:
                raise Unfit("decoder: Replace of an empty text")
        elif kind == "Metaspace" and names == ["Metaspace"]:
            replace = (page.take("replacement", str), " ")
            drop_first = page.take("prepend_scheme", str, "always") != "never"
            page.skip("split")
        elif kind == "ByteFallback" and "Fuse" in names[names.index(kind) :]:
            fallback = True
        elif kind == "Fuse":
            pass
        elif kind == "Strip" and names[-2:] == ["Fuse", "Strip"]:
            page.need("content", " ")
            page.need("stop", 0)
            strip = page.take("start", int)
        else:
            raise Unfit(f"decoder is {', '.join(names)}, an order that the tables cannot keep")
        page.done()
    return Decoding(False, replace, fallback, strip, drop_first)


def _decoders(value: Any) -> list[tuple[str, Page]]:
    page = Page(value, "decoder")
    kind = page.take("type", str)
    if kind != "Sequence":
        if kind == "ByteLevel":
            page.skip("add_prefix_space", "trim_offsets", "use_regex")
            page.done()
        return [(kind, page)]
    found = [each for part in page.take("decoders", list) for each in _decoders(part)]
    page.done()
    return found
