"""No code of a model's folder runs, and nobody is asked."""

import builtins
import json
from pathlib import Path

import pytest

from lcc.errors import CaptureError, ModelError
from lcc.sources.folder import folder_config
from lcc.sources.models import load_empty, load_model
from lcc.testing.tiny import save_tiny


@pytest.fixture(autouse=True)
def nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object) -> str:
        raise AssertionError("somebody was asked")

    monkeypatch.setattr(builtins, "input", answer)


def code(folder: Path, name: str) -> Path:
    """A module in the folder, and the file that it writes when it runs."""
    ran = folder / f"{name}.ran"
    (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: ...\n")
    return ran


def test_an_architecture_of_its_own_is_refused_by_name(tmp_path: Path) -> None:
    ran = code(tmp_path, "modeling_mine")
    page = {"model_type": "mine", "auto_map": {"AutoConfig": "modeling_mine.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(page))
    words = r"mine needs code of the model's own folder \(modeling_mine\.py\), and lcc runs none"
    for load in (load_model, load_empty):
        with pytest.raises(ModelError, match=words) as caught:
            load(tmp_path)
        assert "trust_remote_code" not in str(caught.value)
    assert not ran.exists()


def test_code_beside_a_known_architecture_does_not_run(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    ran = code(tmp_path, "modeling_mine")
    for name, keys in (
        ("config.json", ("AutoConfig", "AutoModelForCausalLM")),
        ("tokenizer_config.json", ("AutoTokenizer",)),
    ):
        page = json.loads((tmp_path / name).read_text())
        page["auto_map"] = {key: "modeling_mine.Mine" for key in keys}
        if name == "tokenizer_config.json":
            page["auto_map"] = {"AutoTokenizer": ["modeling_mine.Mine", "modeling_mine.Mine"]}
        (tmp_path / name).write_text(json.dumps(page))
    load_model(tmp_path)
    assert not ran.exists()


def test_a_tokenizer_of_its_own_is_refused_by_name(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    ran = code(tmp_path, "tokenization_mine")
    (tmp_path / "tokenizer.json").unlink()
    page = {
        "tokenizer_class": "MineTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_mine.Mine", None]},
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(page))
    with pytest.raises(ModelError, match="its tokenizer needs code of the model's own folder"):
        load_model(tmp_path)
    assert not ran.exists()


def test_kernels_from_elsewhere_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    page = json.loads((tmp_path / "config.json").read_text())
    page["attn_implementation"] = "somebody/kernel"
    (tmp_path / "config.json").write_text(json.dumps(page))
    with pytest.raises(ModelError, match="attn_implementation is 'somebody/kernel', code from"):
        load_model(tmp_path)


def test_adapters_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "beside")
    (tmp_path / "alone").mkdir()
    for name, words in (("beside", "lies beside the weights"), ("alone", "and no model")):
        page = {"base_model_name_or_path": "x/y", "peft_type": "LORA"}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(page))
        with pytest.raises(ModelError, match=rf"an adapter \(adapter_config\.json\) {words}"):
            load_model(tmp_path / name)


def test_a_model_type_that_is_not_said_is_not_guessed(tmp_path: Path) -> None:
    """transformers takes the name of the folder for it."""
    folder = tmp_path / "gpt2-llama"
    save_tiny(folder)
    page = json.loads((folder / "config.json").read_text())
    del page["model_type"]
    (folder / "config.json").write_text(json.dumps(page))
    with pytest.raises(ModelError, match="model_type is None, wanted an architecture"):
        load_model(folder)


def test_what_cannot_be_compiled_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    page = {"model_type": "deepseek_v32", "num_hidden_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(page))  # and there are no weights
    with pytest.raises(CaptureError, match=r"its indexed_attention layers choose .*; use a model"):
        load_model(tmp_path)


@pytest.mark.parametrize("count", [2**63 - 1, 10_001, 1e300])
def test_more_layers_than_any_model_has(count: float, tiny_folder: Path, tmp_path: Path) -> None:
    """Not written down one by one, for ever."""
    page = json.loads((tiny_folder / "config.json").read_text(encoding="utf-8"))
    page["num_hidden_layers"] = count
    (tmp_path / "config.json").write_text(json.dumps(page), encoding="utf-8")
    with pytest.raises(ModelError, match=r"num_hidden_layers is .*, wanted 10,000 at most"):
        folder_config(str(tmp_path), "m")
