"""Train retaining heads on a frozen model: texts, steps, checkpoints, a comparison, a file."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lcc.artifact.heads_page import HeadsPage
from lcc.artifact.outputs import check_output
from lcc.capture.export import capture
from lcc.errors import ConfigError
from lcc.passes.find_attention import FindAttention
from lcc.sources.heads import (
    RetainingHeads,
    activation_of,
    model_fingerprint,
    save_heads,
)
from lcc.sources.models import LoadedModel, encoder
from lcc.train.compare import compare
from lcc.train.examples import REPEAT_TOKENS, Example, read_examples, split
from lcc.train.processes import local_device, processes
from lcc.train.trainer import HeadsConfig, Trainer


@dataclass(frozen=True)
class Step:
    """One line of the log: `overlap` where it was measured, on held-out examples."""

    step: int
    loss: float
    learning_rate: float
    seconds: float
    overlap: float | None = None


def train_heads(
    loaded: LoadedModel,
    data: Path,
    output: Path,
    config: HeadsConfig | None = None,
    *,
    device: str | None = None,
    resume: bool = False,
    progress: Callable[[Step], None] | None = None,
) -> dict[str, float]:
    """Train retaining heads for a model, write them, and say how they compare on held-out text.

    loaded      the model, which is not changed; its weights end up on the device
    data        see `read_examples`
    output      the heads file; beside it OUTPUT.log.jsonl, a line a step, and, until the training
                is done, OUTPUT.checkpoint
    device      cpu or cuda, of which every process takes its own; None = cuda where there is one
    resume      go on from the checkpoint, to the same result as without the interruption
    progress    called after every step

    Under torchrun, processes share the batches and rank 0 writes.

    Raises:
        ConfigError: no tokenizer, nothing to learn from, a checkpoint that does not fit, or one
            that would be lost without `resume`.
    """
    config = config or HeadsConfig()
    check_output(output)
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    _check_checkpoint(checkpoint, output, resume=resume)
    _check_length(config, loaded)
    device = local_device(device)
    graph = FindAttention(table_size=1)(capture(loaded.module)).graph
    examples = read_examples(
        data,
        encoder(loaded),
        teacher=config.teacher,
        length=config.length,
        answer_size=config.answer_size,
    )
    learned, held = split(examples, config.validation)
    model = model_fingerprint(dict(loaded.module.named_parameters()))
    about = f"{model} {_digest(examples)}"
    graph.to(torch.device(device))
    trainer = Trainer(graph, activation_of(loaded.module), config, about, device)
    untrained = copy.deepcopy(trainer.heads)
    log = output.with_name(f"{output.name}.log.jsonl")
    with processes(device) as (rank, world):
        if config.batch_size % world:
            raise ConfigError(
                f"batch_size is {config.batch_size}, wanted a multiple of {world} processes"
            )
        if resume:
            trainer.restore(checkpoint)
        if rank == 0:
            _begin_log(log, trainer.step)
        for step, batch in _batches(learned, config, first=trainer.step):
            begin = time.perf_counter()
            rate = trainer.schedule.get_last_lr()[0]
            loss = trainer.learn(batch[rank::world])
            if not math.isfinite(loss):
                raise ConfigError(f"step {step}: the loss is {loss}; lower --learning-rate")
            pause = step % config.every == 0 and step < config.steps
            measured = None
            if pause and held:
                now = {"heads": trainer.heads}
                measured = compare(graph, held[:4], now, config.teacher, device)["heads"]
            line = Step(step, loss, rate, time.perf_counter() - begin, measured)
            if rank == 0:
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line.__dict__) + "\n")
                if pause:
                    _save(checkpoint, trainer)
            if progress is not None:
                progress(line)
        tokens = sum(each.scored for each in learned)
        page = HeadsPage(
            architecture=loaded.architecture,
            model=model,
            width=config.width,
            activation=activation_of(loaded.module),
            teacher=config.teacher,
            trained_on=(
                f"{data.name}: {len(learned)} examples, {tokens:,} tokens; teacher "
                f"{config.teacher}, {config.steps} steps of {config.batch_size}"
            ),
        )
        both = {"heads": trainer.heads, "untrained heads": untrained}
        result = compare(graph, held, both, config.teacher, device) if held else {}
        if rank == 0:
            save_heads(output, RetainingHeads(page, _weights(trainer.heads)))
            checkpoint.unlink(missing_ok=True)
    return result


def _check_checkpoint(path: Path, output: Path, *, resume: bool) -> None:
    """Refuse to go on from nothing, and to lose what a training that was stopped has learned."""
    if resume and not path.is_file() and output.is_file():
        raise ConfigError(
            f"{output}: finished already, the heads are there; to train others, leave out --resume "
            "and give a new file"
        )
    if resume and not path.is_file():
        raise ConfigError(f"{path}: no such checkpoint; begin without --resume")
    if not resume and path.exists():
        raise ConfigError(
            f"{path}: a training was stopped here; --resume goes on from it, or remove it to "
            "begin anew"
        )


def _check_length(config: HeadsConfig, loaded: LoadedModel) -> None:
    """Refuse texts longer than what the model was trained to read."""
    window = loaded.trained_window
    after = config.length + REPEAT_TOKENS if config.teacher == "repeat" else config.answer_size
    if window is not None and config.length + after > window:
        raise ConfigError(
            f"length is {config.length}, with what follows {config.length + after} tokens; "
            f"{loaded.name} was trained to read {window}: lower --length"
        )


def _digest(examples: list[Example]) -> str:
    return hashlib.sha256(repr(examples).encode()).hexdigest()[:16]


def _begin_log(log: Path, step: int) -> None:
    """Keep the lines up to this step: what comes after is done again."""
    if step == 0 or not log.is_file():
        log.unlink(missing_ok=True)
        return
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    log.write_text("".join(lines[:step]), encoding="utf-8")


def _weights(heads: nn.ModuleList) -> dict[int, tuple[Tensor, Tensor]]:
    weights = [tuple(each.detach().cpu() for each in head.parameters()) for head in heads]
    return {i: (first, second) for i, (first, second) in enumerate(weights)}


def _batches(
    examples: list[Example], config: HeadsConfig, *, first: int
) -> Iterator[tuple[int, list[Example]]]:
    """Step number, from 1, and its batch: the same for the same seed, wherever one begins."""
    size = config.batch_size
    for step in range(first, config.steps):
        places = range(step * size, (step + 1) * size)
        batch = []
        for place in places:
            turn, index = divmod(place, len(examples))
            order = list(range(len(examples)))
            random.Random(f"{config.seed} {turn}").shuffle(order)
            batch.append(examples[order[index]])
        yield step + 1, batch


def _save(path: Path, trainer: Trainer) -> None:
    staging = path.with_name(f".{path.name}.partial")
    try:
        torch.save(trainer.state(), staging)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
