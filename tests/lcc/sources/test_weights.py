"""A checkpoint and the model that config.json describes: nothing is left over, all is finite."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lcc.errors import ModelError
from lcc.sources.models import load_model, loaded_model
from lcc.sources.weights import check_finite
from lcc.testing.tiny import tiny_model

Tensors = dict[str, torch.Tensor]
IDS = torch.arange(1, 30)[None]


def folder(
    path: Path, architecture: str, edit: Callable[[Tensors], None], **config: object
) -> torch.nn.Module:
    """A tiny model whose files were edited; returns the model before that."""
    model = tiny_model(architecture)
    model.save_pretrained(path)
    tensors = load_file(path / "model.safetensors")
    edit(tensors)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    page = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(page | config))
    return model


def test_what_the_configuration_has_no_place_for_is_refused(tmp_path: Path) -> None:
    q = "model.layers.0.self_attn.q_proj"

    def add(**more: torch.Tensor) -> Callable[[Tensors], None]:
        return lambda tensors: tensors.update({k.replace("__", "."): v for k, v in more.items()})

    cases: dict[str, tuple[Callable[[Tensors], None], dict[str, object], str]] = {
        "a bias": (lambda t: t.update({f"{q}.bias": torch.ones(64)}), {}, f"{q}.bias"),
        "a layer": (lambda t: None, {"num_hidden_layers": 1}, "model.layers.1.input_layernorm"),
        "an adapter": (
            lambda t: t.update({f"{q}.lora_A.weight": torch.ones(4, 64)}),
            {},
            "q_proj.lora_A.weight",
        ),
        "a norm": (
            lambda t: t.update({"model.layers.1.self_attn.k_norm.weight": torch.ones(16)}),
            {},
            "model.layers.1.self_attn.k_norm.weight",
        ),
        "a scale": (lambda t: t.update({f"{q}.weight_scale": torch.ones(1)}), {}, "weight_scale"),
        "a head": (add(score__weight=torch.ones(2, 64)), {}, "score.weight"),
        "other angles": (
            add(model__layers__0__self_attn__rotary_emb__inv_freq=torch.full((8,), 0.5)),
            {},
            "rotary_emb.inv_freq",
        ),
        "a bias that is no mask": (
            add(model__layers__0__attn__bias=torch.ones(64)),
            {},
            "attn.bias",
        ),
    }
    for name, (edit, config, words) in cases.items():
        path = tmp_path / name
        folder(path, "llama", edit, **config)
        with pytest.raises(ModelError, match="no place in the model") as caught:
            load_model(path)
        assert words in str(caught.value), name
        assert "\n" not in str(caught.value), name


def test_a_mask_that_no_pattern_of_transformers_may_hide(tmp_path: Path) -> None:
    """GPT-2's class passes over every `attn.bias`; only a causal mask means nothing."""
    folder(tmp_path, "gpt2", lambda t: t.update({"transformer.h.0.attn.bias": torch.ones(64)}))
    with pytest.raises(ModelError, match=r"the first is transformer\.h\.0\.attn\.bias"):
        load_model(tmp_path)


def test_what_is_known_to_mean_nothing_is_passed_over(tmp_path: Path) -> None:
    def masks(tensors: Tensors) -> None:
        for i in range(2):
            tensors[f"transformer.h.{i}.attn.bias"] = torch.ones(1, 1, 32, 32).tril().bool()
            tensors[f"transformer.h.{i}.attn.masked_bias"] = torch.tensor(-1e4)

    def angles(tensors: Tensors) -> None:
        freqs = 1e4 ** -(torch.arange(0, 16, 2) / 16)
        for i in range(2):
            name = f"model.layers.{i}.self_attn.rotary_emb.inv_freq"
            tensors[name] = freqs.to(torch.bfloat16)
        tensors["model.mtp.0.proj.weight"] = torch.ones(4, 4)
        tensors["vision_tower.patch.weight"] = torch.ones(4, 4)

    for architecture, edit in (("gpt2", masks), ("llama", angles)):
        model = folder(tmp_path / architecture, architecture, edit)
        module = load_model(tmp_path / architecture).module
        assert torch.equal(module(IDS).logits, model(IDS).logits), architecture


def test_an_own_head_beside_a_configuration_that_ties_it_is_used(tmp_path: Path) -> None:
    model = tiny_model("llama", tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    page = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(page | {"tie_word_embeddings": True}))
    assert torch.equal(load_model(tmp_path).module(IDS).logits, model(IDS).logits)


def test_numbers_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    for odd in (float("nan"), float("inf"), float("-inf")):
        path = tmp_path / str(odd)

        def spoil(tensors: Tensors, odd: float = odd) -> None:
            tensors[name][3, 5] = odd

        folder(path, "llama", spoil)
        with pytest.raises(ModelError, match=rf"{name} holds numbers .*{odd} at \[3, 5\], 1 in"):
            load_model(path)
    module = tiny_model("llama")
    module.model.norm.weight.data[0] = float("nan")
    with pytest.raises(ModelError, match=r"LlamaForCausalLM: model\.norm\.weight holds"):
        loaded_model(module)


def test_parts_for_other_input_may_have_bounds_without_end() -> None:
    """As Gemma 4's sound tower has them."""
    module = tiny_model("llama")
    module.model.audio_tower = torch.nn.Module()
    module.model.audio_tower.register_buffer("input_min", torch.tensor(-float("inf")))
    check_finite(module, "m")
    module.model.register_buffer("input_min", torch.tensor(-float("inf")))
    with pytest.raises(ModelError, match=r"model\.input_min holds"):
        check_finite(module, "m")


def test_a_pickle_of_tensors_is_read_and_one_of_code_is_not(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    weights = tmp_path / "pytorch_model.bin"
    torch.save(tensors, weights)
    assert torch.equal(load_model(tmp_path).module(IDS).logits, model(IDS).logits)
    torch.save({**tensors, "extra.weight": torch.ones(2)}, weights)
    with pytest.raises(ModelError, match=r"the first is extra\.weight"):
        load_model(tmp_path)
    ran = tmp_path / "ran"

    class Code:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return open, (str(ran), "w")  # type: ignore[return-value]

    torch.save({**tensors, "lm_head.weight": Code()}, weights)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(tmp_path)
    assert not ran.exists()
