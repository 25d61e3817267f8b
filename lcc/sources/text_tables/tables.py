"""The tokenizer of a model as tables, or why it has none."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcc.sources.text_tables.unfit import Unfit

log = logging.getLogger(__name__)

TABLES = "text.bin"


@dataclass(frozen=True)
class TextTables:
    """What goes into the artifact.

    files       text.bin -> its bytes; empty where there are no tables
    missing     why a tokenizer has no tables; None = it has, or there is no tokenizer
    """

    files: Mapping[str, bytes]
    missing: str | None = None


def text_tables(files: Mapping[str, bytes]) -> TextTables:
    """Compile the tokenizer among a model's files, and compare the tables with it.

    Args:
        files: name -> content, see `lcc.sources.models.LoadedModel`.

    Raises:
        ModelError: tokenizer.json cannot be read.
    """
    from lcc.sources.text_facts import TOKENIZER, read_tokenizer
    from lcc.sources.text_tables.build import build
    from lcc.sources.text_tables.compare import check

    if TOKENIZER not in files:
        return TextTables({})
    backend, template = read_tokenizer(files), template_source(files)
    try:
        data = build(backend, template)
        check(backend, data, template)
    except Unfit as reason:
        log.info("no %s: %s", TABLES, reason)
        return TextTables({}, str(reason))
    return TextTables({TABLES: data})


def template_source(files: Mapping[str, bytes]) -> str:
    """All chat templates, one after the other, as the Python runtime looks for words in them."""
    own = files.get("chat_template.jinja", b"").decode(errors="replace")
    page: Any = json.loads(files.get("tokenizer_config.json", b"{}"))
    found = own or (page.get("chat_template") if isinstance(page, dict) else None)
    if isinstance(found, list):
        pages = [each for each in found if isinstance(each, dict)]
        return "\0".join(dict.fromkeys(str(each.get("template")) for each in pages))
    return found if isinstance(found, str) else ""
