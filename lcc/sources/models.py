"""A folder, a hub name, a GGUF file or a package -> an eager float32 model and its text files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcc.env import needs_extra
from lcc.errors import CaptureError, ConfigError, ModelError
from lcc.sources.locate import Located, locate

if TYPE_CHECKING:
    from torch import nn

MOST_WORDS = 300  # characters of what transformers says of a model that it cannot load


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for capture, and what must travel with it.

    module          eval mode, float32, no gradients; tied weights are one tensor
    name            what the user will recognise
    architecture    `model_type` of its configuration
    trained_window  tokens it was trained to read; None where the configuration does not say
    files           tokenizer.json, tokenizer_config.json, chat_template.jinja (where there is
                    one), generation_config.json -> their bytes, the same for the same model
    """

    module: nn.Module
    name: str
    architecture: str
    trained_window: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)


def load_model(
    source: str | Path,
    *,
    rope_base: float | None = None,
    window: int | None = None,
    lazy: bool = False,
) -> LoadedModel:
    """Load a decoder language model.

    Args:
        source: a Hugging Face folder, a hub name (`HF_HUB_OFFLINE` is honoured), a `.gguf` file,
            `package:NAME` for a GGUF file inside an installed package, or `smollm2`.
        rope_base: base of its rotary angles, in place of the configuration's.
        window: tokens it will be trained to read, if the configuration says fewer.
        lazy: weights are read each time that something is computed with them, and not kept
            (`LazyTensor`), and nobody has seen yet whether they are finite (`check_finite`); of a
            checkpoint in pickled files they are read at once.

    Raises:
        ModelError: no model, no decoder, weights missing or not finite; or a base where there is
            none to set.
    """
    located = locate(source)
    with needs_extra("compile"):
        import gguf  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    from lcc.ir.lazy_tensor import lazy_bytes, materialize
    from lcc.sources.weights import check_finite

    with _explained(located.name), quiet_transformers():
        config, module, files = _loaded(located, rope_base, window)
        if not lazy:
            materialize(module)
        if not lazy_bytes(module):
            check_finite(module, located.name)
    text_config = config.get_text_config()
    return LoadedModel(
        module=module.eval().requires_grad_(False),
        name=located.name,
        architecture=config.model_type,
        trained_window=getattr(text_config, "max_position_embeddings", None),
        files=files,
    )


def load_empty(source: str | Path) -> tuple[nn.Module, Any]:
    """A model without its weights, and the configuration of its text part: for sizes only."""
    located = locate(source)
    with needs_extra("compile"):
        import torch
        import transformers
    with _explained(located.name), quiet_transformers(), torch.device("meta"):
        config = _config(located)
        module = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        return module, config.get_text_config()


def encoder(loaded: LoadedModel) -> Callable[[str], list[int]]:
    """What turns a text into the model's token ids, without those that would begin a prompt.

    Raises:
        ConfigError: the model came without a tokenizer.
    """
    if "tokenizer.json" not in loaded.files:
        raise ConfigError(f"{loaded.name} has no tokenizer.json, and texts must become tokens")
    from lcc.sources.text_facts import read_tokenizer

    tokenizer = read_tokenizer(loaded.files)
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def _loaded(
    located: Located, rope_base: float | None, window: int | None
) -> tuple[Any, Any, dict[str, bytes]]:
    """Configuration, module and text files."""
    from lcc.sources.folder import folder_config, load_folder
    from lcc.sources.from_gguf.load import GgufModel
    from lcc.sources.text_files import folder_text_files

    name = located.name
    if located.gguf is not None:
        source = GgufModel(located.gguf, name)
        _stretch(source.config.get_text_config(), name, rope_base, window)
        return source.config, source.module(), source.files
    config, folder = folder_config(located.folder, name)
    _stretch(config.get_text_config(), name, rope_base, window)
    module = load_folder(located.folder, config, folder, name)
    return config, module, folder_text_files(located.folder, folder, module, name)


def _config(located: Located) -> Any:
    """The configuration alone."""
    from lcc.sources.folder import folder_config
    from lcc.sources.from_gguf.load import GgufModel

    if located.gguf is not None:
        return GgufModel(located.gguf, located.name).config
    return folder_config(located.folder, located.name)[0]


def _stretch(config: Any, name: str, rope_base: float | None, window: int | None) -> None:
    """Set the base of the rotary angles and the trained length, before the model is made."""
    if rope_base is not None:
        angles = getattr(config, "rope_parameters", None) or {}
        if "rope_theta" not in angles:
            raise ModelError(f"{name}: no base of rotary angles to set, it has {angles or 'none'}")
        angles["rope_theta"] = float(rope_base)
    if window is not None and (getattr(config, "max_position_embeddings", None) or window) < window:
        config.max_position_embeddings = window


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' own progress bars and advice; lcc shows its own."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # GGUF's bar asks nobody
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn what transformers says about a bad model into one line that names the model."""
    try:
        yield
    except (ModelError, CaptureError, MemoryError):
        raise
    except Exception as error:  # transformers raises whatever its readers do
        words = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{name}: cannot be loaded: {words[:MOST_WORDS]}") from error


def loaded_model(
    source: str | Path | LoadedModel | nn.Module, *, lazy: bool = False
) -> LoadedModel:
    """What `compile_model` takes, loaded: a name or folder, a loaded model, or a plain module."""
    from lcc.sources.weights import check_finite

    if isinstance(source, LoadedModel):
        return source
    if isinstance(source, str | Path):
        return load_model(source, lazy=lazy)
    name = type(source).__name__
    check_finite(source, name)
    config: Any = getattr(source, "config", None)
    if not hasattr(config, "get_text_config"):
        return LoadedModel(module=source, name=name, architecture=name)
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    return LoadedModel(source, name, config.model_type, trained_window=window)
