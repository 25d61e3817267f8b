"""Heads learn, go on after a stop as if there had been none, and in two processes as in one."""

import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lcc.capture.export import capture
from lcc.cli import app
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import ConfigError
from lcc.measure.verify import verify
from lcc.passes.find_attention import FindAttention
from lcc.sources.heads import RetainingHeads, load_heads
from lcc.sources.models import LoadedModel, load_model
from lcc.testing.tiny import save_tiny, tiny_model
from lcc.train import heads as training
from lcc.train.compare import compare
from lcc.train.examples import Example, read_examples, split
from lcc.train.heads import Step, train_heads
from lcc.train.trainer import HeadsConfig, Trainer

CONFIG = HeadsConfig(
    width=8, length=64, steps=6, warmup_steps=0, learning_rate=1e-2, every=3, validation=0.2
)


captured_once = functools.cache(capture)


@pytest.fixture(autouse=True)
def _capture_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same module again and again: two or three seconds each time."""
    monkeypatch.setattr(training, "capture", captured_once)


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> LoadedModel:
    return load_model(tiny_folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "text.txt"
    file.write_text("".join(f"{i} times {i + 1} is {i * (i + 1)}. " for i in range(90)))
    return file


def weights(heads: RetainingHeads) -> torch.Tensor:
    return torch.cat([w.flatten() for pair in heads.layers.values() for w in pair])


def test_heads_learn(loaded: LoadedModel, data: Path, tmp_path: Path) -> None:
    config = HeadsConfig(
        width=16, length=64, steps=60, warmup_steps=5, learning_rate=2e-2, validation=0.2
    )
    steps: list[Step] = []
    result = train_heads(loaded, data, tmp_path / "h", config, progress=steps.append)
    assert set(result) == {"heads", "untrained heads", "knorm", "keydiff", "recency"}
    assert result["heads"] > result["untrained heads"] + 0.1
    assert sum(s.loss for s in steps[-5:]) < 0.5 * sum(s.loss for s in steps[:5])
    heads = load_heads(tmp_path / "h")
    assert "60 steps of 1" in heads.page.trained_on
    lines = [json.loads(line) for line in (tmp_path / "h.log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 61))
    assert lines[49]["overlap"] is not None
    assert not (tmp_path / "h.checkpoint").exists()


class Stopped(Exception):
    pass


def test_a_stopped_training_goes_on(loaded: LoadedModel, data: Path, tmp_path: Path) -> None:
    train_heads(loaded, data, tmp_path / "whole", CONFIG)

    def stop(step: Step) -> None:
        if step.step == 4:
            raise Stopped

    with pytest.raises(Stopped):
        train_heads(loaded, data, tmp_path / "parts", CONFIG, progress=stop)
    assert not (tmp_path / "parts").exists()
    other = HeadsConfig(width=8, length=64, steps=7)
    with pytest.raises(ConfigError, match="another configuration, model or data"):
        train_heads(loaded, data, tmp_path / "parts", other, resume=True)
    with pytest.raises(ConfigError, match="a training was stopped here; --resume goes on from it"):
        train_heads(loaded, data, tmp_path / "parts", CONFIG)
    steps: list[Step] = []
    train_heads(loaded, data, tmp_path / "parts", CONFIG, resume=True, progress=steps.append)
    assert [step.step for step in steps] == [4, 5, 6]  # the checkpoint is of step 3
    lines = (tmp_path / "parts.log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    whole, parts = (weights(load_heads(tmp_path / name)) for name in ("whole", "parts"))
    assert torch.equal(whole, parts)
    with pytest.raises(ConfigError, match="finished already, the heads are there; to train"):
        train_heads(loaded, data, tmp_path / "parts", CONFIG, resume=True)


def test_a_checkpoint_of_something_else_is_refused(
    loaded: LoadedModel, data: Path, tmp_path: Path
) -> None:
    def stop(step: Step) -> None:
        if step.step == 3:
            raise Stopped

    out, others = tmp_path / "h", tmp_path / "others.txt"
    others.write_text("Something else. " * 90)
    with pytest.raises(ConfigError, match="no such checkpoint; begin without --resume"):
        train_heads(loaded, data, out, CONFIG, resume=True)
    with pytest.raises(Stopped):
        train_heads(loaded, data, out, CONFIG, progress=stop)
    with pytest.raises(ConfigError, match="another configuration, model or data"):
        train_heads(loaded, others, out, CONFIG, resume=True)
    other_model = LoadedModel(tiny_model("llama", seed=1), "m", "llama", 512, loaded.files)
    with pytest.raises(ConfigError, match="another configuration, model or data"):
        train_heads(other_model, data, out, CONFIG, resume=True)
    (tmp_path / "h.checkpoint").write_text("junk")
    with pytest.raises(ConfigError, match="not a checkpoint"):
        train_heads(loaded, data, out, CONFIG, resume=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"learning_rate": -1.0}, "learning_rate is -1.0, wanted more than 0"),
        ({"smoothing": -1.0}, "smoothing is -1.0, wanted 0 or more"),
        ({"validation": 0.9}, "validation is 0.9, wanted 0 to 0.5"),
        ({"length": 300}, "with what follows 650 tokens; .* was trained to read 512"),
        ({"learning_rate": 1e30, "steps": 3}, "the loss is .*; lower --learning-rate"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    change: dict, words: str, loaded: LoadedModel, data: Path, tmp_path: Path
) -> None:
    fields = {"width": 8, "length": 64, "warmup_steps": 0} | change
    with pytest.raises(ConfigError, match=words):
        train_heads(loaded, data, tmp_path / "h", HeadsConfig(**fields))
    assert not (tmp_path / "h").exists()


def test_places_where_nothing_can_be_written_are_refused(
    loaded: LoadedModel, data: Path, tmp_path: Path
) -> None:
    for output, words in ((tmp_path, "a folder; wanted a file"), (tmp_path / "no/h", "no such")):
        with pytest.raises(ConfigError, match=words):
            train_heads(loaded, data, output, CONFIG)


def test_two_processes_are_one_with_the_doubled_batch(
    tiny_folder: Path, data: Path, tmp_path: Path
) -> None:
    losses, results = [], []
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
    for processes in (1, 2):
        out = tmp_path / f"{processes}"
        flags = "--width 8 --length 64 --steps 6 --batch-size 2 --every 3 --warmup-steps 1"
        command = [*launch, f"{processes}", "--standalone", "-m", "lcc", "train", "heads"]
        subprocess.run(
            [*command, tiny_folder, "--data", data, "-o", out, "-q", *flags.split()],
            check=True,
            capture_output=True,
        )
        log = out.with_name(f"{processes}.log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in log])
        results.append(weights(load_heads(out)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(*results, atol=1e-3, rtol=1e-3)  # stored in half precision
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2"])
def test_all_of_a_step_is_on_its_device(architecture: str) -> None:
    """Meta tensors refuse others beside them, as a GPU's do, and have no numbers to return."""
    graph = FindAttention(table_size=1)(captured_once(tiny_model(architecture))).graph
    graph.to(torch.device("meta"))
    trainer = Trainer(graph, "silu", HeadsConfig(width=8, warmup_steps=0), "", "meta")
    examples = [Example(list(range(90)), 64)]
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors"):
        trainer.learn(examples)
    assert trainer.step == 1  # only the loss could not be returned
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors"):
        compare(graph, examples, {"heads": trainer.heads}, "repeat", "meta")


