"""Models from folders, and the errors for everything that is none."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

import lcc.runtime
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.errors import ConfigError, LccError, ModelError
from lcc.measure.verify import verify
from lcc.sources.models import LoadedModel, load_model
from lcc.testing.tiny import (
    ARCHITECTURES,
    CHAT_TEMPLATE,
    END,
    save_tiny,
    tiny_model,
    tiny_tokenizer,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    save_tiny(path)
    return path


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loads_what_was_saved(architecture: str, tmp_path: Path) -> None:
    saved = save_tiny(tmp_path / "model", architecture, seed=3)
    loaded = load_model(tmp_path / "model")
    ids = torch.arange(1, 40)[None]
    with torch.no_grad():
        expected, got = saved(ids).logits, loaded.module(ids).logits
    assert expected.std() > 0.5, "the model says nothing: any two would be equal"
    assert torch.equal(expected, got)
    assert (loaded.name, loaded.architecture) == ("model", architecture)
    assert loaded.trained_window == 512


def test_module_is_ready_for_capture(folder: Path) -> None:
    module = load_model(folder).module
    assert not module.training
    for parameter in module.parameters():
        assert parameter.dtype == torch.float32
        assert not parameter.requires_grad
    assert module.lm_head.weight is module.model.embed_tokens.weight


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    model = tiny_model("llama").to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    weight = load_model(tmp_path).module.model.norm.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, model.model.norm.weight.float())


def test_text_files(folder: Path) -> None:
    files = load_model(folder).files
    assert set(files) == {
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    }
    assert files["chat_template.jinja"].decode() == CHAT_TEMPLATE
    assert json.loads(files["generation_config.json"])["eos_token_id"] == [END]
    assert json.loads(files["tokenizer_config.json"])["eos_token"] == "<|im_end|>"
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    text = "Grüße 12\n<|im_end|>"
    assert tokenizer.encode(text).ids == [*"Grüße 12\n".encode(), END]


def test_text_files_say_nothing_of_this_machine(folder: Path) -> None:
    for name, content in load_model(folder).files.items():
        assert str(folder).encode() not in content, name
        assert b"transformers_version" not in content, name


def test_same_model_same_bytes(folder: Path) -> None:
    assert load_model(folder).files == load_model(folder).files


def test_folder_without_tokenizer(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    assert set(load_model(tmp_path).files) == {"generation_config.json"}


def test_a_tokenizer_of_other_files(tmp_path: Path) -> None:
    """As GPT-2 was first published: vocab.json and merges.txt."""
    tiny_model("gpt2").save_pretrained(tmp_path)
    letters = {letter: i for i, letter in enumerate("abcdefgh")}
    (tmp_path / "vocab.json").write_text(json.dumps(letters | {"ab": 8, "<|endoftext|>": 9}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    assert "tokenizer.json" in load_model(tmp_path).files


def test_a_model_without_tokenizer_is_fed_ids(tmp_path: Path) -> None:
    cache = CacheConfig(capacity=64, budget=32, chunk_size=8, catalyst_size=8, recent_size=4)
    module, output = tiny_model("llama"), tmp_path / "m.lcc"
    with pytest.raises(
        ConfigError, match=r"policy consensus goes by sentences and .* no tokenizer"
    ):
        compile_model(module, output, CompileConfig(cache=cache))
    ids = list(range(5, 150))
    for policy in ("snapkv", "infinipot"):
        config = CompileConfig(cache=cache, policy=PolicyConfig(name=policy))
        compile_model(module, output, config)
        session = lcc.runtime.open(output)
        session.feed(ids)
        assert session.cycles
        assert len(list(session.generate_ids(ids[:9], max_new_tokens=5))) == 5
        before = session.tokens
        for call in (lambda: session.feed("text"), lambda: session.generate(ids)):  # noqa: B023
            with pytest.raises(ConfigError, match="no tokenizer; give token ids in place of text"):
                call()
        assert session.tokens == before
        assert verify(output, LoadedModel(module, "tiny", "LlamaForCausalLM")).ok


def test_every_end_of_an_answer_is_known(tmp_path: Path) -> None:
    save_tiny(tmp_path, eos_token_id=256)  # the configuration says one thing, the tokenizer another
    files = load_model(tmp_path).files
    assert json.loads(files["generation_config.json"])["eos_token_id"] == [256, END]


def edit_config(folder: Path, **fields: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return folder


def fake_folder(path: Path, **config: object) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_refuses_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.bin").write_text("no model")
    (tmp_path / "fake.gguf").write_text("no model")
    save_tiny(tmp_path / "quantized")
    save_tiny(tmp_path / "incomplete", tie_word_embeddings=False)
    weights = tmp_path / "incomplete" / "model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors = load_file(weights)
    del tensors["lm_head.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    cases = {
        tmp_path / "missing": "no such file or folder",
        tmp_path / "empty": "not a model folder, it has no config.json",
        tmp_path / "text.bin": "not a model; wanted a folder",
        tmp_path / "fake.gguf": "not a GGUF file",
        tmp_path / "missing.gguf": "no such file or folder",
        tmp_path / "incomplete": "1 weights are not in the checkpoint, the first is lm_head.weight",
        tmp_path / "broken": "cannot be loaded",
        fake_folder(tmp_path / "bert", model_type="bert", architectures=["BertForMaskedLM"]):
            r"bert \(BertForMaskedLM\) is not a decoder",
        fake_folder(tmp_path / "vit", model_type="vit"): "vit is not a decoder",
        fake_folder(tmp_path / "t5", model_type="t5", is_encoder_decoder=True): "encoder-decoder",
        fake_folder(tmp_path / "new", model_type="not_invented_yet"): "cannot be loaded",
        edit_config(tmp_path / "quantized", quantization_config={"quant_method": "vptq"}):
            r"quantized \(vptq\), which lcc does not read",
        Path("package:no-such-package"): "pip install --no-deps no-such-package",
    }  # fmt: skip
    for source, words in cases.items():
        with pytest.raises(ModelError, match=words) as caught:
            load_model(source)
        assert "\n" not in str(caught.value), source


def test_unknown_hub_name_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="nobody/no-such-model: cannot be loaded"):
        load_model("nobody/no-such-model")


def test_no_tiny_model_of_that_name() -> None:
    with pytest.raises(LccError, match=r"no tiny bert; there are: bloom, .*gpt2, .*llama"):
        tiny_model("bert")


def test_tiny_models_follow_their_seed() -> None:
    first, same, other = (tiny_model("llama", seed).lm_head.weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_tiny_tokenizer_is_bytes() -> None:
    text = "".join(map(chr, range(0x250)))
    ids = tiny_tokenizer().encode(text).ids
    assert ids == list(text.encode())
    assert tiny_tokenizer().decode(ids) == text
