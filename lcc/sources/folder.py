"""A Hugging Face folder or hub name -> configuration and module; code of a model never runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from lcc.capture.refusals import refusal
from lcc.errors import CaptureError, ModelError
from lcc.sources.config_fields import check_fields
from lcc.sources.quantized import as_page, method_of, unpacked
from lcc.sources.stored import safetensors_of
from lcc.sources.weights import check_weights

MOST_LAYERS = 10_000

NO_CODE: dict[str, Any] = {"trust_remote_code": False}


def folder_config(source: str, name: str) -> tuple[Any, Path]:
    """The configuration of a model, and the folder that its files lie in.

    Raises:
        ModelError: it is no decoder, needs code of its own, or its weights are quantized in a way
            that lcc does not read.
    """
    import transformers
    from transformers.utils import cached_file

    path = Path(str(cached_file(source, "config.json")))
    page = _page(path, name)
    _check_page(page, path.parent, name)
    config = transformers.AutoConfig.from_pretrained(source, **NO_CODE)
    check_architecture(config, name)
    check_fields(page, config, name)
    method_of(config, name)
    return config, path.parent


def load_folder(source: str, config: Any, folder: Path, name: str) -> Any:
    """The module with its weights in float32, lazy where the files are of safetensors.

    Every tensor of the checkpoint is in it.

    Raises:
        ModelError: a tensor is missing or left over.
    """
    import torch
    import transformers

    page = None
    if method_of(config, name):
        page = as_page(config.quantization_config)
        del config.quantization_config  # else transformers wants the package of each format
    with _lazy_tensors(page, name):
        module, info = transformers.AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            weights_only=True,
            **NO_CODE,
        )
    check_weights(module, info, folder, name)
    return module


@contextlib.contextmanager
def _lazy_tensors(page: Mapping[str, Any] | None, name: str) -> Iterator[None]:
    """Let transformers' loader, which renames, stacks and cuts tensors, do so to lazy ones.

    page    how they are quantized
    """
    from transformers import PreTrainedModel

    load = PreTrainedModel._load_pretrained_model

    def with_lazy_ones(model: Any, tensors: Any, files: Any, how: Any, *more: Any) -> Any:
        if tensors is None and files and all(f.endswith(".safetensors") for f in files):
            tensors = {k: each for f in files for k, each in safetensors_of(Path(f)).items()}
            if page is not None:
                tensors = unpacked(tensors, page, name)
        elif page is not None:
            raise ModelError(f"{name}: quantized weights in pickled files; wanted .safetensors")
        return load(model, tensors, files, how, *more)

    with mock.patch.object(PreTrainedModel, "_load_pretrained_model", with_lazy_ones):
        yield


def check_architecture(config: Any, name: str) -> None:
    """Refuse what is no decoder, or no model that lcc compiles, before its weights are read.

    Raises:
        ModelError: it is no decoder language model.
        CaptureError: lcc knows that it cannot compile it, and why.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as DECODERS

    kind = config.model_type
    classes = getattr(config, "architectures", None) or []
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{name}: {kind} is an encoder-decoder; lcc compiles decoders only")
    if kind not in DECODERS or (classes and not set(classes) & set(DECODERS.values())):
        shown = f" ({classes[0]})" if classes else ""
        raise ModelError(
            f"{name}: {kind}{shown} is not a decoder language model; "
            "lcc compiles decoders (Llama, Qwen, Mistral, Gemma, Phi, SmolLM, GPT-2, ...)"
        )
    if reason := refusal(config):
        raise CaptureError(f"{name}: {reason}")


def _page(path: Path, name: str) -> Mapping[str, Any]:
    try:
        page = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{name}: cannot be loaded: config.json: {error}") from None
    if not isinstance(page, dict):
        raise ModelError(f"{name}: cannot be loaded: config.json is no JSON object")
    return page


def _check_layers(page: Mapping[str, Any], name: str) -> None:
    """Refuse more layers than any model has: transformers writes something down for each."""
    for key, value in page.items():
        if isinstance(value, dict):
            _check_layers(value, name)
        counts = "layer" in key and isinstance(value, int | float)
        if counts and not value <= MOST_LAYERS:
            raise ModelError(
                f"{name}: config.json: {key} is {value}, wanted {MOST_LAYERS:,} at most"
            )


def _check_page(page: Mapping[str, Any], folder: Path, name: str) -> None:
    """Refuse what would need code that is not part of transformers, or an adapter."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES as KNOWN

    kind = page.get("model_type")
    if kind not in KNOWN:
        code = page.get("auto_map")
        if isinstance(code, dict) and code:
            file = str(next(iter(code.values()))).rpartition(".")[0]
            raise ModelError(
                f"{name}: {kind} needs code of the model's own folder ({file}.py), and lcc runs "
                "none; wanted an architecture that transformers has itself"
            )
        raise ModelError(
            f"{name}: cannot be loaded: config.json: model_type is {kind!r}, wanted an "
            "architecture that transformers has; a newer transformers may know it"
        )
    _check_layers(page, name)
    for key, value in page.items():
        if key.endswith("_implementation") and isinstance(value, str) and "/" in value:
            raise ModelError(
                f"{name}: config.json: {key} is {value!r}, code from elsewhere, and lcc runs none; "
                "remove the field"
            )
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{name}: an adapter (adapter_config.json) lies beside the weights; merge it into "
            "them, or remove it"
        )