def test_a_device_that_is_not_here_is_refused(
    loaded: LoadedModel, data: Path, tmp_path: Path
) -> None:
    for device, words in (("tpu", "wanted cpu or cuda"), ("cuda", "this machine has 0")):
        with pytest.raises(ConfigError, match=words):
            train_heads(loaded, data, tmp_path / "h", CONFIG, device=device)


def test_trained_heads_are_compiled_and_verified(
    tiny_folder: Path, data: Path, tmp_path: Path
) -> None:
    def lcc(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        return result.exit_code, result.output

    heads, artifact = tmp_path / "h.safetensors", tmp_path / "m.lcc"
    train = ("train", "heads", tiny_folder, "--data", data, "--length", 64, "--steps", 2)
    code, output = lcc(*train, "--width", 8, "--json", "-o", heads)
    assert code == 0, output
    small = ("--capacity", 128, "--catalyst-size", 32, "--chunk-size", 16, "--recent-size", 8)
    compiled = ("compile", tiny_folder, "-o", artifact, *small)
    assert "policy locret reads retaining heads" in lcc(*compiled, "--policy", "locret")[1]
    assert "policy knorm reads none" in lcc(*compiled, "--policy", "knorm", "--heads", heads)[1]
    code, output = lcc(*compiled, "--policy", "locret", "--heads", heads)
    assert code == 0, output
    shown = lcc("inspect", artifact)[1]
    assert "8 wide, silu" in shown
    assert "trained on text.txt: " in shown
    assert re.search(r"tail_size\W+100", shown), shown
    code, output = lcc("verify", artifact, "--model", tiny_folder)
    assert code == 2
    assert "compiled with retaining heads (trained on: text.txt" in output
    code, output = lcc("verify", artifact, "--model", tiny_folder, "--heads", heads)
    assert code == 0, output


def test_the_layers_that_attend_have_heads(data: Path, tmp_path: Path) -> None:
    """Of a model whose other layers carry a state: trained, compiled, and compared."""
    save_tiny(tmp_path / "model", "lfm2")
    loaded = load_model(tmp_path / "model")
    config = HeadsConfig(width=8, length=64, steps=2, warmup_steps=1)
    train_heads(loaded, data, tmp_path / "h.safetensors", config)
    cache = CacheConfig(capacity=128, budget=64, chunk_size=16, catalyst_size=32, recent_size=8)
    how = CompileConfig(
        cache=cache, policy=PolicyConfig(name="locret"), heads=tmp_path / "h.safetensors"
    )
    compile_model(tmp_path / "model", tmp_path / "m.lcc", how)
    report = verify(tmp_path / "m.lcc", tmp_path / "model", heads=tmp_path / "h.safetensors")
    assert report.ok, report
    assert any("cycles" in row.what for row in report.rows)


def test_examples(tmp_path: Path) -> None:
    def read(**options) -> list[tuple[str, str]]:
        made = read_examples(
            tmp_path, lambda text: list(text.encode()), length=40, answer_size=10, **options
        )
        return [
            (bytes(e.ids[: e.scored]).decode(), bytes(e.ids[e.scored :]).decode()) for e in made
        ]

    (tmp_path / "a.txt").write_text("0123456789" * 10)
    (tmp_path / "b.jsonl").write_text('{"prompt": "What is the answer?", "answer": "42"}\n\n')
    answers = read(teacher="answer")
    assert answers[0] == ("0123456789" * 4, "0123456789")
    assert answers[1:] == [answers[0], ("What is the answer?", "42")]
    repeats = read(teacher="repeat")
    assert len(repeats) == 4
    assert repeats[0][1] == "\n\nRepeat the previous context exactly.\n\n" + "0123456789" * 4
    (tmp_path / "b.jsonl").write_text('{"prompt": "What is the answer?"}\n')
    with pytest.raises(ConfigError, match=r"b\.jsonl:1: wanted .* no answer"):
        read(teacher="answer")
    (tmp_path / "b.jsonl").write_text('\ufeff{"prompt": "One line\u2028of two, some would say"}')
    assert len(read(teacher="repeat")) == 4
    (tmp_path / "b.jsonl").write_text("{")
    with pytest.raises(ConfigError, match=r"b\.jsonl:1: not JSON"):
        read(teacher="repeat")
    (tmp_path / "b.jsonl").unlink()
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(ConfigError, match="nothing to learn from"):
        read(teacher="repeat")


def test_split_holds_out_its_share() -> None:
    made = list(range(100))
    learned, held = split(made, 0.05)  # type: ignore[arg-type]
    assert (len(learned), len(held)) == (95, 5)
    assert not set(learned) & set(held)
    assert split(made[:2], 0.01) == ([0], [1])  # type: ignore[arg-type]
    assert split(made[:1], 0.5) == ([0], [])  # type: ignore[arg-type]
