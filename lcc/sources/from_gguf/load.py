"""A GGUF file -> configuration, module, text files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lcc.errors import ModelError
from lcc.sources.folder import check_architecture
from lcc.sources.from_gguf.architecture import Architecture
from lcc.sources.from_gguf.config import check_all_used, configuration
from lcc.sources.from_gguf.file import Fields, GgufFile
from lcc.sources.from_gguf.rope import freeze_equal_factors
from lcc.sources.from_gguf.text import special_ids, text_files
from lcc.sources.from_gguf.weights import load_weights


class GgufModel:
    """One file, or the files of a split model, read once.

    config      of transformers
    files       name -> content, see `LoadedModel`
    """

    def __init__(self, path: Path, name: str) -> None:
        """Read metadata and tokenizer, no weights.

        Raises:
            ModelError: the file is damaged, or says something that lcc does not know.
        """
        import transformers

        self._file, self._name = GgufFile(path), name
        fields = Fields(self._file)
        self._row: Architecture
        self._row, page = configuration(self._file, fields)
        activation = fields.own("hidden_activation", fields.own("hidden_act"))
        self.files = text_files(self._file, fields)
        page |= special_ids(fields)
        check_all_used(self._file, fields)
        kind = transformers.CONFIG_MAPPING[page["model_type"]]
        if isinstance(getattr(kind, "head_dim", None), property):  # follows from the width there
            del page["head_dim"]
        page |= _activation(activation, kind, name)
        self.config: Any = transformers.AutoConfig.for_model(**page)
        check_architecture(self.config, name)

    def module(self) -> Any:
        """The module with its weights in float32, as lazy tensors."""
        import torch
        import transformers
        from transformers.initialization import no_init_weights

        with no_init_weights():
            module = transformers.AutoModelForCausalLM.from_config(
                self.config, dtype=torch.float32, trust_remote_code=False
            )
        freeze_equal_factors(module)
        load_weights(module, self._file, self._row, self._name)
        return module


def _activation(said: str | None, kind: Any, name: str) -> dict[str, str]:
    """The activation where the file says it: the field that the class has for it."""
    from transformers.activations import ACT2FN

    if said is None:
        return {}
    if said not in ACT2FN:
        raise ModelError(f"{name}: hidden_activation is {said!r}, which transformers does not know")
    fields = ("hidden_act", "hidden_activation", "activation_function", "activation")
    return {field: said for field in fields if hasattr(kind, field)}
