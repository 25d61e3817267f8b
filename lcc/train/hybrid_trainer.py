"""One stage of a training: a model at one length, shared by the processes, and its optimizer."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from lcc.capture.export import capture
from lcc.ir.plan import parse_plan
from lcc.passes.find_attention import FindAttention
from lcc.sources.models import load_model
from lcc.train.documents import IGNORED, Sequence
from lcc.train.hybrid_model import HybridModel
from lcc.train.recipe import Recipe, Stage


class HybridTrainer:
    """One stage: the model at its length and base, shared by the processes, and the optimizer."""

    def __init__(
        self,
        source: str | Path,
        plan: str,
        recipe: Recipe,
        stage: Stage,
        device: str = "cpu",
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """`source`: see `load_model`; `plan`: see `parse_plan`; `world`: number of processes."""
        self.recipe, self.device, self.rank, self.world = recipe, device, rank, world
        self.loaded = load_model(source, rope_base=stage.rope_base, window=stage.length)
        names = {id(each): name for name, each in self.loaded.module.named_parameters()}
        graph = FindAttention(table_size=1)(capture(self.loaded.module)).graph
        layers = len(graph.calls(torch.ops.lcc.attention.default))
        self.plan = parse_plan(plan, layers)
        graph.to(torch.device(device))
        self.model = HybridModel(graph, self.plan)
        given = {name: names[id(each)] for name, each in self.model.named_parameters()}
        if world > 1:
            _shard(self.model, device, world)
            _release(self.loaded.module, set(given.values()))
        self.weights: dict[str, Tensor] = {
            given[name]: each for name, each in self.model.named_parameters()
        }
        matrices = [each for each in self.weights.values() if each.dim() > 1]
        others = [each for each in self.weights.values() if each.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": recipe.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            betas=recipe.betas,
        )

    def learn(self, batch: list[Sequence], rate: float) -> tuple[float, float]:
        """One step on this process's share of a batch; loss and norm are the whole batch's.

        The loss is the mean over the learned tokens of all processes, however they are spread.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        count = sum(int((each.labels != IGNORED).sum()) for each in batch)
        total = torch.zeros((), device=self.device)
        for sequence in batch[self.rank :: self.world]:
            loss = self._loss(sequence)
            (loss * (self.world / count)).backward()  # the processes' gradients are averaged
            total += loss.detach()
        if self.world > 1:
            dist.all_reduce(total)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimizer.step()
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        return float(total) / count, float(whole)

    @torch.no_grad()
    def measure(self, sequences: list[Sequence], *, dense: bool = False) -> float:
        """Nats a token of all these sequences.

        dense       with every layer full
        """
        both = torch.zeros(2, device=self.device)
        with self.model.dense() if dense else contextlib.nullcontext():
            for each in sequences[self.rank :: self.world]:
                both[0] += self._loss(each)
                both[1] += int((each.labels != IGNORED).sum())
        if self.world > 1:
            dist.all_reduce(both)
        return float(both[0] / both[1])

    def _loss(self, sequence: Sequence) -> Tensor:
        ids, labels = (torch.from_numpy(x).to(self.device) for x in (sequence.ids, sequence.labels))
        half = self.recipe.precision == "bfloat16"
        kind = self.device.partition(":")[0]
        with torch.autocast(kind, torch.bfloat16, enabled=half, cache_enabled=False):
            loss: Tensor = self.model(ids[None], labels, list(sequence.lengths))
        return loss


def learning_rate(stage: Stage, step: int) -> float:
    """Of a step, counted from 1: rises over the warm-up, then falls to `final` of its highest."""
    warmup = round(stage.warmup * stage.steps)
    if step <= warmup:
        return stage.learning_rate * step / warmup
    done = (step - warmup) / max(1, stage.steps - warmup)
    left = 1 - done if stage.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return stage.learning_rate * (stage.final + (1 - stage.final) * left)


def _shard(model: HybridModel, device: str, world: int) -> None:
    """FSDP2: every process keeps its part of the weights, and gathers a layer when it runs."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.partition(":")[0], (world,))
    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _release(module: nn.Module, names: set[str]) -> None:
    """Forget whole weights: the processes have their parts."""
    for name, each in module.named_parameters():
        if name in names:
            each.data = torch.empty(0)
