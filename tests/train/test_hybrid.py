"""Hybrids learn, go on after a stop as if there had been none, and in two processes as in one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import lcc.runtime
from lcc.cli import app
from lcc.errors import ConfigError
from lcc.ir.plan import parse_plan
from lcc.sources.models import load_model
from lcc.testing.oracles import sees
from lcc.testing.tiny import save_tiny, tiny_model
from lcc.train import processes
from lcc.train.checkpoint import PROGRESS, Checkpoint
from lcc.train.documents import IGNORED, Sequence
from lcc.train.dry_run import estimate
from lcc.train.hybrid import train_hybrid
from lcc.train.hybrid_trainer import HybridTrainer
from lcc.train.log import Step
from lcc.train.recipe import Recipe, Source, Stage, load_recipe

PLAN = "0: full; 1: sink_window(sink=4, window=16)"
RECIPE = """
precision: float32
every: 2
stages:
  - name: short
    length: 64
    steps: 5
    batch_tokens: 256
    learning_rate: 3e-3
    sources:
      - {name: text, share: 0.5, documents: whole}
      - {name: text, share: 0.5, shortest: 20}
  - name: long
    length: 128
    steps: 3
    batch_tokens: 256
    learning_rate: 1e-3
    rope_base: 20000
    sources:
      - {name: text, share: 0.5, documents: whole, length: 64}
      - {name: chat, share: 0.5, documents: chat, column: messages}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """texts/, chats.jsonl, held.txt and recipe.yaml."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "texts").mkdir()
    for n in range(4):
        text = "".join(f"{i} times {i + n} is {i * (i + n)}. " for i in range(40))
        (folder / "texts" / f"{n}.txt").write_text(text)
    (folder / "held.txt").write_text("".join(f"{i} times 9 is {i * 9}. " for i in range(60)))
    chats = [
        [{"role": "user", "content": f"{i} times 3?"}, {"role": "assistant", "content": str(3 * i)}]
        for i in range(20)
    ]
    lines = [json.dumps({"messages": chat}) + "\n" for chat in chats]
    (folder / "chats.jsonl").write_text("".join(lines))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def recipe(data: Path) -> Recipe:
    places = {"text": str(data / "texts"), "chat": str(data / "chats.jsonl")}
    return load_recipe(str(data / "recipe.yaml"), places)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(
    tiny_folder: Path, data: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, float]]:
    output = tmp_path_factory.mktemp("trained") / "out"
    held = data / "held.txt"
    return output, train_hybrid(tiny_folder, PLAN, recipe, output, held_out=held, device="cpu")


def test_a_hybrid_learns(trained: tuple[Path, dict[str, float]]) -> None:
    output, measured = trained
    assert measured["after"] < measured["before"] - 0.3
    assert measured["dense"] != measured["before"]
    pages = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [(page["stage"], page["step"]) for page in pages] == [
        *(("short", step) for step in range(1, 6)), *(("long", step) for step in range(1, 4)),
    ]  # fmt: skip
    assert [page["held_out"] is not None for page in pages] == [
        False, True, False, True, True, False, True, True,
    ]  # fmt: skip
    assert pages[-1]["done"] == 1.0
    assert pages[-1]["held_out"] == measured["after"]


def test_what_is_left_is_a_model_folder(
    trained: tuple[Path, dict[str, float]], tiny_folder: Path, recipe: Recipe
) -> None:
    output, _ = trained
    names = {path.name for path in output.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "loss.png"} <= names
    assert {"hybrid.yaml", "recipe.yaml", "log.jsonl", "tensorboard"} <= names
    assert "checkpoint" not in names
    assert load_recipe(str(output / "recipe.yaml"), {}) == recipe
    after, before = load_model(output), load_model(tiny_folder)
    assert after.module.config.rope_parameters["rope_theta"] == 20000
    assert after.files["tokenizer.json"] == before.files["tokenizer.json"]
    assert after.files["chat_template.jinja"] == before.files["chat_template.jinja"]
    with (output / "loss.png").open("rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_tensorboard_has_the_losses(trained: tuple[Path, dict[str, float]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained[0] / "tensorboard")).Reload()
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(losses(trained[0]))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [("short", 3), ("short", 5), ("long", 2)], ids=str)
def test_a_stop_changes_nothing(
    stop: tuple[str, int],
    trained: tuple[Path, dict[str, float]],
    tiny_folder: Path,
    data: Path,
    recipe: Recipe,
    tmp_path: Path,
) -> None:
    """In the middle of a stage with steps that are done again; between two stages; in the last."""

    def interrupt(step: Step) -> None:
        if (step.stage, step.step) == stop:
            raise Stopped

    output, options = tmp_path / "out", {"held_out": data / "held.txt", "device": "cpu"}
    args: tuple[Any, ...] = (tiny_folder, PLAN, recipe, output)
    with pytest.raises(Stopped):
        train_hybrid(*args, show=interrupt, **options)
    with pytest.raises(ConfigError, match="there already; wanted a new folder, or --resume"):
        train_hybrid(*args, **options)
    with pytest.raises(ConfigError, match="of another model, plan or recipe"):
        train_hybrid(tiny_folder, "dense", recipe, output, resume=True, **options)
    texts = tmp_path / "other.txt"
    texts.write_text((data / "held.txt").read_text().replace("9", "8"))
    for other in (None, texts):
        with pytest.raises(ConfigError, match="begun with other held-out texts than now"):
            train_hybrid(*args, resume=True, held_out=other, device="cpu")
    measured = train_hybrid(*args, resume=True, **options)
    assert measured == trained[1]
    assert losses(output) == losses(trained[0])
    for name, tensor in weights(trained[0]).items():
        assert torch.equal(weights(output)[name], tensor), name


class Number(msgspec.Struct):
    number: int


@pytest.mark.parametrize(
    ("where", "call", "number"),
    [
        ("rmtree", 1, 1),  # while an older one is removed
        ("rename", 1, 1),
        ("rename", 2, 1),  # the old one has gone aside, the new one is not in its place
        ("rmtree", 2, 2),  # while the old one is removed
    ],
)
def test_whenever_a_process_ends_there_is_a_checkpoint(
    where: str, call: int, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    for i, folder in enumerate((checkpoint.old, checkpoint.path, checkpoint.staging)):
        folder.mkdir()
        (folder / PROGRESS).write_bytes(msgspec.json.encode(Number(i)))
    owner = shutil if where == "rmtree" else Path
    original, calls = getattr(owner, where), []

    def ends(*args: object) -> object:
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, where, ends)
        with pytest.raises(KeyboardInterrupt):
            checkpoint._replace()
    assert checkpoint.progress(Number).number == number
    if checkpoint.staging.is_dir():
        checkpoint._replace()
    assert checkpoint.progress(Number).number == 2


def test_what_would_stop_a_later_stage_is_told_first(
    tiny_folder: Path, data: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(str(data / "recipe.yaml"), {"text": str(data / "texts")})
    with pytest.raises(ConfigError, match="stage long: chat has no place; say --source chat="):
        train_hybrid(tiny_folder, PLAN, recipe, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_resume_finds_data_that_moved(
    trained: tuple[Path, dict[str, float]], tiny_folder: Path, data: Path, tmp_path: Path
) -> None:
    def stop(step: Step) -> None:
        if step.stage == "long":
            raise Stopped

    moved, output = tmp_path / "moved", tmp_path / "out"
    shutil.copytree(data, moved)
    for folder, resume in ((moved, False), (data, True)):
        places = {"text": str(folder / "texts"), "chat": str(folder / "chats.jsonl")}
        args = (tiny_folder, PLAN, load_recipe(str(data / "recipe.yaml"), places), output)
        options = {"device": "cpu", "resume": resume}
        if resume:
            train_hybrid(*args, **options)  # type: ignore[arg-type]
        else:
            with pytest.raises(Stopped):
                train_hybrid(*args, show=stop, **options)  # type: ignore[arg-type]
    assert losses(output) == losses(trained[0])


def test_every_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch is told; no GPU is here."""
    told: list[object] = []
    monkeypatch.setattr(processes.dist, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(processes.torch.cuda, "set_device", told.append)
    monkeypatch.setattr(
        processes.dist, "init_process_group", lambda *a, device_id: told.append((*a, device_id))
    )
    monkeypatch.setattr(processes.dist, "get_rank", lambda: 3)
    monkeypatch.setattr(processes.dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(processes.dist, "destroy_process_group", lambda: None)
    with processes.processes("cuda:3") as found:
        assert found == (3, 4)
    assert told == ["cuda:3", ("nccl", torch.device("cuda:3"))]


def test_nothing_to_go_on_from(tiny_folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no checkpoint was written; begin .* in a new folder"):
        train_hybrid(tiny_folder, PLAN, recipe, tmp_path / "none", resume=True, device="cpu")


def test_a_finished_training_is_not_called_one_without_checkpoint(
    trained: tuple[Path, dict[str, float]], tiny_folder: Path, recipe: Recipe
) -> None:
    output, _ = trained
    with pytest.raises(ConfigError, match="finished already, the model is there; to train"):
        train_hybrid(tiny_folder, PLAN, recipe, output, resume=True, device="cpu")
    assert (output / "model.safetensors").is_file()


def command(data: Path, tiny_folder: Path) -> list[str]:
    return [
        "train", "hybrid", str(tiny_folder), "--plan", PLAN,
        "--recipe", str(data / "recipe.yaml"), "--source", f"text={data / 'texts'}",
        "--source", f"chat={data / 'chats.jsonl'}", "--held-out", str(data / "held.txt"),
        "--device", "cpu", "--quiet",
    ]  # fmt: skip


def test_two_processes_learn_the_same(
    trained: tuple[Path, dict[str, float]], tiny_folder: Path, data: Path, tmp_path: Path
) -> None:
    """FSDP2: each has a part of the weights and moments, and half of the sequences."""
    output = tmp_path / "both"
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "lcc"]
    args = [*command(data, tiny_folder), "-o", str(output), "--json"]
    done = subprocess.run([*run, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured == pytest.approx(trained[1], rel=1e-5)
    np.testing.assert_allclose(losses(output), losses(trained[0]), rtol=1e-5)
    for name, tensor in weights(trained[0]).items():
        torch.testing.assert_close(weights(output)[name], tensor, rtol=1e-4, atol=1e-5)


BLOCKS = "block_sparse(block=4, stride=3, local=2, reach=12, shift=1)"


@pytest.mark.parametrize("plan", [PLAN, f"0: sink_window(sink=4, window=16); 1: {BLOCKS}"])
def test_the_command_and_what_comes_of_it(
    plan: str, data: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    """lcc train hybrid, then lcc compile of its folder by its own plan."""
    output, artifact = tmp_path / "out", tmp_path / "m.lcc"
    invoke = CliRunner().invoke
    (tmp_path / "plan.yaml").write_text(f'plan: "{plan}"')
    more = ["--plan", str(tmp_path / "plan.yaml"), "-o", str(output)]
    result = invoke(app, [*command(data, tiny_folder), *more])
    assert result.exit_code == 0, result.output
    assert "the plan, trained" in result.output
    sizes = ["--capacity", "128", "--budget", "64", "--chunk-size", "16", "--catalyst-size", "32"]
    sizes += ["--recent-size", "8", "--policy", "knorm"]
    own = ["--plan", str(output / "hybrid.yaml")]
    result = invoke(app, ["compile", str(output), "-o", str(artifact), *own, *sizes])
    assert result.exit_code == 0, result.output
    text = list((data / "held.txt").read_bytes()[:90])  # before anything is evicted
    session = lcc.runtime.open(artifact)
    session.feed(text[:1], prefix=False)
    nll = session.nll(text[1:])
    stage = Stage(
        name="s", length=128, steps=1, batch_tokens=128, learning_rate=1.0,
        sources=(Source(name="a", share=1.0),),
    )  # fmt: skip
    recipe = Recipe(stages=(stage,), precision="float32")
    labels = np.array([*text[1:], IGNORED])
    read = Sequence(np.array(text), labels, (90,))
    learned = HybridTrainer(output, plan, recipe, stage).measure([read])
    assert float(nll.mean()) == pytest.approx(learned, rel=1e-5)
    assert HybridTrainer(output, "dense", recipe, stage).measure([read]) != pytest.approx(
        learned, rel=5e-5
    )


def test_the_dry_run(tiny_folder: Path, data: Path) -> None:
    base = ["train", "hybrid", str(tiny_folder), "--plan", PLAN]
    args = [*base, "--recipe", str(data / "recipe.yaml"), "--dry-run", "--json"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    first, second = json.loads(result.output)
    assert (first["steps"], first["sequences"], first["tokens"]) == (5, 4, 1280)
    assert (second["steps"], second["sequences"], second["tokens"]) == (3, 2, 768)
    pairs = 64 * 65 // 2
    near = 20 * 21 // 2 + 44 * 20
    assert first["attention"] == pytest.approx((pairs + near) / (2 * pairs))
    blocks = [*base[:-1], f"0: full; 1: {BLOCKS}", *args[len(base) :]]
    first = json.loads(CliRunner().invoke(app, blocks).output)[0]
    kind = parse_plan(f"0: {BLOCKS}", 1)[0]
    few = sum(sees(kind, i, j) for i in range(64) for j in range(64))
    assert first["attention"] == pytest.approx((pairs + few) / (2 * pairs))
    shared = json.loads(CliRunner().invoke(app, [*args, "--devices", "4"]).output)
    assert shared[0]["memory"] != first["memory"]
    text = CliRunner().invoke(app, [*base, "--recipe", "prolong", "--dry-run"]).output
    assert "20,971,520,000" in text


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3_text"])
def test_any_model_can_be_estimated(architecture: str, recipe: Recipe, tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", architecture)
    for page in estimate(tmp_path / "model", "dense", recipe, devices=2):
        assert page.attention == 1
        assert page.memory > 8 * 10_000


def test_mistakes_are_one_line(tiny_folder: Path, data: Path, tmp_path: Path) -> None:
    def told(*more: str, output: bool = True) -> str:
        plan = [] if "--plan" in more else ["--plan", PLAN]
        args = ["train", "hybrid", str(tiny_folder), "--recipe", str(data / "recipe.yaml"), *plan]
        args += more
        args += ["-o", str(tmp_path / "new")] if output else []
        result = CliRunner().invoke(app, args)
        assert result.exit_code == 2, result.output
        assert not (tmp_path / "new" / "model.safetensors").exists()
        return result.output

    assert "no place for the trained model" in told(output=False)
    assert "--source text: wanted NAME=PLACE" in told("--source", "text")
    assert "no such file or folder" in told("--held-out", str(tmp_path / "none"))
    assert "has no place" in told("--plan", "dense")


def test_the_base_of_the_angles_is_set(tiny_folder: Path) -> None:
    model = load_model(tiny_folder, rope_base=20000, window=4096).module
    assert model.config.rope_parameters["rope_theta"] == 20000
    assert model.config.max_position_embeddings == 4096
    wanted = tiny_model("llama", rope_parameters={"rope_theta": 20000.0, "rope_type": "default"})
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, wanted.model.rotary_emb.inv_freq)
    assert load_model(tiny_folder).module.config.rope_parameters["rope_theta"] != 20000
