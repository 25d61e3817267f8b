"""The processes of a training, which torchrun starts, and their devices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import distributed as dist

from lcc import env
from lcc.errors import ConfigError


def use_threads(count: int) -> None:
    """Let PyTorch use so many threads."""
    torch.set_num_threads(count)


def is_first() -> bool:
    """Whether this process is the one that speaks, of all on all machines."""
    return env.process_rank() == 0


def local_device(wanted: str | None) -> str:
    """The device of this process."""
    if wanted is None:
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted not in ("cpu", "cuda"):
        raise ConfigError(f"device is {wanted!r}, wanted cpu or cuda")
    if wanted == "cpu":
        return wanted
    place, count = dist.get_node_local_rank(fallback_rank=0), torch.cuda.device_count()
    if place >= count:
        raise ConfigError(f"device is cuda, process {place} has none: this machine has {count}")
    return f"cuda:{place}"


@contextlib.contextmanager
def processes(device: str) -> Iterator[tuple[int, int]]:
    """Rank and number of processes; joins those that torchrun started."""
    if not dist.is_torchelastic_launched():
        yield 0, 1
        return
    if device == "cpu":
        dist.init_process_group("gloo")
    else:
        torch.cuda.set_device(device)  # FSDP2 and NCCL take the current one
        dist.init_process_group("nccl", device_id=torch.device(device))
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()
