"""Tables as a part of the artifact, or the reason why there are none."""

import json
from pathlib import Path

import msgspec

from lcc.artifact.folder import verify_files
from lcc.artifact.manifest import Manifest, read_manifest
from lcc.cli.inspect import describe
from lcc.compile import compile_model
from lcc.config import CacheConfig, CompileConfig, PolicyConfig
from lcc.sources.models import LoadedModel
from lcc.sources.text_tables.interpret import Interpreter
from lcc.testing.tiny import tiny_model, tiny_tokenizer

CONFIG = CompileConfig(
    target="reference",
    cache=CacheConfig(capacity=64, budget=32, chunk_size=8, catalyst_size=0, recent_size=4),
    policy=PolicyConfig(name="sink_window"),
)


def compiled(page: str, output: Path) -> Manifest:
    files = {"tokenizer.json": page.encode(), "generation_config.json": b"{}"}
    loaded = LoadedModel(tiny_model("llama").eval(), "tiny", "llama", files=files)
    compile_model(loaded, output, CONFIG)
    return read_manifest(output)


def test_the_artifact_holds_tables_that_read_as_the_tokenizer(tiny_artifact: Path) -> None:
    manifest = read_manifest(tiny_artifact)
    verify_files(tiny_artifact, manifest)
    assert manifest.text.no_tables is None
    assert manifest.files["text.bin"].bytes == (tiny_artifact / "text.bin").stat().st_size
    tables = Interpreter((tiny_artifact / "text.bin").read_bytes())
    text = "It was <|im_end|> the é of times."
    assert tables.encode(text) == tiny_tokenizer().encode(text).ids
    assert tables.read_plain(text) == list(text.encode())
    assert "also as tables, " in describe(manifest)


def test_an_unknown_rule_leaves_the_tables_out_and_says_why(tmp_path: Path) -> None:
    page = json.loads(tiny_tokenizer().to_str())
    page["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [{"type": "UnicodeScripts"}, page["pre_tokenizer"]],
    }
    manifest = compiled(json.dumps(page), tmp_path / "without.lcc")
    assert "text.bin" not in manifest.files
    assert (tmp_path / "without.lcc/tokenizer.json").is_file()
    reason = "pre_tokenizer 0 is of type UnicodeScripts, which the tables have no place for"
    assert manifest.text.no_tables == reason
    assert f"no tables: {reason}" in describe(manifest)
    plain = compiled(tiny_tokenizer().to_str(), tmp_path / "with.lcc")
    assert msgspec.structs.replace(manifest.text, no_tables=None) == plain.text
    assert set(plain.files) - set(manifest.files) == {"text.bin"}
