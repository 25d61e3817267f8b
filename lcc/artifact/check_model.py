"""Whether text facts, sizes and in-place updates of a manifest fit its model and its programs."""

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from lcc.artifact.check_counters import LARGEST
from lcc.artifact.schedule import BufferSpec, Run
from lcc.config import BEGINNING_TOKENS
from lcc.errors import ArtifactError
from lcc.ir.roles import Role

if TYPE_CHECKING:
    from lcc.artifact.manifest import Manifest, ProgramEntry

MOST_BYTES = 1 << 47  # of a buffer: more than a process has addresses for
MOST_DIMENSIONS = 8
REPLACED = {Role.KEY, Role.VALUE, Role.STATE, Role.TOKEN_POSITION}  # lost where nothing takes them
STEPPED = {Role.KEY, Role.VALUE, Role.STATE}  # what every step changes


def check_numbers(manifest: "Manifest") -> None:
    """Refuse constants and counters that no reader keeps exactly, with an `ArtifactError`."""
    for kind, numbers in (("constants", manifest.constants), ("counters", manifest.counters)):
        for name, value in numbers.items():
            if not -1 <= value <= LARGEST:
                raise ArtifactError(f"{kind}: {name} is {value}, wanted -1 to 2^53")


def check_buffer_bytes(manifest: "Manifest", spec: BufferSpec) -> None:
    """Refuse a buffer that no machine can hold, with an `ArtifactError`."""
    sizes = [manifest.constants.get(s, 1) if isinstance(s, str) else s for s in spec.shape]
    if len(sizes) > MOST_DIMENSIONS or 8 * prod(sizes) > MOST_BYTES:
        raise ArtifactError(
            f"buffers: {spec.name} is {sizes}, wanted at most 8 sizes and 2^47 bytes"
        )


def check_model(manifest: "Manifest", buffers: Mapping[str, BufferSpec]) -> None:
    """Refuse a vocabulary, layers or ids of text that are not those of the buffers.

    Raises:
        ArtifactError: says what, what was found and what was wanted.
    """
    vocabulary, logits = manifest.model.vocab_size, buffers["logits"].shape
    if vocabulary < 1 or logits[-1] != vocabulary:
        raise ArtifactError(
            f"model: vocab_size is {vocabulary}, wanted the size of buffer logits, {list(logits)}"
        )
    for spec in manifest.buffers:
        if spec.role != Role.TOKEN_POSITION or spec.saved is None or len(spec.shape) != 2:
            continue
        of_group = [group for group in manifest.groups if group.name == spec.group]
        layers = of_group[0].layers if spec.layer is None and of_group else (spec.layer,)
        for layer in layers:
            heads = None if layer is None else manifest.model.layers[layer].kv_heads
            if heads is not None and spec.shape[0] != heads:
                raise ArtifactError(
                    f"model: layer {layer} has {heads} kv_heads, wanted those of buffer "
                    f"{spec.name}, {spec.shape[0]}"
                )
    for layer, entry in enumerate(manifest.model.layers):
        if not 1 <= entry.kv_heads <= 1 << 16:
            raise ArtifactError(f"model: layer {layer} has {entry.kv_heads} kv_heads")
    _check_text(manifest)


def _check_text(manifest: "Manifest") -> None:
    text, vocabulary = manifest.text, manifest.model.vocab_size
    catalyst = text.catalyst
    lists = {name: getattr(text, name) for name in ("prefix", "ends", "separator", "special")}
    for name, ids in (*lists.items(), ("catalyst", (catalyst and catalyst.ids) or ())):
        if wrong := [each for each in ids if not 0 <= each < vocabulary]:
            raise ArtifactError(f"text: {name} has id {wrong[0]}, wanted 0 to {vocabulary - 1}")
    if "" in text.stops:
        raise ArtifactError("text: stops has an empty text, which is everywhere")
    if catalyst is None:
        return
    if (catalyst.ids is None) == (catalyst.beginning is None):
        raise ArtifactError("text: catalyst has ids and beginning, or neither; wanted one of them")
    if catalyst.beginning is not None and not 1 <= catalyst.beginning <= BEGINNING_TOKENS:
        raise ArtifactError(
            f"text: the catalyst is made of {catalyst.beginning} tokens, wanted 1 to "
            f"{BEGINNING_TOKENS}"
        )
    reserved = manifest.constants["reserved"]
    if catalyst.ids is not None and len(catalyst.ids) > reserved:
        raise ArtifactError(
            f"text: the catalyst has {len(catalyst.ids)} ids, reserved are {reserved} slots"
        )


def check_updates(programs: Mapping[str, "ProgramEntry"]) -> None:
    """Refuse an output that replaces another kind of tensor, or the same as another output does.

    Raises:
        ArtifactError: names the program, both tensors and what they are.
    """
    for name, program in programs.items():
        inputs = {tensor.name: tensor for tensor in program.inputs}
        outputs = {tensor.name: tensor for tensor in program.outputs}
        for kind, tensors in (("inputs", program.inputs), ("outputs", program.outputs)):
            if len({tensor.name for tensor in tensors}) != len(tensors):
                raise ArtifactError(f"programs: {name}: two of its {kind} have one name")
        for output, source in program.updates.items():
            one, other = outputs[output], inputs[source]
            first, second = ((t.role, t.layer, t.dtype, t.shape) for t in (one, other))
            if first != second:
                raise ArtifactError(
                    f"programs: {name}: {output} is {one.role} {one.dtype} {list(one.shape)} of "
                    f"layer {one.layer}, wanted that of {source}: {other.role} {other.dtype} "
                    f"{list(other.shape)} of layer {other.layer}"
                )
        if len(set(program.updates.values())) != len(program.updates):
            raise ArtifactError(f"programs: {name}: two outputs replace one input")


def check_written(programs: Mapping[str, "ProgramEntry"], run: Run, where: str) -> None:
    """Refuse a step that reads keys, values or states and leaves them as they were.

    Raises:
        ArtifactError: names the first such input.
    """
    for name in (run.run, run.one or run.run):
        entry = programs[name]
        if Role.TOKENS not in {tensor.role for tensor in entry.inputs}:
            continue  # it scores what a step has left
        replaced = set(entry.updates.values())
        for tensor in entry.inputs:
            if tensor.role in STEPPED and tensor.name not in replaced:
                raise ArtifactError(
                    f"{where}, run {name}: no output replaces {tensor.name} ({tensor.role}): what "
                    "is read would be lost"
                )
