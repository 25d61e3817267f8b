"""Texts cut in the middle, as the benchmarks do for models of a short window."""

import dataclasses
from collections.abc import Callable

from lcc.errors import LccError
from lcc.measure.evaluate.sample import Sample


def truncate(
    sample: Sample,
    tokens: int,
    encode: Callable[[str], list[int]],
    decode: Callable[[list[int]], str],
) -> Sample:
    """Keep the first and the last half of text and question together, and count the tokens.

    Args:
        sample: is returned as it is, but counted, where it is short enough.
        tokens: of text, question and the beginning of the answer, at most. LongBench and
            InfiniteBench count so; room for the answer comes on top.
        encode: text to token ids, by the model's tokenizer.
        decode: the way back.
    """
    ids, asked = encode(sample.context), len(encode(sample.asked))
    first, last = tokens // 2, tokens - tokens // 2 - asked
    if last < 0:
        least = 2 * asked - 1
        raise LccError(f"tokens is {tokens}, wanted {least} or more: the question has {asked}")
    if len(ids) > first + last:
        context = decode(ids[:first]) + decode(ids[len(ids) - last :])
        sample = dataclasses.replace(sample, context=context)
        ids = encode(context)
    return dataclasses.replace(sample, tokens=len(ids))
