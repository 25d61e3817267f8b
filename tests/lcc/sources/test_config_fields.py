"""Fields of config.json and generation_config.json that nobody would read."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lcc.errors import ModelError
from lcc.sources.config_fields import check_fields
from lcc.sources.generation import OTHERS, unheeded
from lcc.sources.models import load_model
from lcc.testing.tiny import ARCHITECTURES, save_tiny


def edited(folder: Path, name: str, **fields: Any) -> Path:
    page = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(page | fields))
    return folder


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("llama", {"sliding_window": 8}),
        ("llama", {"attn_logit_softcapping": 30.0}),
        ("llama", {"logits_scaling": 4.0}),
        ("llama", {"num_local_experts": 8}),
        ("llama", {"use_qk_norm": True}),
        ("qwen2", {"dual_chunk_attention_config": {"chunk_size": 8}}),
        ("gpt2", {"attention_bias": True}),
    ],
    ids=str,
)
def test_a_field_that_the_class_has_not(
    architecture: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    save_tiny(tmp_path, architecture)
    ((name, value),) = fields.items()
    with pytest.raises(ModelError) as caught:
        load_model(edited(tmp_path, "config.json", **fields))
    assert f"config.json says {name} = {value}, which " in str(caught.value)


def test_what_changes_nothing_is_passed_over(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    fields = {
        "sliding_window": None,
        "num_local_experts": 0,
        "logits_scaling": 1.0,
        "use_qk_norm": False,
        "unsloth_version": "1",
        "pretraining_tp": 1,
    }
    load_model(edited(tmp_path, "config.json", **fields))
    load_model(edited(tmp_path, "config.json", sliding_window=8, use_sliding_window=False))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_field_of_its_own_is_refused(architecture: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, architecture)
    load_model(tmp_path)


def test_no_configuration_of_transformers_is_refused_as_it_is_saved() -> None:
    others = {"gemma4_assistant", "musicgen", "musicgen_melody"}  # none without more than defaults
    decoders = (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() & CONFIG_MAPPING.keys()) - others
    assert len(decoders) > 100
    for name in sorted(decoders):
        made = CONFIG_MAPPING[name]()
        check_fields(made.to_dict(), made, name)


def test_generation_that_lcc_has_not_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_tiny(tmp_path)
    edited(tmp_path, "generation_config.json", no_repeat_ngram_size=3, num_beams=1, top_k=7)
    with caplog.at_level(logging.WARNING):
        files = load_model(tmp_path).files
    assert "asks for no_repeat_ngram_size, which lcc has not" in caplog.text
    assert json.loads(files["generation_config.json"])["top_k"] == 7
    assert unheeded(dict.fromkeys(OTHERS)) == []
    assert unheeded({name: values[0] for name, values in OTHERS.items() if values}) == []
