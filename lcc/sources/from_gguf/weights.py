"""Tensors of a GGUF file -> the module's lazy weights; each tensor of the file has its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lcc.errors import ModelError
from lcc.ir.lazy_tensor import LazyTensor
from lcc.ir.rounded import Levels
from lcc.sources.from_gguf.architecture import Architecture
from lcc.sources.from_gguf.file import GgufFile
from lcc.sources.from_gguf.layouts import ROWS_ONLY, as_it_is

# What rope.py has read, and what belongs to no weight.
ANGLES = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
IN_LAYER = re.compile(r"^(?P<begin>.*?\.)(?P<number>\d+)(?P<rest>\..*)$")
BLOCK = re.compile(r"^blk\.(\d+)\.")
SUFFIX = re.compile(r"\.(weight|bias)$")


def load_weights(module: Any, file: GgufFile, row: Architecture, name: str) -> None:
    """Give a module its weights, as lazy tensors.

    A bias that the file has not is zero. Tied weights are read once.

    Raises:
        ModelError: a tensor is missing, left over or of another size.
    """
    used, tied = set(ANGLES), set(getattr(module, "all_tied_weights_keys", None) or ())
    missing = []
    for key, weight in module.state_dict().items():
        if key in tied:
            continue
        names = _names(key, file, row)
        if names:
            used.update(names)
            _set(module, key, _lazy(key, names, file, row, module.config, weight.shape))
        elif key.endswith(".bias") and _names(key.removesuffix("bias") + "weight", file, row):
            weight.zero_()
        else:
            missing.append(key)
    if missing:
        raise ModelError(
            f"{name}: {len(missing)} weights are not in the file, the first is {missing[0]} "
            f"({_wanted(missing[0], row)})"
        )
    _check_left(file, used, module, name)
    module.tie_weights()


def _names(key: str, file: GgufFile, row: Architecture) -> tuple[str, ...]:
    """The tensors of the file that make one of the module; empty = it has not all of them."""
    for table in (row.tensors, row.instead):
        names = _in_table(key, table)
        if names and all(each in file.tensors for each in names):
            return names
    return ()


def _in_table(key: str, table: Any) -> tuple[str, ...]:
    place = IN_LAYER.match(key)
    number = place["number"] if place else ""
    general = f"{place['begin']}*{place['rest']}" if place else key
    if (found := table.get(general)) is not None:
        names = (found,) if isinstance(found, str) else found
    else:
        suffix = SUFFIX.search(general)
        if suffix is None or (found := table.get(general[: suffix.start()])) is None:
            return ()
        names = (found + suffix[0],) if isinstance(found, str) else found
    return tuple(each.replace("*", number) for each in names)


def _wanted(key: str, row: Architecture) -> str:
    names = _in_table(key, row.tensors)
    return " and ".join(names) if names else "no name in the table"


def _set(module: nn.Module, key: str, tensor: LazyTensor) -> None:
    path, _, name = key.rpartition(".")
    owner = module.get_submodule(path)
    if name in owner._buffers:
        owner._buffers[name] = tensor
    else:
        owner._parameters[name] = nn.Parameter(tensor, requires_grad=False)


def _lazy(
    key: str,
    names: Sequence[str],
    file: GgufFile,
    row: Architecture,
    config: Any,
    wanted: torch.Size,
) -> LazyTensor:
    """A tensor of the module, which is made of tensors of the file when it is read."""
    place = IN_LAYER.match(key)
    general = f"{place['begin']}*{place['rest']}" if place else key
    layout = row.layouts.get(general, row.layouts.get(SUFFIX.sub("", general), as_it_is))
    if len(names) == 1 and names == _in_table(key, row.instead):
        layout = as_it_is
    empty = [torch.empty(file.tensors[each].shape, device="meta") for each in names]
    given = layout(empty, config).shape
    kept = [size for size in given if size > 1]
    # Dimensions of size one are those that GGUF leaves out.
    if given != wanted and kept != [size for size in wanted if size > 1]:
        raise ModelError(
            f"{file.path.name}: {' and '.join(names)} give {list(given)}, wanted "
            f"{list(wanted)} for {key}"
        )

    def read(start: int, stop: int) -> Tensor:
        if layout is as_it_is and given == wanted:
            return file.value(names[0], start, stop)
        value = layout([file.value(each) for each in names], config).reshape(wanted)
        return value[start:stop] if wanted else value

    weight = LazyTensor(wanted, torch.float32, read, (str(file.path), *names, key))
    rounded = file.rounded(names[0]) if layout in ROWS_ONLY and given == wanted else None
    if rounded is not None and layout is as_it_is:
        weight.rounded = rounded
    elif rounded is not None:

        def moved(start: int, stop: int) -> Levels:
            every = rounded.rows(0, wanted[0])
            return Levels(*(layout([each], config)[start:stop] for each in every))

        weight.rounded = rounded._replace(rows=moved)
    return weight


def _check_left(file: GgufFile, used: set[str], module: Any, name: str) -> None:
    """Refuse tensors that nobody has used, but those of layers that guess later tokens."""
    count = module.config.get_text_config().num_hidden_layers
    further = int(file.fields.get(f"{file.fields['general.architecture']}.nextn_predict_layers", 0))
    left = []
    for each in file.tensors:
        block = BLOCK.match(each)
        guesses = block is not None and count <= int(block[1]) < count + further
        if each not in used and not guesses:
            left.append(each)
    if left:
        raise ModelError(
            f"{name}: lcc does not know what the tensor {left[0]} means for architecture "
            f"{file.fields['general.architecture']} ({len(left)} such tensors); it compiles no "
            "model of which it would drop a part"
        )
