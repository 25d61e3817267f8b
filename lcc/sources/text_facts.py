"""What an artifact says of its model's text: ids and strings, read from the model's own files."""

import datetime
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lcc.artifact.schedule import Catalyst, TextFacts, Turns
from lcc.config import BEGINNING, BEGINNING_TOKENS
from lcc.errors import ConfigError, ModelError
from lcc.sources.chat_turns import Message, chat_turns, template_words

if TYPE_CHECKING:
    from lcc.passes.policies import EvictionPolicy

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
GENERATION_CONFIG = "generation_config.json"
TEMPLATE = "chat_template.jinja"

SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "…")
SECONDS = 20  # of the processor, to find out what a chat template does
CLOSING = " \"')]}»”’*_"  # may stand between the end of a sentence and that of its token


def text_facts(
    files: Mapping[str, bytes], *, vocab_size: int, catalyst: str | None, catalyst_size: int
) -> TextFacts:
    """What a runtime must know of the model's text.

    Args:
        files: name -> content, see `lcc.sources.models.LoadedModel`. Without tokenizer.json, only
            the ids that end an answer are known.
        vocab_size: token ids of the model, 0 to vocab_size - 1.
        catalyst: a text, or `lcc.config.BEGINNING`; None = the policy has none.
        catalyst_size: longest catalyst, in tokens.

    Raises:
        ConfigError: an id is not in the vocabulary, or the catalyst has no tokens or too many.
        ModelError: a file cannot be read.
    """
    if TOKENIZER not in files:
        return TextFacts(
            ends=_ends(files, None, vocab_size),
            catalyst=_catalyst(None, catalyst, vocab_size, catalyst_size),
        )
    backend = read_tokenizer(files)
    return TextFacts(
        prefix=_known(_prefix(backend), vocab_size, "what begins a text"),
        ends=_ends(files, backend, vocab_size),
        separator=_known(_encode(backend, "\n\n"), vocab_size, "an empty line"),
        special=_special(backend, vocab_size),
        stops=_stops(files),
        catalyst=_catalyst(backend, catalyst, vocab_size, catalyst_size),
        turns=_turns(files),
    )


def sentence_ends(files: Mapping[str, bytes], vocab_size: int) -> np.ndarray:
    """[vocab_size] bool: whether a sentence ends with the token.

    The token's text has a line end in it, or ends in punctuation, closing characters aside.

    Raises:
        ConfigError: the model has no tokenizer.
        ModelError: its tokenizer cannot be read.
    """
    if TOKENIZER not in files:
        raise ConfigError(
            f"the model has no {TOKENIZER} to tell where sentences end; choose another policy"
        )
    each = [[token] for token in range(vocab_size)]
    texts = read_tokenizer(files).decode_batch(each, skip_special_tokens=False)
    ends = ["\n" in text or text.rstrip(CLOSING).endswith(SENTENCE_ENDS) for text in texts]
    return np.array(ends, bool)


def sentence_ends_for(
    policy: "EvictionPolicy", name: str, files: Mapping[str, bytes], vocab_size: int
) -> np.ndarray | None:
    """[vocab_size] bool, where a policy reads sentences; None where it does not.

    Args:
        policy: the eviction policy.
        name: of the model.
        files: of the model, name -> content.
        vocab_size: token ids of the model, 0 to vocab_size - 1.

    Raises:
        ConfigError: the policy reads sentences, and the model has no tokenizer to tell them.
    """
    if not any(score.name == "sentence" for score in policy.scores):
        return None
    if TOKENIZER not in files:
        raise ConfigError(
            f"policy {policy.name} goes by sentences and {name} has no tokenizer to tell "
            "them; wanted another --policy, or a LoadedModel with tokenizer.json among its files"
        )
    return sentence_ends(files, vocab_size)


def read_tokenizer(files: Mapping[str, bytes]) -> Any:
    """The tokenizer of the library, which cuts and pads nothing.

    Raises:
        ModelError: the library cannot read it, or must not (`lcc.runtime.text.trial`).
    """
    from tokenizers import Tokenizer

    from lcc.runtime.text.trial import tried

    tried(files[TOKENIZER], TOKENIZER, ModelError)
    try:
        backend = Tokenizer.from_str(files[TOKENIZER].decode())
    except Exception as error:  # the library raises Exception itself
        raise ModelError(f"{TOKENIZER}: {error}") from None
    backend.no_truncation()
    backend.no_padding()
    return backend


