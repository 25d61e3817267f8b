"""Whether an ONNX program has the inputs and outputs that the manifest says."""

from typing import Any

from lcc.artifact.manifest import ProgramEntry
from lcc.artifact.schedule import TensorSpec
from lcc.errors import ArtifactError

_TYPES = {
    "float32": "tensor(float)",
    "float16": "tensor(float16)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
}


def check_signature(session: Any, entry: ProgramEntry) -> None:
    """Compare a loaded program with its entry in the manifest.

    The file may have outputs that this program does not name: several programs can share a file.

    Raises:
        ArtifactError: names the first tensor that differs, what it is and what was wanted.
    """
    named = {tensor.name for tensor in entry.inputs}
    if more := {node.name for node in session.get_inputs()} - named:
        raise ArtifactError(f"input {min(more)} is not in the manifest")
    for kind, tensors, nodes in (
        ("input", entry.inputs, session.get_inputs()),
        ("output", entry.outputs, session.get_outputs()),
    ):
        found = {node.name: node for node in nodes}
        for tensor in tensors:
            if tensor.name not in found:
                raise ArtifactError(f"no {kind} {tensor.name}, which the manifest names")
            _check_tensor(kind, tensor, found[tensor.name])


def _check_tensor(kind: str, tensor: TensorSpec, node: Any) -> None:
    """One tensor; a size that the file leaves open fits any."""
    wanted = f"{tensor.dtype} {list(tensor.shape)}"
    fits = node.type == _TYPES.get(tensor.dtype) and len(node.shape) == len(tensor.shape)
    if not fits or any(
        isinstance(size, int) and size != own
        for size, own in zip(node.shape, tensor.shape, strict=True)
    ):
        raise ArtifactError(
            f"{kind} {tensor.name} is {node.type} {node.shape}, the manifest says {wanted}"
        )
