"""A folder that a training goes on from: the model as Hugging Face has it, moments, progress."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor, distribute_tensor

from lcc.errors import ConfigError
from lcc.models import LoadedModel, quiet_transformers

if TYPE_CHECKING:
    from lcc.train.hybrid_trainer import HybridTrainer

Named = dict[str, Tensor]
T = TypeVar("T")
OPTIMIZER, PROGRESS = "optimizer.safetensors", "progress.json"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Checkpoint:
    """One folder, replaced as a whole.

    config.json, model.safetensors, tokenizer...    a model like any other
    optimizer.safetensors                           moments by name of the weight
    progress.json                                   what else the next step depends on
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, trainer: HybridTrainer, progress: Any) -> None:
        """Every process gives its part, the first one writes.

        progress    what else the next step depends on, a msgspec struct
        """
        first = trainer.rank == 0
        state = {name: _whole(tensor, keep=first) for name, tensor in trainer.weights.items()}
        moments = {}
        for name, tensor in trainer.weights.items():
            for key, value in trainer.optimizer.state.get(tensor, {}).items():
                moments[f"{key}.{name}"] = _whole(value, keep=first)
        if first:
            staging = self.path.with_name(f".{self.path.name}.partial")
            shutil.rmtree(staging, ignore_errors=True)
            try:
                _write_model(staging, trainer.loaded, state)
                save_file(moments, staging / OPTIMIZER)
                (staging / PROGRESS).write_bytes(msgspec.json.encode(progress))
                shutil.rmtree(self.path, ignore_errors=True)
                staging.replace(self.path)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        if trainer.world > 1:
            dist.barrier()

    def progress(self, kind: type[T]) -> T:
        """What `write` was given.

        Raises:
            ConfigError: there is no checkpoint.
        """
        path = self.path / PROGRESS
        if not path.is_file():
            raise ConfigError(f"{self.path}: no checkpoint; begin without --resume")
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except msgspec.DecodeError as error:
            raise ConfigError(f"{path}: not a checkpoint's ({error}); begin anew") from None

    def model_files(self) -> list[Path]:
        """Those that make a Hugging Face folder."""
        others = (OPTIMIZER, PROGRESS)
        return [file for file in self.path.iterdir() if file.name not in others]

    def restore_moments(self, weights: Named, optimizer: torch.optim.Optimizer) -> None:
        """Give the optimizer what it had, in the shards of this process."""
        stored = load_file(self.path / OPTIMIZER)
        for name, tensor in weights.items():
            state = optimizer.state[tensor]
            for key in MOMENTS:
                value = stored[f"{key}.{name}"]
                if isinstance(tensor, DTensor) and value.shape == tensor.shape and value.dim():
                    value = distribute_tensor(value, tensor.device_mesh, tensor.placements)
                elif value.dim():
                    value = value.to(tensor.device)
                state[key] = value


def _write_model(folder: Path, loaded: LoadedModel, weights: Named) -> None:
    """A Hugging Face folder, which `load_model` and the rest of the world read.

    weights     by their names in the model; what else it has is not trained
    """
    module: Any = loaded.module
    kept = module.state_dict().keys()
    others = [*module.named_buffers(), *module.named_parameters()]
    state = {name: each for name, each in others if name in kept} | weights
    with quiet_transformers():
        module.save_pretrained(folder, state_dict=state)
    for name, page in loaded.files.items():
        (folder / name).write_bytes(page)


def _whole(tensor: Any, *, keep: bool) -> Tensor:
    """A tensor of all processes; those that do not keep it get it, too, but let it go."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else torch.as_tensor(tensor)
    return full.detach().cpu().contiguous() if keep else torch.empty(0)
