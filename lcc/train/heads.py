"""Train retaining heads on a frozen model: Locret's recipe (arXiv 2410.01805, section 3.3)."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional

from lcc.capture import capture
from lcc.errors import ConfigError
from lcc.heads import (
    Activation,
    HeadsPage,
    RetainingHeads,
    activation_of,
    model_fingerprint,
    save_heads,
)
from lcc.models import LoadedModel
from lcc.passes.find_attention import FindAttention
from lcc.passes.graph import ModelGraph
from lcc.passes.insert_retaining_heads import ACTIVATIONS, attention_sizes
from lcc.train.examples import REPEAT_TOKENS, Example, Teacher, read_examples, split
from lcc.train.labels import labels, overlap
from lcc.train.layer_states import LayerStates, visit_layers


class HeadsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How heads are trained; the defaults are the paper's but for width, steps and length.

    teacher         who says what an entry is worth: see `lcc.train.labels`
    width           hidden numbers of a head (paper: 1024)
    length          tokens of a prompt, at most (paper: 10240)
    answer_size     tokens of an answer, at most
    steps           optimizer steps (paper: 3000)
    warmup_steps    of them, with a rising learning rate; None = two thirds, as in the paper
    batch_size      examples a step, over all processes
    learning_rate   at its highest (AdamW, betas 0.9 and 0.95)
    smoothing       weight of the squared difference of neighbours' scores. As in the paper's code
                    it is summed over layers, where the regression is averaged over them
    clip            largest absolute gradient of a weight
    validation      share of the examples that are held out
    every           steps between two validations, each with a checkpoint
    seed            of the heads' first weights and of the order of the examples
    """

    teacher: Teacher = "repeat"
    width: int = 128
    length: int = 1024
    answer_size: int = 128
    steps: int = 300
    warmup_steps: int | None = None
    batch_size: int = 1
    learning_rate: float = 5e-4
    smoothing: float = 0.0025
    clip: float = 0.5
    validation: float = 0.05
    every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "length", "answer_size", "steps", "batch_size", "every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted 1 or more")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted more than 0")
        for name in ("smoothing", "warmup_steps", "seed"):
            if (getattr(self, name) or 0) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}, wanted 0 or more")
        if not 0 <= self.validation <= 0.5:
            raise ConfigError(f"validation is {self.validation}, wanted 0 to 0.5")


class Head(nn.Module):
    """W2 act(W1 x), without biases: features [n, F] -> scores [n, Hkv]."""

    def __init__(self, features: int, width: int, kv_heads: int, activation: Activation) -> None:
        super().__init__()
        self.first = nn.Linear(features, width, bias=False)
        self.second = nn.Linear(width, kv_heads, bias=False)
        self.activation, self.options = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        scores: Tensor = self.second(self.activation(self.first(x), **self.options))
        return scores


@dataclass(frozen=True)
class Step:
    """One line of the log: `overlap` where it was measured, on held-out examples."""

    step: int
    loss: float
    learning_rate: float
    seconds: float
    overlap: float | None = None


class Trainer:
    """The heads of one model, and the optimizer that moves them."""

    def __init__(
        self, graph: ModelGraph, activation: Activation, config: HeadsConfig, about: str = ""
    ) -> None:
        """`graph`: after FindAttention; `about`: names model and data, for checkpoints."""
        from transformers import get_linear_schedule_with_warmup

        self.graph, self.config, self.about = graph, config, about
        torch.manual_seed(config.seed)
        self.heads = nn.ModuleList(
            Head(features, config.width, kv_heads, activation)
            for features, kv_heads in attention_sizes(graph)
        )
        self.optimizer = torch.optim.AdamW(
            self.heads.parameters(), lr=config.learning_rate, betas=(0.9, 0.95)
        )
        warmup = config.warmup_steps
        warmup = config.steps * 2 // 3 if warmup is None else warmup
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, warmup, config.steps)
        self.step = 0

    def learn(self, examples: list[Example]) -> float:
        """One step on this process's share of a batch; returns the loss of the whole batch."""
        self.optimizer.zero_grad()
        total = torch.zeros(())
        count, config = len(self.heads), self.config
        for example in examples:

            def backward(states: LayerStates, scored: int = example.scored) -> None:
                nonlocal total
                wanted = labels(states, scored, config.teacher)
                with torch.enable_grad():
                    scores = self.heads[states.layer](states.features[:scored])
                    loss = functional.smooth_l1_loss(scores, wanted) / count
                    loss = loss + config.smoothing * functional.mse_loss(scores[1:], scores[:-1])
                    loss = loss / config.batch_size
                    loss.backward()
                total = total + loss.detach()

            visit_layers(self.graph, torch.tensor([example.ids]), backward)
        if dist.is_initialized():
            dist.all_reduce(total)
            for parameter in self.heads.parameters():
                dist.all_reduce(parameter.grad)
        nn.utils.clip_grad_value_(self.heads.parameters(), config.clip)
        self.optimizer.step()
        self.schedule.step()
        self.step += 1
        return float(total)

    def state(self) -> dict:
        """All that the next step depends on."""
        return {
            "step": self.step,
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "config": msgspec.to_builtins(self.config),
            "about": self.about,
        }

    def restore(self, path: Path) -> None:
        """Go on from a file of `state`; refuses one of another configuration, model or data."""
        try:
            state = torch.load(path, weights_only=True)
            config, about = state["config"], state["about"]
        except Exception as error:  # whatever torch's reader stumbles over
            raise ConfigError(f"{path}: not a checkpoint ({error}); remove it") from None
        if config != msgspec.to_builtins(self.config) or about != self.about:
            raise ConfigError(
                f"{path}: a checkpoint of another configuration, model or data; go on with those, "
                "or begin anew without --resume"
            )
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step = state["step"]


