"""Train a model whose layers see what a plan lets them see, by a recipe: stages, steps, files."""

from __future__ import annotations

import gc
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import distributed as dist

from lcc.errors import ConfigError
from lcc.ir.plan import parse_plan, positions_of, show_plan
from lcc.sources.models import LoadedModel, load_empty
from lcc.train.checkpoint import Checkpoint
from lcc.train.documents import Sequence, make_mix, open_source
from lcc.train.hybrid_trainer import HybridTrainer, learning_rate
from lcc.train.log import Log, Step
from lcc.train.processes import local_device, processes
from lcc.train.recipe import Recipe, Source, Stage
from lcc.train.tokens import encoders

HELD_OUT = 8  # sequences, at most
PLAN = "hybrid.yaml"


class Progress(msgspec.Struct, forbid_unknown_fields=True):
    """Where a training stands.

    about       digest of model, plan and recipe, but not of where its sources are
    mix         where the sources of the stage stand; None = at their beginning
    held_out    digest of the sequences that are not learned
    lines       of the log
    measured    nats a held-out token: dense, before, after
    """

    about: str
    stage: int = 0
    step: int = 0
    mix: list[dict[str, int]] | None = None
    held_out: str | None = None
    lines: int = 0
    measured: dict[str, float] = {}


def train_hybrid(
    model: str | Path,
    plan: str,
    recipe: Recipe,
    output: Path,
    *,
    held_out: Path | None = None,
    device: str | None = None,
    resume: bool = False,
    show: Callable[[Step], None] | None = None,
) -> dict[str, float]:
    """Train a model by a recipe and write it as a Hugging Face folder.

    model       see `load_model`
    plan        see `parse_plan`
    output      the folder; while the training runs it has the last checkpoint, log.jsonl and, for
                TensorBoard, tensorboard/; at the end also loss.png, and hybrid.yaml for
                `lcc compile --plan`
    held_out    texts that are not learned, to measure the loss on, in pieces as long as the
                shortest stage's sequences
    device      cpu or cuda, of which every process takes its own; None = cuda where there is one
    resume      go on from the checkpoint, to the same result as without the interruption
    show        called after every step
    returns     nats a held-out token: dense (every layer full) and before (the plan), both with the
                first stage's base of the angles and before its first step, and after; nothing
                without `held_out`

    Under torchrun the processes share the weights (FSDP2) and the sequences of each step.

    Raises:
        ConfigError: the output is there already, a source cannot be read, a plan or a checkpoint
            does not fit.
    """
    checkpoint = Checkpoint(output / "checkpoint")
    device = local_device(device)
    with processes(device) as (rank, world):
        progress = _begin(output, checkpoint, _digest(str(model), plan, recipe), resume=resume)
        _check_stages(recipe, world)
        if world > 1:
            dist.barrier()  # everybody has looked before anybody writes
        log = None
        if rank == 0:
            output.mkdir(parents=True, exist_ok=True)
            log = Log(output, progress.lines)
        run = _Run(recipe, plan, checkpoint, held_out, device, rank, world, log, show)
        while progress.stage < len(recipe.stages):
            begun = progress.stage > 0 or progress.step > 0
            run.stage(checkpoint.folder if begun else model, progress)
            gc.collect()  # a stage's weights lie in cycles, and the next one brings its own
            torch.cuda.empty_cache()
        if log is not None:
            log.finish(progress.measured)
            _finish(output, checkpoint, recipe, plan)
    return progress.measured


def _begin(output: Path, checkpoint: Checkpoint, about: str, *, resume: bool) -> Progress:
    """Where to begin; `about`: see `Progress`."""
    if not resume:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise ConfigError(f"{output}: there already; wanted a new folder, or --resume")
        return Progress(about=about)
    if (output / PLAN).is_file() and not checkpoint.is_written:
        raise ConfigError(
            f"{output}: finished already, the model is there; to train another one, leave out "
            "--resume and give a new folder"
        )
    stored = checkpoint.progress(Progress)
    if stored.about != about:
        raise ConfigError(
            f"{checkpoint.path}: of another model, plan or recipe; go on with those, or begin "
            "anew without --resume"
        )
    return stored


def _check_stages(recipe: Recipe, world: int) -> None:
    """What would stop a later stage is told before the first one."""
    for stage in recipe.stages:
        if stage.sequences % world:
            raise ConfigError(
                f"stage {stage.name}: {stage.sequences} sequences a step (batch_tokens / "
                f"length), wanted a multiple of {world} processes"
            )
        for source in stage.sources:
            open_source(source, f"stage {stage.name}")