def _page(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    """A JSON file; empty where there is none of that name."""
    try:
        page = json.loads(files.get(name, b"{}"))
    except ValueError as error:
        raise ModelError(f"{name}: {error}") from None
    if not isinstance(page, dict):
        raise ModelError(f"{name}: is {type(page).__name__}, wanted a JSON object")
    return page


def _encode(backend: Any, text: str) -> list[int]:
    """Ids of a text, without those that begin one; a lone surrogate becomes a question mark."""
    valid = text.encode("utf-8", "replace").decode()
    return list(backend.encode(valid, add_special_tokens=False).ids)


def _prefix(backend: Any) -> list[int]:
    """Ids that the tokenizer puts before a text, e.g. the beginning-of-sequence token."""
    plain, full = _encode(backend, "a"), list(backend.encode("a").ids)
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return full[:start]
    return []


def _known(ids: Sequence[int], vocab_size: int, what: str) -> tuple[int, ...]:
    """The ids, all of which must lie in the vocabulary."""
    for token in ids:
        if not 0 <= token < vocab_size:
            raise ConfigError(
                f"{what}: token {token} is not in the model's vocabulary, wanted 0 to "
                f"{vocab_size - 1}; compile the model with its own tokenizer and configuration"
            )
    return tuple(ids)


def _ends(files: Mapping[str, bytes], backend: Any, vocab_size: int) -> tuple[int, ...]:
    """Ids that end an answer: of generation_config.json, else the tokenizer's own."""
    value = _page(files, GENERATION_CONFIG).get("eos_token_id")
    where = f"{GENERATION_CONFIG}: eos_token_id"
    if value is None:
        where = f"{TOKENIZER_CONFIG}: eos_token"
        eos = _special_text(_page(files, TOKENIZER_CONFIG), "eos_token")
        value = None if backend is None or eos is None else backend.token_to_id(eos)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token) is int for token in ids):
        raise ConfigError(f"{where} is {value!r}, wanted a token id or a list of them")
    return _known(list(dict.fromkeys(ids)), vocab_size, where)


def _special_text(config: Mapping[str, Any], name: str) -> str | None:
    """A special token of tokenizer_config.json as text: bos_token, eos_token, ..."""
    value = config.get(name)
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _special(backend: Any, vocab_size: int) -> tuple[int, ...]:
    """Ids of control tokens, ascending; what the model does not know it never generates."""
    added = backend.get_added_tokens_decoder()
    return tuple(sorted(i for i, token in added.items() if token.special and i < vocab_size))


def _stops(files: Mapping[str, bytes]) -> tuple[str, ...]:
    value = _page(files, GENERATION_CONFIG).get("stop_strings")
    stops = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise ConfigError(
            f"{GENERATION_CONFIG}: stop_strings is {value!r}, wanted a text or a list of them"
        )
    return tuple(stops)


def _catalyst(
    backend: Any, catalyst: str | None, vocab_size: int, catalyst_size: int
) -> Catalyst | None:
    """The default catalyst, which must fit, or no session of the artifact could begin."""
    if catalyst is None:
        return None
    if catalyst_size < 1:
        raise ConfigError(
            f"catalyst_size is {catalyst_size}, the policy runs a catalyst prompt; wanted 1 or "
            "more: --catalyst-size"
        )
    if catalyst == BEGINNING:
        return Catalyst(beginning=BEGINNING_TOKENS)
    if backend is None:
        raise ConfigError(
            f"the catalyst is {catalyst!r} and the model has no {TOKENIZER} to read it with; "
            f"wanted {BEGINNING!r}"
        )
    ids = _encode(backend, catalyst)
    if not 0 < len(ids) <= catalyst_size:
        raise ConfigError(
            f"the catalyst has {len(ids)} tokens, wanted 1 to catalyst_size ({catalyst_size}); "
            "shorten the catalyst or raise --catalyst-size"
        )
    return Catalyst(ids=_known(ids, vocab_size, "the catalyst"))


def _template(files: Mapping[str, bytes], config: Mapping[str, Any]) -> str | None:
    """The source of the chat template: a file of its own, or a field of tokenizer_config.json."""
    try:
        source: Any = files.get(TEMPLATE, b"").decode() or config.get("chat_template")
    except UnicodeDecodeError as error:
        raise ModelError(f"{TEMPLATE}: {error}") from None
    if isinstance(source, list):  # several, by name
        pages = [entry for entry in source if isinstance(entry, dict)]
        source = {entry.get("name"): entry.get("template") for entry in pages}.get("default")
    return source if isinstance(source, str) else None


def _turns(files: Mapping[str, bytes]) -> Turns | None:
    """The chat template as pieces of text; None = there is none, or it is not regular."""
    from lcc.runtime.text.chat import ChatTemplate

    config = _page(files, TOKENIZER_CONFIG)
    source = _template(files, config)
    if source is None:
        return None
    names = [name for name in config if name.endswith("_token")]
    special = {name: text for name in names if (text := _special_text(config, name)) is not None}
    try:
        template = ChatTemplate(source, special)
    except ConfigError:  # chat() says so; the model can be used without it
        return None

    end = time.thread_time() + SECONDS

    def render(messages: list[Message], prompt: bool, when: float) -> str:
        if time.thread_time() > end:
            raise ConfigError(f"chat template: took more than {SECONDS} s for all it was tried on")
        clock = datetime.datetime.fromtimestamp(when).strftime
        return template.render(messages, generation_prompt=prompt, strftime_now=clock)

    return chat_turns(render, template_words(source))
