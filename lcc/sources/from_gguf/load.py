"""A GGUF file -> configuration, module, text files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
        self.files = text_files(self._file, fields)
        page |= special_ids(fields)
        check_all_used(self._file, fields)
        kind = transformers.CONFIG_MAPPING[page["model_type"]]
        if isinstance(getattr(kind, "head_dim", None), property):  # follows from the width there
            del page["head_dim"]
        self.config: Any = transformers.AutoConfig.for_model(**page)
        check_architecture(self.config, name)

    def module(self) -> Any:
        """The module with its weights in float32."""
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