@dataclass
class _Run:
    """What stays the same from stage to stage."""

    recipe: Recipe
    plan: str
    checkpoint: Checkpoint
    held_out: Path | None
    device: str
    rank: int
    world: int
    log: Log | None
    show: Callable[[Step], None] | None

    def stage(self, source: str | Path, progress: Progress) -> None:
        """Train one stage, or what is left of it; `progress` stands at the next one's begin then.

        source      the model, or a checkpoint of it
        """
        recipe, stage = self.recipe, self.recipe.stages[progress.stage]
        trainer = HybridTrainer(
            source, self.plan, recipe, stage, self.device, rank=self.rank, world=self.world
        )
        seed = recipe.seed + progress.stage
        mix = make_mix(recipe, stage, encoders(trainer.loaded, recipe), seed=seed)
        if progress.step or (progress.stage and stage.keep_optimizer):
            self.checkpoint.restore_moments(trainer.weights, trainer.optimizer)
        if progress.mix is not None:
            mix.restore(progress.mix)
        held = self._held_out(trainer.loaded)
        self._check_held_out(held, progress)
        if held and not progress.measured:
            progress.measured["dense"] = trainer.measure(held, dense=True)
            progress.measured["before"] = trainer.measure(held)
        for step, batch in enumerate(mix.batches(progress.step), start=progress.step + 1):
            begin = time.perf_counter()
            rate = learning_rate(stage, step)
            loss, norm = trainer.learn(batch, rate)
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise ConfigError(
                    f"stage {stage.name}, step {step}: the loss is {loss}, its gradient's norm "
                    f"{norm}; lower learning_rate"
                )
            seconds = time.perf_counter() - begin
            last = step == stage.steps
            pause = last or step % recipe.every == 0
            after = trainer.measure(held) if held and pause else None
            if after is not None:
                progress.measured["after"] = after
            done = _done(recipe, progress.stage, step)
            tokens = stage.batch_tokens
            line = Step(stage.name, step, done, loss, norm, rate, tokens, round(seconds, 3), after)
            progress.lines += 1
            if self.log is not None:
                self.log.add(line)
            if pause:
                progress.step, progress.mix = step, mix.state()
                if last:
                    progress.stage, progress.step, progress.mix = progress.stage + 1, 0, None
                self.checkpoint.write(trainer, progress)
            if self.show is not None:
                self.show(line)

    def _check_held_out(self, held: list[Sequence], progress: Progress) -> None:
        """Losses compare only on the same texts, from the first step to the last."""
        told = hashlib.sha256()
        for each in held:
            told.update(each.ids.tobytes())
        if progress.stage == 0 and progress.step == 0:
            progress.held_out = told.hexdigest()[:16]
        elif progress.held_out != told.hexdigest()[:16]:
            raise ConfigError(
                f"{self.checkpoint.path}: was begun with other held-out texts than now "
                f"({self.held_out or 'none'}), or another number of processes; go on with those, "
                "or begin anew without --resume"
            )

    def _held_out(self, loaded: LoadedModel) -> list[Sequence]:
        """Sequences of texts that are not learned, as many for each process; none twice.

        They are as long as the shortest stage's, the same in all stages.
        """
        if self.held_out is None:
            return []
        source = Source(name="held-out", share=1.0, place=str(self.held_out))
        length = min(stage.length for stage in self.recipe.stages)
        alone = Stage(
            name="held-out",
            length=length,
            steps=1,
            batch_tokens=length,
            learning_rate=1.0,
            sources=(source,),
        )
        mix = make_mix(self.recipe, alone, encoders(loaded, self.recipe), seed=self.recipe.seed)
        sequences = mix.first_turn(max(HELD_OUT, self.world))
        count = len(sequences) // self.world * self.world
        if not count:
            raise ConfigError(
                f"{self.held_out}: too short; wanted {length * self.world} tokens or more"
            )
        return sequences[:count]


def _finish(output: Path, checkpoint: Checkpoint, recipe: Recipe, plan: str) -> None:
    """The model of the last checkpoint, and what it was made with."""
    for file in checkpoint.model_files():
        file.replace(output / file.name)
    (output / "recipe.yaml").write_bytes(msgspec.yaml.encode(recipe))
    _, config = load_empty(output)
    kinds = parse_plan(plan, config.num_hidden_layers)
    page = {"plan": show_plan(kinds), "cache": {"positions": positions_of(kinds)}}
    (output / PLAN).write_bytes(msgspec.yaml.encode(page))
    checkpoint.remove()


def _done(recipe: Recipe, number: int, step: int) -> float:
    tokens = [stage.steps * stage.batch_tokens for stage in recipe.stages]
    return (sum(tokens[:number]) + step * recipe.stages[number].batch_tokens) / sum(tokens)


def _digest(model: str, plan: str, recipe: Recipe) -> str:
    """Of all but where the sources are: data may move between a stop and a resume."""
    replace = msgspec.structs.replace
    stages = tuple(
        replace(stage, sources=tuple(replace(each, place=None) for each in stage.sources))
        for stage in recipe.stages
    )
    recipe = replace(recipe, stages=stages)
    return hashlib.sha256(msgspec.json.encode([model, plan, recipe])).hexdigest()[:16]
