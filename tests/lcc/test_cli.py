"""The command line: what it prints where, its exit codes, and one clear line for every mistake."""

import contextlib
import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from lcc.artifact.manifest import read_manifest
from lcc.cli import app
from lcc.cli.options import merge, parse_bytes, parse_options
from lcc.config import CompileConfig
from lcc.errors import ConfigError
from lcc.runtime import Session, open
from lcc.targets import TARGETS
from lcc.testing.tiny import save_tiny


def lcc(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], input=stdin)


def refused(*arguments: object, words: str, stdin: str | bytes | None = None) -> None:
    """A user's mistake: exit code 2, nothing on stdout, one line on stderr with these words."""
    result = lcc(*arguments, stdin=stdin)
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("lcc: error: ")
    assert words in line


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("It is a truth universally acknowledged. " * 20, encoding="utf-8")
    return path


SMALL = ("--capacity", 128, "--chunk-size", 16, "--catalyst-size", 32, "--recent-size", 8)
SMALL = (*SMALL, "--catalyst", "What matters?")


def test_help_is_complete() -> None:
    result = lcc("--help")
    assert result.exit_code == 0
    assert "A first session:\n    lcc demo" in result.stdout
    assert lcc("--version").stdout == "lcc 0.1.0\n"


def test_usage_errors() -> None:
    for arguments in (["compile"], ["no-such-command"], ["run", "x", "--no-such-flag"]):
        result = lcc(*arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "Error: " in result.stderr


def test_a_bug_is_one_line(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    def fail(*_: object) -> None:
        raise KeyError("first\nsecond")

    monkeypatch.setattr("lcc.cli.inspect.read_manifest", fail)
    result = lcc("inspect", tiny_folder)
    assert result.exit_code == 3
    (line,) = result.stderr.splitlines()
    assert line.startswith("lcc: bug: KeyError: ")
    assert "LCC_LOG=debug" in line
    monkeypatch.setenv("LCC_LOG", "debug")
    assert isinstance(lcc("inspect", tiny_folder).exception, KeyError)


def test_compile_and_config_file(tiny_folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text("cache: {capacity: 128, chunk_size: 16, catalyst_size: 0, recent_size: 8}\n")
    flags = ("--config", config, "--policy", "sink_window", "--budget", 32)
    result = lcc("compile", tiny_folder, "-o", tmp_path / "out.lcc", *flags)
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.stdout.startswith(f"{tmp_path / 'out.lcc'}: tiny-llama for onnxruntime:cpu\n")
    assert "  total " in result.stdout
    manifest = read_manifest(tmp_path / "out.lcc")
    assert (manifest.cache.capacity, manifest.cache.budget, manifest.policy.name) == (
        128,
        32,
        "sink_window",
    )


def test_compile_refuses(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.lcc"
    save_tiny(tmp_path / "bert")
    config = tmp_path / "bert" / "config.json"
    page = json.loads(config.read_text())
    config.write_text(json.dumps(page | {"model_type": "t5", "is_encoder_decoder": True}))
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("x")

    def case(model: object, *flags: object, words: str, output: Path = out) -> None:
        refused("compile", model, "-o", output, *flags, words=words)
        assert not out.exists()

    case(tmp_path / "nothing", words="nothing: no such file or folder")
    case(tmp_path / "file", words="not a model")
    case(tmp_path / "full", words="it has no config.json")
    case(tmp_path / "bert", words="encoder-decoder")
    case(tiny_folder, "--budget", 4096, words="budget (4096) must be smaller than capacity (2048)")
    case(tiny_folder, "--chunk-size", 4096, words="wanted 5184 slots or more, or smaller chunks")
    case(tiny_folder, "--policy", "magic", words="policy is 'magic', wanted one of consensus, ")
    case(tiny_folder, "--target", "magic", words="target is 'magic', wanted one of onnxruntime:cpu")
    case(tiny_folder, "--positions", "magic", words="Invalid enum value 'magic' - at `$.cache.pos")
    case(tiny_folder, "--precision", "bf16", words="wanted fp32, int8, int4, given (")
    case(tiny_folder, "--kv-precision", "int8", words="kv_precision is 'int8', wanted fp32, fp16 (")
    case(tiny_folder, "--memory", "much", words="'much' is not a size; wanted a number with a unit")
    case(tiny_folder, "--memory", "1MB", words="no budget fits")
    case(tiny_folder, "--config", tmp_path / "no.yaml", words="no.yaml: No such file or directory")
    # The whole way, up to the writing:
    case(tiny_folder, *SMALL, output=tmp_path / "full", words="exists and is no artifact")
    case(tiny_folder, *SMALL, output=tmp_path / "file" / "x.lcc", words="File exists")


def test_memory_chooses_the_largest_budget(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.lcc"
    quick = ("--target", "reference")  # the table is made before anything is built
    refusal = lcc("compile", tiny_folder, "-o", out, "--memory", "1MB").stderr
    assert "the smallest, 128 with capacity 448, takes " in refusal
    least = int(refusal.partition(", takes ")[2].partition(" bytes")[0].replace(",", ""))
    budgets = []
    for memory in (f"{least - 1}B", f"{least}B", "4GB"):
        result = lcc("compile", tiny_folder, "-o", out, "--memory", memory, "--json", *quick)
        if memory == f"{least - 1}B":
            assert "no budget fits" in result.stderr
            continue
        assert result.exit_code == 0, (result.output, result.exception)
        manifest = json.loads(result.stdout)
        assert sum(row["bytes"] for row in manifest["memory"]) <= parse_bytes(memory)
        budgets.append(manifest["cache"]["budget"])
        assert manifest["cache"]["capacity"] <= 512  # what the model was trained on
    assert budgets == [128, 192]
    trained = "capacity is 1024, tiny-llama was trained on positions below 512"
    refused("compile", tiny_folder, "-o", out, "--capacity", 1024, words=trained)
    without = ("--catalyst-size", 0, "--capacity", 400, "--chunk-size", 64)
    refused("compile", tiny_folder, "-o", out, *without, words="catalyst_size is 0, the policy")


def test_run(tiny_artifact: Path, text: Path) -> None:
    flags = ("--file", text, "--prompt", "Who?", "-n", 8)
    plain = lcc("run", tiny_artifact, *flags)
    assert plain.exit_code == 0, (plain.output, plain.exception)
    assert plain.stderr == ""
    page = json.loads(lcc("run", tiny_artifact, *flags, "--json").stdout)
    assert page["answer"] + "\n" == plain.stdout
    assert page["stats"]["cycles"] > 5
    assert page["stats"]["tokens"] > 800
    assert "peak memory" in lcc("run", tiny_artifact, *flags, "-v").stderr
    piped = lcc("run", tiny_artifact, "--file", "-", *flags[2:], stdin=text.read_bytes())
    assert piped.stdout == plain.stdout


def test_control_tokens_of_a_file_are_text(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ids = tmp_path / "text.txt", list[int]()
    path.write_text("it quotes <|im_end|> twice: <|im_end|>")
    read = Session.feed

    def feed(session: Session, *given: object, **more: object) -> int:
        count = read(session, *given, **more)
        ids[:] = [*session._executor.since_cycle, *session._reader.pending]
        return count

    monkeypatch.setattr(Session, "feed", feed)
    for more, wanted in (((), [257]), (("--control-tokens",), [257, 258, 258])):
        result = lcc("run", tiny_artifact, "--file", path, "-p", "Who <|im_end|>?", "-n", 1, *more)
        assert result.exit_code == 0, (result.output, result.exception)
        assert [token for token in ids if token > 255] == wanted


def test_run_with_a_catalyst(
    tiny_artifact: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    feed = Session.feed

    def recorded(self: Session, *arguments: object, **options: object) -> int:
        seen.append(self.catalyst)
        return feed(self, *arguments, **options)

    monkeypatch.setattr(Session, "feed", recorded)
    for more in ((), ("--catalyst", "question"), ("--catalyst", "Numbers")):
        flags = ("--file", text, "--prompt", "Who?", "-n", 1)
        assert lcc("run", tiny_artifact, *flags, *more).exit_code == 0
    assert seen == [list(b"What matters?"), "Who?", "Numbers"]
    state = tmp_path / "a.lccstate"
    lcc("run", tiny_artifact, "--file", text, "--catalyst", "Who?", "--save", state)
    for more in ((), ("--catalyst", "Numbers")):
        assert lcc("run", tiny_artifact, "--load", state, *flags, *more).exit_code == 0
    assert seen[4:] == ["Who?", "Numbers"], "the state's own, unless another one is asked for"


def test_what_is_read_after_a_loaded_state_begins_a_paragraph(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    state, texts = tmp_path / "a.state", [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path, words in zip(texts, ("The last word is alpha", "beta is the first"), strict=True):
        path.write_text(words)
    lcc("run", tiny_artifact, "--file", texts[0], "--save", state, "-q")
    ask = ("--file", texts[1], "--prompt", "Which?", "--json", "-q")
    later = json.loads(lcc("run", tiny_artifact, "--load", state, *ask).stdout)
    together = json.loads(lcc("run", tiny_artifact, "--file", texts[0], *ask).stdout)
    assert later["stats"]["tokens"] == together["stats"]["tokens"]
    assert later["answer"] == together["answer"]


def test_run_saves_and_loads(tiny_artifact: Path, text: Path, tmp_path: Path) -> None:
    state = tmp_path / "text.lccstate"
    saved = lcc("run", tiny_artifact, "--file", text, "--save", state)
    assert (saved.exit_code, saved.stdout) == (0, "")
    ask = ("--prompt", "Who?", "-n", 8, "--json")
    loaded = json.loads(lcc("run", tiny_artifact, "--load", state, *ask).stdout)
    direct = json.loads(lcc("run", tiny_artifact, "--file", text, *ask).stdout)
    assert loaded["answer"] == direct["answer"]
    assert loaded["stats"]["tokens"] == direct["stats"]["tokens"]


def test_run_stopped_while_it_reads_saves_what_was_read(
    tiny_artifact: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def stopping(*, quiet: bool) -> Iterator[Callable[[str, float], None]]:
        def report(step: str, done: float) -> None:
            if done > 0.5:
                raise KeyboardInterrupt

        yield report

    monkeypatch.setattr("lcc.cli.run.progress_bar", stopping)
    state = tmp_path / "part.lccstate"
    ask = ("run", tiny_artifact, "--file", text, "--prompt", "Who?")
    stopped = lcc(*ask, "--save", state)
    session = open(tiny_artifact)
    session.load(state)
    count = len(session.encode(text.read_text()))
    assert count / 2 < session.tokens < count
    line = f"lcc: {session.tokens:,} tokens were read and are saved in {state}"
    assert (stopped.exit_code, stopped.stdout) == (130, "")
    assert stopped.stderr.splitlines() == [line, "lcc: stopped"]
    assert lcc(*ask).stderr.splitlines() == ["lcc: stopped"]


def test_run_finds_a_place_where_nothing_can_be_saved_before_it_reads(
    tiny_artifact: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, other = tmp_path / ("long" * 62), tmp_path / "s.lccstate"
    ask = ("run", tiny_artifact, "--file", text, "--save")
    monkeypatch.setattr(Session, "feed", None)
    refused(*ask, state, words="longlong: cannot be written: File name too long")
    other.write_text("of before")
    assert lcc(*ask, other).exit_code == 3, "feed is what stops it"
    assert other.read_text() == "of before"
    assert [*tmp_path.iterdir()] == [text, other]


def test_run_refuses(tiny_artifact: Path, text: Path, tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Grüße".encode("latin-1"))
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")

    def case(*flags: object, words: str, stdin: str | None = None) -> None:
        refused("run", tiny_artifact, *flags, words=words, stdin=stdin)

    ask = ("--prompt", "Who?")
    refused("run", tmp_path, *ask, words="is not an artifact")
    refused("run", tmp_path / "none.lcc", *ask, words="none.lcc: cannot read manifest.json")
    case("--file", tmp_path / "none.txt", *ask, words="none.txt: No such file or directory")
    case("--file", tmp_path, *ask, words="Is a directory")
    case("--file", latin, *ask, words="latin.txt: not UTF-8 text, byte 0xfc at offset 2; convert")
    case("--file", empty, *ask, words="empty.txt: no text in it")
    case("--file", "-", *ask, words="standard input: no text in it", stdin="")
    case("--file", text, "--prompt", " ", words="the prompt is empty")
    case("--file", text, words="nothing to answer; give a question with --prompt")
    case("--file", text, "--catalyst", "question", "--save", "s", words="needs a --prompt")
    case("--catalyst", "many words " * 9, *ask, words="catalyst_size is 32")
    case("--temperature", "-1", *ask, words="temperature is -1.0, wanted 0 or more")
    case("--capacity", 4096, *ask, words="capacity is 4096, the artifact was compiled for 128")
    case("--load", text, *ask, words="text.txt")


def test_state_of_another_artifact(tiny_artifact: Path, text: Path, tmp_path: Path) -> None:
    other = shutil.copytree(tiny_artifact, tmp_path / "o.lcc")
    manifest = (other / "manifest.json").read_bytes()
    (other / "manifest.json").write_bytes(manifest.replace(b"tiny-llama", b"tiny-other"))
    assert lcc("run", tmp_path / "o.lcc", "--file", text, "--save", tmp_path / "s").exit_code == 0
    refused("run", tiny_artifact, "--load", tmp_path / "s", "--prompt", "Who?", words="artifact")


def test_damaged_artifacts(tiny_artifact: Path, tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        return Path(shutil.copytree(tiny_artifact, tmp_path / name))

    ask = ("--prompt", "Who?")
    weights = damaged("cut") / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused("run", tmp_path / "cut", *ask, words="weights.bin: ")
    content = bytearray((damaged("changed") / "step.onnx").read_bytes())
    content[100] ^= 1
    (tmp_path / "changed" / "step.onnx").write_bytes(content)
    refused("run", tmp_path / "changed", *ask, words="step.onnx: changed since it was written")
    refused("inspect", tmp_path / "changed", "--check", words="step.onnx: changed")
    page = json.loads((damaged("newer") / "manifest.json").read_text())
    (tmp_path / "newer" / "manifest.json").write_text(json.dumps(page | {"version": 4}))
    refused("run", tmp_path / "newer", *ask, words="version 4, this lcc reads version 3")
    refused("inspect", tmp_path / "newer", words="version 4, this lcc reads version 3")
    page["files"]["../weights.bin"] = page["files"].pop("weights.bin")
    (damaged("leaves") / "manifest.json").write_text(json.dumps(page))
    refused("run", tmp_path / "leaves", *ask, words="leaves the folder")


def test_chat(tiny_artifact: Path, text: Path) -> None:
    lines = (
        f"Hello\n\n/stats\n/file {text}\nWhat is it?\n/file\n/nonsense\n/clear\n/help\nBye\n/exit\n"
    )
    result = lcc("chat", tiny_artifact, "-n", 4, "--system", "Be short.", stdin=lines)
    assert result.exit_code == 0, (result.output, result.exception)
    for words in ("peak memory", "/file wants a path", "no command /nonsense", "forget everything"):
        assert words in result.stderr
    assert lcc("chat", tiny_artifact, stdin="").exit_code == 0


def test_chat_answers_again(tiny_artifact: Path) -> None:
    """As if it had not answered: greedily, in the same words."""
    lines = "/again\nHello\n/again\n/stats\n"
    result = lcc("chat", tiny_artifact, "-n", 4, "--temperature", 0, stdin=lines)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "/again: nothing was answered yet" in result.stderr
    said = result.stdout
    assert said.strip()
    assert said[: len(said) // 2] * 2 == said
    once = lcc("chat", tiny_artifact, "-n", 4, "--temperature", 0, stdin="Hello\n/stats\n")
    entries = re.search(r"cache +\d+ of", once.stderr)
    assert entries
    assert entries[0] in result.stderr, "the first answer is not held any more"


def test_inspect(tiny_artifact: Path) -> None:
    shown = lcc("inspect", tiny_artifact).stdout
    for words in (
        "policy     consensus\n           catalyst = What matters?\n           nll_weight = 0.25",
        "  0-1  full  4 query heads, 2 KV heads of 16\n",
        "in   key_0 .. key_1      float32 [1, 2, slots, 16]",
        "capacity 128, budget 64",
        "weights: resident, packed for the kernels; with --mapped in their file, 331.8 kB",
        "Layer groups\n  full  capacity slots  kept .. used  layers 0-1\n",
        "key_0 .. key_1 ",
        "  read\n    text tokens, chunk_size at a time\n      prefill_chunk (decode where n is",
        "  cycle\n",
    ):
        assert words in shown
    assert re.search(r"  find_attention +2 sites\n", shown)
    page = json.loads(lcc("inspect", tiny_artifact, "--json").stdout)
    assert page == msgspec.json.decode((tiny_artifact / "manifest.json").read_bytes())
    assert lcc("inspect", tiny_artifact, "--check").stderr.endswith("as they were written\n")


def test_inspect_moves_no_cursor(tiny_artifact: Path, tmp_path: Path) -> None:
    page = json.loads((tiny_artifact / "manifest.json").read_text())
    page["made_by"] = "x\x1b[2J\r"
    (tmp_path / "manifest.json").write_text(json.dumps(page))
    shown = lcc("inspect", tmp_path).stdout
    assert "x\\x1b[2J" in shown
    assert all(line.isprintable() for line in shown.split("\n"))


def test_verify(tiny_artifact: Path, tiny_folder: Path, tmp_path: Path) -> None:
    result = lcc("verify", tiny_artifact, "--model", tiny_folder)
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.stdout.endswith("\nthe same\n")
    page = json.loads(lcc("verify", tiny_artifact, "--model", tiny_folder, "--json").stdout)
    assert page["ok"]
    assert {"what", "against", "max_error", "tolerance", "ok"} == set(page["rows"][0])
    sizes = "--capacity 96 --budget 40 --chunk-size 16 --catalyst-size 8 --recent-size 4".split()
    low = ["--precision", "int4", "--policy", "knorm", "-o", tmp_path / "low.lcc", *sizes]
    assert lcc("compile", tiny_folder, *low).exit_code == 0
    result = lcc("verify", tmp_path / "low.lcc", "--model", tiny_folder)
    assert result.stdout.endswith("\nwithin what this precision may lose\n")
    save_tiny(tmp_path / "other", seed=5)
    result = lcc("verify", tmp_path / "low.lcc", "--model", tmp_path / "other")
    assert result.exit_code == 1, (result.output, result.exception)
    assert result.stdout.endswith("MORE lost than may be\n")
    result = lcc("verify", tiny_artifact, "--model", tmp_path / "other")
    assert result.exit_code == 1, (result.output, result.exception)
    assert result.stdout.endswith("NOT the same\n")
    refused("verify", tiny_artifact, "--model", tmp_path / "none", words="no such file or folder")
    save_tiny(tmp_path / "gpt2", "gpt2")
    refused("verify", tiny_artifact, "--model", tmp_path / "gpt2", words="another model")


def test_verify_takes_the_most_probable_tokens(tiny_folder: Path, tmp_path: Path) -> None:
    """Whatever the model says of how it likes to be asked."""
    shutil.copytree(tiny_folder, tmp_path / "model")
    says = json.loads((tmp_path / "model/generation_config.json").read_text())
    says |= {"repetition_penalty": 50.0, "do_sample": True}
    (tmp_path / "model/generation_config.json").write_text(json.dumps(says))
    small = [*SMALL[:-2], "--policy", "knorm", "-o", tmp_path / "m.lcc"]
    assert lcc("compile", tmp_path / "model", *small).exit_code == 0
    result = lcc("verify", tmp_path / "m.lcc", "--model", tmp_path / "model")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "the same")


def test_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {line.split()[0]: line for line in lcc("targets").stdout.splitlines()}
    assert set(rows) == {"target", *TARGETS}
    assert "yes            yes" in rows["onnxruntime:cpu"]
    assert "yes            yes" in rows["tvm:cpu"]
    assert "no: has no NnapiExecutionProvider" in rows["onnxruntime:nnapi"]
    pages = json.loads(lcc("targets", "--json").stdout)
    assert pages["reference"]["missing"] == []
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    text = lcc("targets").stdout
    wanted = sum("onnxscript" in entry.needs for entry in TARGETS.values())
    assert text.count("no: needs onnxscript") == wanted > 0
    assert "for what is missing: pip install" in text


def test_missing_extra(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "lcc.compile", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    words = "torch is not installed; do: pip install 'long-context-compiler[compile]'"
    refused("compile", tiny_folder, "-o", tmp_path / "x.lcc", words=words)


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCC_TARGTE", "reference")
    assert "LCC_TARGTE is set, but no variable of lcc has this name" in lcc("targets").stderr
    monkeypatch.delenv("LCC_TARGTE")
    monkeypatch.setenv("LCC_LOG", "loud")
    refused("targets", words="LCC_LOG is 'loud', wanted one of debug, info, warning, error")
    monkeypatch.setenv("LCC_TARGET", "reference")
    assert merge(None, {}).target == "reference"
    assert merge(None, {"target": "onnxruntime:cpu"}).target == "onnxruntime:cpu"


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MB", 512_000_000), ("1.5 gb", 1_500_000_000), ("2GiB", 2 << 30), ("100", 100)],
)
def test_parse_bytes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_options_of_a_policy() -> None:
    given = ["alpha=0.3", "attention_span=21", "catalyst=a = b", "seed=1e3", "alpha=1", "note= 7b"]
    options = {"alpha": 1, "attention_span": 21, "catalyst": "a = b", "seed": 1000.0, "note": " 7b"}
    assert parse_options(given) == options
    assert [type(value) for value in parse_options(given).values()] == [int, int, str, float, str]
    assert parse_options(["catalyst=x"], catalyst="2026") == {"catalyst": "2026"}
    for wrong in ("alpha", "=3", ""):
        with pytest.raises(ConfigError, match=f"--option {wrong}: wanted NAME=VALUE, such as"):
            parse_options([wrong])


def test_compile_with_options(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.lcc"
    flags = (*SMALL[:-2], "--target", "reference", "-o", out)
    own = ("--policy", "snapkv", "--option", "attention_span=21")
    result = lcc("compile", tiny_folder, *flags, *own)
    assert result.exit_code == 0, (result.output, result.exception)
    assert read_manifest(out).policy.options == {"attention_span": 21}
    words = "policy snapkv: unknown option 'nll_span'; it knows attention_span"
    refused("compile", tiny_folder, *flags, *own, "--option", "nll_span=1", words=words)
    words = "policy snapkv: unknown option 'catalyst'; it knows attention_span"
    refused("compile", tiny_folder, *flags, *own, "--catalyst", "x", words=words)


def test_merge(tmp_path: Path) -> None:
    def merged(yaml: str, **flags: object) -> CompileConfig:
        (tmp_path / "c.yaml").write_text(yaml)
        return merge(tmp_path / "c.yaml", flags)

    assert merge(None, {}) == CompileConfig()
    assert merged("") == CompileConfig()
    config = merged(
        "cache: {capacity: 4096}\npolicy: {name: infinipot, options: {alpha: 1, nll_span: 3}}",
        policy={"name": None, "options": {"alpha": 0.25}},
    )
    assert (config.cache.capacity, config.cache.budget) == (4096, 2048)
    assert config.policy.options == {"alpha": 0.25, "nll_span": 3}, "one by one"
    config = merged("memory_bytes: 1GB\ncache: {capacity: 4096}", cache={"budget": 100})
    assert (config.memory_bytes, config.cache.budget, config.fit_budget) == (10**9, 100, False)
    assert merged("memory_bytes: 1GB").fit_budget

    (tmp_path / "p.yml").write_text("plan: '0: full'\ncache: {positions: absolute, sink_size: 9}")
    config = merged("cache: {sink_size: 8, capacity: 4096}", plan=str(tmp_path / "p.yml"))
    assert (config.plan, config.cache.positions, config.cache.sink_size) == (
        "0: full",
        "absolute",
        8,
    )
    with pytest.raises(ConfigError, match=r"c\.yaml: no plan in it; wanted plan: "):
        merged("cache: {}", plan=str(tmp_path / "c.yaml"))

    for yaml, words in {
        "cash: {}": "unknown key 'cash'; did you mean cache? known: target, also, cache",
        "cache: {bugdet: 4}": "cache: unknown key 'bugdet'; did you mean budget? known: capacity",
        "cache: 4": "cache is 4, wanted names and values",
        "- 1": "wanted names and values at the top",
        "a: [": "not YAML",
        "cache: {budget: '64'}": "Expected `int`, got `str` - at `$.cache.budget`",
        "policy: {alpha: 2}": "policy: unknown key 'alpha'; known: name, options",
        "policy: {options: 4}": "policy: options is 4, wanted names and values",
    }.items():
        with pytest.raises(ConfigError) as caught:
            merged(yaml)
        assert words in str(caught.value)
