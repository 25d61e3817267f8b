"""The tokenizer that a GGUF file describes, in the form of tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lcc.errors import ModelError, first_line
from lcc.sources.from_gguf.pre_tokenizers import SPLITS, Split

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
MARK = "\u2581"  # what SentencePiece writes for a space


@dataclass(frozen=True)
class Vocabulary:
    """What a file says of its tokens.

    kinds   NORMAL, CONTROL, ..., of each token
    scores  of each token; None = the file has none
    merges  of two tokens, by a space; None = the file has none
    begin   ids put before a text
    end     ids put after a text
    unknown id of the token for what is no other; None = there is none
    """

    tokens: Sequence[str]
    kinds: Sequence[int]
    scores: Sequence[float] | None
    merges: Sequence[str] | None
    begin: Sequence[int] = ()
    end: Sequence[int] = ()
    unknown: int | None = None


def byte_level(words: Vocabulary, split: Split) -> Any:
    """Byte-level BPE: every byte is a printable letter, and the file has the merges."""
    from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers

    if words.merges is None:
        raise ModelError("tokenizer.ggml.merges is missing, and gpt2 is a tokenizer of merges")
    pairs = [tuple(merge.split(" ", 1)) for merge in words.merges]
    tokenizer = Tokenizer(_bpe(words.tokens, pairs, ignore_merges=split.ignore_merges))
    if split.composed:
        tokenizer.normalizer = normalizers.NFC()
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns]
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, whole])
    tokenizer.decoder = decoders.ByteLevel()
    return _finished(tokenizer, words)


def sentencepiece(
    words: Vocabulary, *, space_first: bool, by_order: bool, strips_after: bool
) -> Any:
    """SentencePiece BPE: spaces are marked, unknown letters are bytes, merges follow from scores.

    space_first     a text, and what follows a control token, begins with a space
    by_order        tokens were merged in the order of their ids, whatever their scores say
    strips_after    control tokens take the white space that follows them
    """
    from tokenizers import Tokenizer, decoders, normalizers

    tokens = [_spelled(token, kind) for token, kind in zip(words.tokens, words.kinds, strict=True)]
    unknown = None if words.unknown is None else tokens[words.unknown]
    pairs = _merges(tokens, words, by_order=by_order)
    tokenizer = Tokenizer(_bpe(tokens, pairs, byte_fallback=True, fuse_unk=True, unk_token=unknown))
    marked: list[Any] = [normalizers.Replace(" ", MARK)]
    shown: list[Any] = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if space_first:
        marked.insert(0, normalizers.Prepend(MARK))
        shown.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(marked)
    tokenizer.decoder = decoders.Sequence(shown)
    return _finished(tokenizer, words, strips_after=strips_after)


def split_of(name: str | None) -> Split:
    """The split of that name.

    Raises:
        ModelError: the file has no name, or one that is not in the table.
    """
    if name is None:
        raise ModelError(
            "no field tokenizer.ggml.pre, which says how a text is split before merging; convert "
            "the model again with a newer llama.cpp"
        )
    if name not in SPLITS:
        raise ModelError(
            f"tokenizer.ggml.pre is {name!r}, a split that lcc does not know; it knows "
            f"{', '.join(sorted(SPLITS))}"
        )
    return SPLITS[name]


def _bpe(tokens: Sequence[str], pairs: Sequence[Any], **options: Any) -> Any:
    from tokenizers import models

    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        twice = next(token for i, token in enumerate(tokens) if vocabulary[token] != i)
        raise ModelError(f"tokenizer.ggml.tokens: {twice!r} is there twice")
    try:
        return models.BPE(vocab=vocabulary, merges=list(pairs), **options)
    except Exception as error:  # the library raises Exception itself
        raise ModelError(f"tokenizer.ggml.merges: {first_line(error)}") from None


def _spelled(token: str, kind: int) -> str:
    """Files write runs of spaces as such; merging knows them by their marks."""
    blank = len(token) > 1 and not token.strip(" ")
    return MARK * len(token) if blank and kind in (NORMAL, USER_DEFINED) else token


def _merges(tokens: Sequence[str], words: Vocabulary, *, by_order: bool) -> list[Any]:
    """The pairs whose union is a token, the most probable union first."""
    if words.merges is not None:
        return [tuple(merge.split(" ", 1)) for merge in words.merges]
    if words.scores is None:
        raise ModelError("tokenizer.ggml.scores is missing, and merges follow from them")
    places = {
        token: i
        for i, (token, kind) in enumerate(zip(tokens, words.kinds, strict=True))
        if kind in (NORMAL, USER_DEFINED, UNUSED)
    }
    found = []
    for token, i in places.items():
        rank = i if by_order else -words.scores[i]
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in places and right in places:
                found.append((rank, places[left], places[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _finished(tokenizer: Any, words: Vocabulary, *, strips_after: bool = False) -> Any:
    """Control tokens, and what begins and ends a text."""
    from tokenizers import AddedToken, processors

    control, other = [], []
    for token, kind in zip(words.tokens, words.kinds, strict=True):
        if kind in (CONTROL, UNKNOWN):
            strips = strips_after and token not in ("<s>", "<unk>", "<|endoftext|>")
            control.append(AddedToken(token, normalized=False, special=True, rstrip=strips))
        elif kind == USER_DEFINED and token.strip(" "):
            other.append(AddedToken(token, normalized=False, special=False))
    tokenizer.add_special_tokens(control)
    tokenizer.add_tokens(other)
    if words.begin or words.end:
        around = [words.tokens[i] for i in (*words.begin, *words.end)]
        names = [*around[: len(words.begin)], "$A", *around[len(words.begin) :]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=names,
            pair=[*names, "$B"],
            special_tokens=list(zip(around, [*words.begin, *words.end], strict=True)),
        )
    return tokenizer
