"""Perplexity of the end of a text: the model's own where nothing is evicted."""

import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import lcc.runtime
from lcc.cli import app
from lcc.errors import LccError
from lcc.evaluate.perplexity import last_tokens, pieces
from lcc.tiny import tiny_model

SENTENCES = [f"Sentence {number} says {'so ' * (number % 7)}much." for number in range(90)]


def test_perplexity_is_the_models(tiny_artifact: Path) -> None:
    session = lcc.runtime.load(tiny_artifact)
    ids = pieces(session, SENTENCES, 60, samples=1)[0]
    with torch.no_grad():
        logits = tiny_model("llama")(torch.tensor([ids])).logits[0]
    wanted = torch.nn.functional.cross_entropy(logits[39:-1], torch.tensor(ids[40:]))
    assert last_tokens(session, ids, 20) == pytest.approx(math.exp(wanted), rel=1e-4)
    with pytest.raises(LccError, match="count is 60, wanted fewer tokens"):
        last_tokens(session, ids, 60)


def test_pieces_are_texts_of_their_own(tiny_artifact: Path) -> None:
    session = lcc.runtime.load(tiny_artifact)
    texts = pieces(session, SENTENCES, 5000, samples=3)
    assert [len(ids) for ids in texts] == [5000] * 3
    assert len({tuple(ids[:50]) for ids in texts}) == 3
    assert texts == pieces(session, SENTENCES, 5000, samples=3)


def test_command(tiny_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(" ".join(SENTENCES))
    flags = ["--haystack", str(tmp_path), "--samples", "2", "--length"]
    for task in ("niah_multikey_1", "niah_multikey_2"):
        arguments = ["evaluate", str(tiny_artifact), "--task", task, *flags, "900"]
        result = CliRunner().invoke(app, [*arguments, "--question-first"])
        assert result.exit_code == 0, result.output
        pages = [json.loads(line) for line in result.stdout.splitlines()]
        assert [500 < page["tokens"] <= 900 for page in pages] == [True, True]
    arguments = ["evaluate", str(tiny_artifact), "--task", "perplexity", *flags, "700"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    values = [json.loads(line)["perplexity"] for line in result.stdout.splitlines()]
    assert len(values) == 2
    mean = math.exp(sum(map(math.log, values)) / 2)
    assert f"{mean:.2f}" in result.stderr
    result = CliRunner().invoke(app, ["evaluate", str(tiny_artifact), "--task", "x", *flags, "9"])
    assert "wanted --task niah_single_1, niah_single_2" in result.output
