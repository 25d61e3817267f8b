"""`tokenizer.json` -> the bytes of `text.bin`."""

from __future__ import annotations

from typing import Any

import numpy as np

from lcc.sources.text_tables import layout
from lcc.sources.text_tables.described import Described, describe
from lcc.sources.text_tables.layout import NONE, Decode, Info, Kind, Model
from lcc.sources.text_tables.search_tree import added_tables
from lcc.sources.text_tables.step_tables import StepTables, Strings
from lcc.sources.text_tables.steps import Strip
from lcc.sources.text_tables.unfit import Unfit
from lcc.sources.text_tables.vocabulary import cuts, merge_tables, word_tables, words_of


def build(backend: Any, template: str = "") -> bytes:
    """The tables of a tokenizer.

    Args:
        backend: the library's tokenizer, without truncation and padding.
        template: source of the chat templates, one after the other.

    Raises:
        Unfit: it has a rule that the tables have no place for.
    """
    described = describe(backend.to_str())
    words = words_of(
        described,
        merged=lambda token: [each.id for each in backend.model.tokenize(token)],
        shown=backend.id_to_token,
    )
    strings = Strings()
    steps = StepTables(strings)
    steps.put(described.normalizer)
    steps.put(described.pre_tokenizer)
    normalize = backend.normalizer.normalize_str if backend.normalizer else str
    contents = [normalize(x.content) if x.normalized else x.content for x in described.added]
    strips = any(isinstance(each, Strip) for each in described.normalizer)
    sections = {
        **word_tables(words),
        **merge_tables(described),
        **steps.sections,
        **added_tables(described.added, contents, template, strips=strips),
    }
    sections[Kind.INFO, 0] = _info(described, steps, strings, len(words.flags))
    sections[Kind.STRINGS, 0] = strings.data
    return layout.file_bytes(sections)


def _info(described: Described, steps: StepTables, strings: Strings, ids: int) -> bytes:
    info = np.zeros(len(Info), np.uint32)
    decoding = described.decoding
    info[Info.IDS] = ids
    info[Info.MODEL] = (
        Model.IN_BYTES * described.in_bytes
        | Model.BYTE_FALLBACK * (described.byte_fallback and not described.in_bytes)
        | Model.FUSE_UNKNOWN * described.fuse_unknown
        | Model.CUTS * cuts(described)
        | Model.IGNORE_MERGES * described.ignore_merges
    )
    info[Info.UNKNOWN] = _unknown(described)
    info[Info.NORMALIZER_STEPS] = len(described.normalizer)
    info[Info.STEPS] = len(described.normalizer) + len(described.pre_tokenizer)
    info[Info.AUTOMATA], info[Info.FORMS] = len(steps.automata), len(steps.forms)
    info[Info.ADDED] = len(described.added)
    info[Info.LONGEST] = max(len(token.encode()) for token in described.vocabulary)
    info[Info.DECODING] = (
        Decode.IN_BYTES * decoding.in_bytes | Decode.DROP_FIRST * decoding.drop_first
    )
    info[Info.STRIP] = decoding.strip
    shown = decoding.replace or ("", "")
    info[Info.SHOWN_FROM], info[Info.SHOWN_FROM_SIZE] = strings.put(shown[0])
    info[Info.SHOWN_AS], info[Info.SHOWN_AS_SIZE] = strings.put(shown[1])
    return info.tobytes()


def _unknown(described: Described) -> int:
    if described.unknown is None:
        return NONE
    if described.unknown not in described.vocabulary:
        raise Unfit(f"model: unk_token {described.unknown!r} is no token")
    return described.vocabulary[described.unknown]
