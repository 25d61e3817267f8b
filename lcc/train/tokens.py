"""Texts and conversations -> token ids, and which of them a model should learn to write."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lcc.errors import ConfigError
from lcc.sources.models import LoadedModel, encoder
from lcc.sources.text_facts import read_tokenizer
from lcc.sources.text_files import SPECIAL_TOKENS
from lcc.train.documents import Encode
from lcc.train.recipe import Recipe

Render = Callable[[list[Any], bool], str]


def encoders(loaded: LoadedModel, recipe: Recipe) -> dict[str, Encode]:
    """How documents of kind `text` and `chat` become tokens.

    Raises:
        ConfigError: the model has no tokenizer, or not the token that the recipe wants between
            texts; and, when a conversation is met, no chat template.
    """
    encode = encoder(loaded)
    page = json.loads(loaded.files.get("tokenizer_config.json", b"{}"))
    before: list[int] = []
    after: list[int] = []
    if recipe.boundary != "none":
        name = f"{recipe.boundary}_token"
        if name not in page:
            raise ConfigError(
                f"{loaded.name} has no {name}, which the recipe wants between texts (boundary); "
                "wanted bos, eos or none"
            )
        boundary = encode(page[name])
        before, after = (boundary, []) if recipe.boundary == "bos" else ([], boundary)

    def text(document: Any) -> tuple[list[int], list[bool]]:
        if document is None:  # a row without a text
            return [], []
        if not isinstance(document, str):
            raise ConfigError(f"a text is {document!r:.60}, wanted a string")
        ids = [*before, *encode(document), *after]
        return ids, [True] * len(ids)

    render = _template(loaded, page)

    def chat(document: Any) -> tuple[list[int], list[bool]]:
        ids: list[int] = []
        learned: list[bool] = []
        for part, is_answer in answers(render, document):
            tokens = encode(part)
            ids += tokens
            learned += [is_answer] * len(tokens)
        return ids, learned

    return {"text": text, "chat": chat}


def _template(loaded: LoadedModel, page: dict[str, str]) -> Render:
    """The model's own chat template."""
    from transformers import PreTrainedTokenizerFast

    template = loaded.files.get("chat_template.jinja")
    names = {name: page[name] for name in SPECIAL_TOKENS if name in page}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=read_tokenizer(loaded.files),
        chat_template=template.decode() if template else None,
        **names,
    )

    def render(messages: list[Any], generation_prompt: bool) -> str:
        if template is None:
            raise ConfigError(f"{loaded.name} has no chat template, and chats need one")
        try:
            text: str = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation_prompt
            )
        except Exception as error:  # jinja's, and whatever a malformed message leads to
            raise ConfigError(f"chat template: {error}") from None
        return text

    return render


def answers(render: Render, messages: Any) -> list[tuple[str, bool]]:
    """A conversation as its template writes it, in parts: those that the model answers, and others.

    render      messages, whether the model is to answer now -> text

    Raises:
        ConfigError: no conversation; or the template changes what it wrote when the conversation
            goes on, as those do that drop earlier thoughts, so that it cannot be learned at once.
    """
    if not (isinstance(messages, list) and messages and all("role" in each for each in messages)):
        raise ConfigError(
            f'a chat is {messages!r:.60}, wanted a list like [{{"role": "user", "content": "Hi"}}]'
        )
    parts: list[tuple[str, bool]] = []
    whole = render(messages, False)
    done = 0
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = render(messages[:i], True) if i else ""
        written = render(messages[: i + 1], False)
        if not (written.startswith(prompt) and whole.startswith(written) and len(prompt) >= done):
            raise ConfigError(
                f"chat template: it writes message {i} differently when the conversation goes on, "
                "so its answers cannot be told from the rest"
            )
        parts += [(whole[done : len(prompt)], False), (whole[len(prompt) : len(written)], True)]
        done = len(written)
    parts.append((whole[done:], False))
    return [part for part in parts if part[0]]
