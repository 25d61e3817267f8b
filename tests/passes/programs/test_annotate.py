"""The program `annotate` against loops over one token after the other."""

import random
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from lcc.ir.program import Program
from lcc.passes.policies.entry_scores import AGREED, NLL, NOISE, SENTENCE
from lcc.passes.programs.annotate import annotate_program

ROWS = 81  # slots and one more
ENDS = torch.zeros(50, dtype=torch.bool)
ENDS[[7, 13]] = True  # tokens that end a sentence
MODULUS = 1 << 24


def sentences(ids: Sequence[int], first: int) -> list[int]:
    """Where the sentence of each token of a text begins, and that of the next one; from `first` on.

    One token after the other: a sentence ends with a token that says so, or after 64 tokens.
    """
    begins, begin, length = [], first, 0
    for place, token in enumerate(ids):
        if length == 64:
            begin, length = first + place, 0
        begins.append(begin % MODULUS)
        length += 1
        if ENDS[token]:
            begin, length = first + place + 1, 0
    if length == 64:
        begin = first + len(ids)
    return [*begins, begin % MODULUS]


@pytest.fixture(scope="module")
def annotate() -> Program:
    program = annotate_program([AGREED, NLL, SENTENCE], ENDS, rows=ROWS)
    assert program is not None
    return program


def text(count: int, seed: int, ends: float) -> list[int]:
    draw = random.Random(seed)
    return [
        draw.choice((7, 13)) if draw.random() < ends else draw.randrange(6) for _ in range(count)
    ]


def log(ids: Sequence[int], kept: int) -> Tensor:
    """The ids of the newest tokens in rows kept .. kept + n - 1; garbage elsewhere."""
    rows = torch.where(torch.arange(ROWS) % 3 == 0, 13, 1)
    rows[kept : kept + len(ids)] = torch.tensor(ids)
    return rows


def numbers(used: int, kept: int, read: int) -> dict[str, Tensor]:
    return {
        "used": torch.tensor([used], dtype=torch.int32),
        "kept": torch.tensor([kept], dtype=torch.int32),
        "tokens_read": torch.tensor([read]),
    }


@pytest.mark.parametrize("ends", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("first", [0, 1000, MODULUS - 100, 3 * MODULUS - 20])
@pytest.mark.parametrize("kept", [0, 20])
def test_sentences_over_many_cycles(
    annotate: Program, call: Callable[..., dict], ends: float, first: int, kept: int
) -> None:
    """A text in pieces: what each cycle leaves in row `used` is where the next one begins.

    The text may begin anywhere: `first` is where a saved state, or the reader, says that it is.
    """
    ids = text(300, seed=kept + 1, ends=ends)
    wanted, got = sentences(ids, first), []
    sentence = torch.full((ROWS,), 99.0)
    sentence[kept] = float(first % MODULUS)
    read = 0
    for count in (1, 59, 2, 37, 60, 50, 31, 60):
        piece, used = ids[read : read + count], kept + count
        read += count
        sentence[kept + 1 :] = 99.0  # of these nothing is known yet
        given = {"ids": log(piece, kept), "nll": torch.zeros(ROWS), "sentence": sentence}
        out = call(annotate, **given, **numbers(used, kept, first + read))["sentence_out"]
        assert out.shape == (ROWS,)
        got += out[kept:used].tolist()
        sentence[kept] = out[used]
    assert got == wanted[:-1]
    assert sentence[kept] == wanted[-1]


def test_spelled_out(annotate: Program, call: Callable[..., dict]) -> None:
    """Five slots were kept; the sentence of the token in the sixth began three tokens before it."""
    sentence = torch.zeros(ROWS)
    sentence[5] = 97.0
    given = {"ids": log([1, 7, 2, 2, 13, 13, 3], 5), "nll": torch.zeros(ROWS), "sentence": sentence}
    out = call(annotate, **given, **numbers(12, 5, 107))["sentence_out"]
    assert out[5:13].tolist() == [97, 97, 102, 102, 102, 105, 106, 106]


def test_the_first_token_of_a_text_has_no_likelihood(
    annotate: Program, call: Callable[..., dict]
) -> None:
    """Only where it is among the new ones: behind a cycle nothing is at position 0."""
    nll = torch.arange(ROWS).float() + 1
    given = {"ids": log([1] * 30, 0), "sentence": torch.zeros(ROWS), "nll": nll}
    out = call(annotate, **given, **numbers(30, 0, 30))["nll_out"]
    assert out[0] == 1e30
    assert torch.equal(out[1:30], nll[1:30])
    out = call(annotate, **given, **numbers(30, 10, 200))["nll_out"]
    assert torch.equal(out[:30], nll[:30])


def test_what_nobody_reads_is_not_made() -> None:
    assert annotate_program([NOISE, AGREED], None, rows=ROWS) is None
    one = annotate_program([NLL], None, rows=ROWS)
    assert one is not None
    assert one.names == ("annotate",)
    assert one.input_names == ["ids", "used", "kept", "tokens_read", "nll"]
    assert one.output_names == ["nll_out"]
    assert one.updates == {"nll_out": "nll"}
    both = annotate_program([SENTENCE, NLL], ENDS, rows=ROWS)  # always in the same order
    assert both is not None
    assert both.output_names == ["nll_out", "sentence_out"]