@torch.no_grad()
def compare(
    graph: ModelGraph, examples: list[Example], heads: dict[str, nn.ModuleList], teacher: Teacher
) -> dict[str, float]:
    """Share of the highest tenth of labels among the highest tenth of scores, by who scores.

    heads       name -> heads of every layer

    Means over examples, layers and KV heads: of these, and of what needs no training: knorm (the
    shorter key is worth more), keydiff (the key least like the mean), recency. Layers with a window
    shorter than the text are left out: they keep their newest entries, and need no heads.
    """
    found: dict[str, list[Tensor]] = {}
    for example in examples:

        def look(states: LayerStates, scored: int = example.scored) -> None:
            if 0 < states.window < scored:
                return
            wanted, keys = labels(states, scored, teacher), states.k[:scored]
            unit = functional.normalize(keys, dim=-1)
            anchor = functional.normalize(unit.mean(0), dim=-1)
            newest = torch.arange(scored, dtype=torch.float32)[:, None].expand(wanted.shape)
            own = {name: each[states.layer] for name, each in heads.items()}
            scores = {name: head(states.features[:scored]) for name, head in own.items()}
            scores |= {
                "knorm": -keys.norm(dim=-1),
                "keydiff": -(unit * anchor).sum(-1),
                "recency": newest,
            }
            for name, each in scores.items():
                found.setdefault(name, []).append(overlap(each, wanted).mean())

        visit_layers(graph, torch.tensor([example.ids]), look)
    return {name: float(torch.stack(values).mean()) for name, values in found.items()}


def train_heads(
    loaded: LoadedModel,
    data: Path,
    output: Path,
    config: HeadsConfig | None = None,
    *,
    resume: bool = False,
    progress: Callable[[Step], None] | None = None,
) -> dict[str, float]:
    """Train retaining heads for a model, write them, and say how they compare on held-out text.

    On CPU only, so far: nothing here moves a tensor to another device.

    loaded      the model, which is not changed
    data        see `read_examples`
    output      the heads file; beside it OUTPUT.log.jsonl, a line a step, and, until the training
                is done, OUTPUT.checkpoint
    resume      go on from the checkpoint, to the same result as without the interruption
    progress    called after every step

    Under torchrun, processes share the batches and rank 0 writes.

    Raises:
        ConfigError: no tokenizer, nothing to learn from, or a checkpoint that does not fit.
    """
    config = config or HeadsConfig()
    _check_output(output)
    _check_length(config, loaded)
    graph = FindAttention(table_size=1)(capture(loaded.module)).graph
    examples = read_examples(
        data,
        _encoder(loaded),
        teacher=config.teacher,
        length=config.length,
        answer_size=config.answer_size,
    )
    learned, held = split(examples, config.validation)
    model = model_fingerprint(dict(loaded.module.named_parameters()))
    about = f"{model} {_digest(examples)}"
    trainer = Trainer(graph, activation_of(loaded.module), config, about)
    untrained = copy.deepcopy(trainer.heads)
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    log = output.with_name(f"{output.name}.log.jsonl")
    with _processes() as (rank, world):
        if config.batch_size % world:
            raise ConfigError(
                f"batch_size is {config.batch_size}, wanted a multiple of {world} processes"
            )
        if resume:
            if not checkpoint.is_file():
                raise ConfigError(f"{checkpoint}: no such checkpoint; begin without --resume")
            trainer.restore(checkpoint)
        if rank == 0:
            _begin_log(log, trainer.step)
            if not resume:
                checkpoint.unlink(missing_ok=True)
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
                measured = compare(graph, held[:4], now, config.teacher)["heads"]
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
            trained_on=(
                f"{data.name}: {len(learned)} examples, {tokens:,} tokens; teacher "
                f"{config.teacher}, {config.steps} steps of {config.batch_size}"
            ),
        )
        both = {"heads": trainer.heads, "untrained heads": untrained}
        result = compare(graph, held, both, config.teacher) if held else {}
        if rank == 0:
            save_heads(output, RetainingHeads(page, _weights(trainer.heads)))
            checkpoint.unlink(missing_ok=True)
    return result


def _check_output(output: Path) -> None:
    """Refuse, before hours of training, a place where nothing can be written."""
    if not output.name or output.is_dir():
        raise ConfigError(f"{output}: a folder; wanted a file for the heads")
    if not output.parent.is_dir():
        raise ConfigError(f"{output.parent}: no such folder; make it first")


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
    weights = [tuple(each.detach() for each in head.parameters()) for head in heads]
    return {i: (first, second) for i, (first, second) in enumerate(weights)}


def _encoder(loaded: LoadedModel) -> Callable[[str], list[int]]:
    if "tokenizer.json" not in loaded.files:
        raise ConfigError(f"{loaded.name} has no tokenizer.json, and texts must become tokens")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(loaded.files["tokenizer.json"].decode())
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


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


def use_threads(count: int) -> None:
    """Let PyTorch use so many threads."""
    torch.set_num_threads(count)


def is_first() -> bool:
    """Whether this process is the one that speaks."""
    return int(dist.get_node_local_rank(fallback_rank=0)) == 0


@contextlib.contextmanager
def _processes() -> Iterator[tuple[int, int]]:
    """Rank and number of processes; joins those that torchrun started."""
    if not dist.is_torchelastic_launched():
        yield 0, 1
        return
    dist.init_process_group("gloo")
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()
