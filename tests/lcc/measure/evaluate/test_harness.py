"""The harness' own numbers on a tiny artifact, against those of the model that was compiled."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm_eval is not installed: extra harness")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

import lcc.runtime
from lcc.errors import LccError
from lcc.measure.evaluate.harness import ArtifactLM
from lcc.testing.tiny import tiny_model

TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list: [{metric: acc}]
"""
DOCUMENTS = [
    {"question": f"Question {i}: which?", "choices": [" one", " two", " three"], "label": i % 3}
    for i in range(4)
]


@pytest.fixture
def model(tiny_artifact: Path) -> ArtifactLM:
    return ArtifactLM(str(tiny_artifact))


def requests(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=each, idx=i)
        for i, each in enumerate(arguments)
    ]


def expected(ids: list[int], first: int) -> tuple[float, bool]:
    """Log-probability of the ids from `first` on, by the model itself; and whether it is greedy."""
    with torch.no_grad():
        logits = tiny_model("llama")(torch.tensor([ids])).logits[0].double()
    each = logits.log_softmax(-1)[range(first - 1, len(ids) - 1), ids[first:]]
    return float(each.sum()), logits.argmax(-1)[first - 1 : -1].tolist() == ids[first:]


def test_loglikelihood_is_the_models(model: ArtifactLM) -> None:
    context = model.tok_encode("What is it?")
    greedy = context + list(model.session.generate_ids(context, max_new_tokens=4, eos=[]))
    pairs = [("What is it?", " This"), ("What is it?", " That one"), ("Who?", " Ann")]
    asked = requests("loglikelihood", *pairs, ("", "Ann"))
    found = model.loglikelihood(asked, disable_tqdm=True)
    for (before, after), got in zip(pairs, found, strict=False):
        ids = model.tok_encode(before + after)
        wanted = expected(ids, len(model.tok_encode(before)))
        assert got == (pytest.approx(wanted[0], rel=1e-4), wanted[1])
    assert found[3][0] == pytest.approx(expected([258, *b"Ann"], 1)[0], rel=1e-4)
    assert model._loglikelihood_tokens([(None, context, greedy[len(context) :])])[0][1] is True


def test_a_context_is_read_once(model: ArtifactLM, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    feed = model.session.feed

    def watched(ids: list[int], **options: Any) -> int:
        fed.append(len(ids))
        return feed(ids, **options)

    monkeypatch.setattr(model.session, "feed", watched)
    first = model.loglikelihood(requests("loglikelihood", ("Where", " ab"), ("Where", " cd")), True)
    assert fed == [5, 1, 1, 1, 1], "nothing is asked after an answer's last token"
    asked = [("a" * 100, "b" * length) for length in (9, 9, 60, 60)]
    second = model.loglikelihood(requests("loglikelihood", *asked), True)
    assert fed.count(100) == 2, "the third answer makes it evict: for the fourth it is read again"
    assert second[0][0] == pytest.approx(second[1][0], rel=1e-5)
    assert second[2][0] == pytest.approx(second[3][0], rel=1e-5)
    assert first == model.loglikelihood(
        requests("loglikelihood", ("Where", " ab"), ("Where", " cd")), True
    )


def test_rolling_is_the_models(model: ArtifactLM) -> None:
    (found,) = model.loglikelihood_rolling(
        requests("loglikelihood_rolling", ("Some words.",)), True
    )
    assert found == pytest.approx(expected([258, *b"Some words."], 1)[0], rel=1e-4)


def test_generation_stops(model: ArtifactLM, tiny_artifact: Path) -> None:
    whole = "".join(lcc.runtime.open(tiny_artifact).generate("Tell me", max_new_tokens=20))
    assert len(whole) > 3
    options = {"until": [], "max_gen_toks": 20, "do_sample": False}
    until = {**options, "until": [whole[2]]}
    found = model.generate_until(
        requests("generate_until", ("Tell me", options), ("Tell me", until)), True
    )
    assert found == [whole, whole[: whole.index(whole[2])]]
    says = {"do_sample": True, "temperature": 50.0, "repetition_penalty": 3.0}
    model.session.tokenizer.generation_config |= says
    asked = [("Tell me", {**unsaid, "max_gen_toks": 20}) for unsaid in ({}, {"top_p": 1.0})]
    assert model.generate_until(requests("generate_until", *asked), True) == [whole, whole]
    penalty = ("Tell me", {**options, "repetition_penalty": 50.0})
    assert model.generate_until(requests("generate_until", penalty), True) != [whole]
    wrong = requests("generate_until", ("Tell me", {"num_beams": 3}))
    with pytest.raises(LccError, match="generation options: num_beams; wanted until, do_sample"):
        model.generate_until(wrong, True)


def test_chat_template(model: ArtifactLM) -> None:
    asked = [{"role": "user", "content": "Hi"}]
    assert model.apply_chat_template(asked) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    begun = [*asked, {"role": "assistant", "content": "It is"}]
    assert model.apply_chat_template(begun, add_generation_prompt=False).endswith(
        "<|im_start|>assistant\nIt is"
    )


def test_batches_are_refused(tiny_artifact: Path) -> None:
    with pytest.raises(LccError, match=r"^batch_size is 8, wanted 1"):
        ArtifactLM(str(tiny_artifact), batch_size=8)
    with pytest.raises(LccError, match=r"^max_batch_size is 8, wanted 1"):
        ArtifactLM(str(tiny_artifact), max_batch_size=8)
    assert ArtifactLM(str(tiny_artifact), batch_size="1", max_batch_size=1)


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a task of its own, data beside it; the data sets' cache is there, too."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data.json"
    data.write_text("\n".join(map(json.dumps, DOCUMENTS)))
    (tmp_path / "tiny_choice.yaml").write_text(TASK.replace("DATA", str(data)))
    return tmp_path


def test_a_task_of_the_harness(tiny_artifact: Path, tasks: Path) -> None:
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    results = lm_eval.simple_evaluate(
        model="lcc",
        model_args=f"artifact={tiny_artifact},threads=1",
        tasks=["tiny_choice"],
        task_manager=manager,
        bootstrap_iters=0,
    )
    right = 0
    for document in DOCUMENTS:
        before = list(document["question"].encode())
        scores = [
            expected([*before, *choice.encode()], len(before))[0] for choice in document["choices"]
        ]
        right += scores.index(max(scores)) == document["label"]
    assert results["results"]["tiny_choice"]["acc,none"] == pytest.approx(right / len(DOCUMENTS))
    samples = results["samples"]["tiny_choice"]
    assert len(samples) == 4
    assert math.isfinite(float(samples[0]["filtered_resps"][0][0]))


@pytest.mark.slow
def test_command(tiny_artifact: Path, tasks: Path) -> None:
    command = [sys.executable, "-m", "lcc.measure.evaluate.harness", "run", "--model", "lcc"]
    command += ["--model_args", f"artifact={tiny_artifact}", "--tasks", "tiny_choice"]
    command += ["--include_path", str(tasks), "--batch_size", "1"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "tiny_choice" in result.stdout
