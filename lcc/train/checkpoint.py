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
from lcc.sources.models import LoadedModel, quiet_transformers

if TYPE_CHECKING:
    from lcc.train.hybrid_trainer import HybridTrainer

Named = dict[str, Tensor]
T = TypeVar("T")
OPTIMIZER, PROGRESS = "optimizer.safetensors", "progress.json"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Checkpoint:
    """One folder, replaced as a whole: whenever a process ends, one of them is there.

    config.json, model.safetensors, tokenizer...    a model like any other
    optimizer.safetensors                           moments by name of the weight
    progress.json                                   what else the next step depends on
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.staging, self.old = (path.with_name(f".{path.name}.{n}") for n in ("partial", "old"))

    @property
    def folder(self) -> Path:
        """The newest that is whole; the one before, if a process ended between the two renames."""
        return self.old if self.old.is_dir() and not self.path.is_dir() else self.path

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
            _remove(self.staging)
            _write_model(self.staging, trainer.loaded, state)
            save_file(moments, self.staging / OPTIMIZER)
            (self.staging / PROGRESS).write_bytes(msgspec.json.encode(progress))
            self._replace()
        if trainer.world > 1:
            dist.barrier()

    def _replace(self) -> None:
        """Put what was staged in the place of the checkpoint."""
        if self.path.is_dir():
            _remove(self.old)
            self.path.rename(self.old)
        self.staging.rename(self.path)
        _remove(self.old)

    def remove(self) -> None:
        """Leave nothing."""
        for folder in (self.staging, self.old, self.path):
            _remove(folder)

    @property
    def is_written(self) -> bool:
        """Whether there is something to go on from."""
        return (self.folder / PROGRESS).is_file()

    def progress(self, kind: type[T]) -> T:
        """What `write` was given.

        Raises:
            ConfigError: there is no checkpoint.
        """
        path = self.folder / PROGRESS
        if not self.is_written:
            raise ConfigError(
                f"{self.path}: no checkpoint was written; begin without --resume, in a new folder"
            )
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except msgspec.DecodeError as error:
            raise ConfigError(f"{path}: not a checkpoint's ({error}); begin anew") from None

    def model_files(self) -> list[Path]:
        """Those that make a Hugging Face folder."""
        others = (OPTIMIZER, PROGRESS)
        return [file for file in self.folder.iterdir() if file.name not in others]

    def restore_moments(self, weights: Named, optimizer: torch.optim.Optimizer) -> None:
        """Give the optimizer what it had, in the shards of this process."""
        stored = load_file(self.folder / OPTIMIZER)
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


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _whole(tensor: Any, *, keep: bool) -> Tensor:
    """A tensor of all processes; those that do not keep it get it, too, but let it go."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else torch.as_tensor(tensor)
    return full.detach().cpu().contiguous() if keep else torch.empty(0)
