"""One step of training: heads, loss, optimizer (Locret, arXiv 2410.01805, section 3.3)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional

from lcc.artifact.heads_page import Activation
from lcc.errors import ConfigError
from lcc.passes.graph import ModelGraph
from lcc.passes.insert_retaining_heads import ACTIVATIONS, attention_sizes
from lcc.train.examples import Example, Teacher
from lcc.train.labels import labels
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


class Trainer:
    """The heads of one model, and the optimizer that moves them."""

    def __init__(
        self,
        graph: ModelGraph,
        activation: Activation,
        config: HeadsConfig,
        about: str = "",
        device: str = "cpu",
    ) -> None:
        """`graph`: after FindAttention, on `device`; `about`: model and data, for checkpoints."""
        from transformers import get_linear_schedule_with_warmup

        self.graph, self.config, self.about, self.device = graph, config, about, device
        torch.manual_seed(config.seed)
        self.heads = nn.ModuleList(
            Head(features, config.width, kv_heads, activation)
            for features, kv_heads in attention_sizes(graph)
        ).to(device)
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
        total = torch.zeros((), device=self.device)
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

            visit_layers(self.graph, torch.tensor([example.ids]).to(self.device), backward)
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
            state = torch.load(path, map_location="cpu", weights_only=True)
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
