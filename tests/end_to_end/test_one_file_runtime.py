"""Artifacts of every policy and kind of layer, against their golden.json, by two runtimes.

The one in a single file, and lcc's own (`lcc verify --golden`). Every artifact is compiled once.
"""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lcc.runtime
from lcc.artifact.golden import read_golden
from lcc.artifact.manifest import read_manifest
from lcc.ir.plan import Full
from lcc.measure.check_golden import check_golden
from lcc.passes.policies import POLICIES
from lcc.testing import golden_damage
from lcc.testing.golden_cases import CASES, Artifacts

EXAMPLE = Path(__file__).parents[2] / "examples" / "05_runtime_in_one_file.py"


def one_file(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_is_short_and_stands_alone() -> None:
    source = EXAMPLE.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 280
    tree, found = ast.parse(source), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module).partition(".")[0])
    allowed = {"numpy", "onnxruntime", "argparse", "collections", "hashlib", "json", "math"}
    assert found <= allowed | {"pathlib", "sys"}
    assert {"numpy", "onnxruntime"} <= found, "an empty list would pass, too"
    for policy in POLICIES:
        assert policy not in source or policy in ("none", "random"), policy


def test_the_cases_cover_what_there_is() -> None:
    cases = list(CASES.values())
    assert {case.policy for case in cases} == set(POLICIES)
    assert {case.absolute for case in cases} == {True, False}
    assert {case.config.get("precision") for case in cases} == {None, "int8", "int4"}
    plans = " ".join(case.config.get("plan", "") for case in cases)
    assert "sink_window(" in plans
    assert "block_sparse(" in plans


@pytest.mark.parametrize("name", CASES)
def test_both_runtimes_reproduce_the_golden(golden_artifact: Artifacts, name: str) -> None:
    folder = golden_artifact(name)
    golden, manifest = read_golden(folder), read_manifest(folder)
    result = one_file(folder, "--golden")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "golden: all numbers are the same\n"
    report = check_golden(lcc.runtime.load(folder), folder)
    assert report.ok, [row for row in report.rows if not row.ok]
    # Guards: the golden shows what it is there for.
    assert len(golden.cycles) >= 2 or CASES[name].policy == "none"
    assert golden.exact == (not CASES[name].config.keys() & {"precision", "kv_precision"})
    for layer, kind in enumerate(each.kind for each in manifest.model.layers):
        used = max(cycle.counters["used"] for cycle in golden.cycles) if golden.cycles else 0
        if golden.cycles and isinstance(kind, Full):
            assert len(golden.cycles[0].kept[layer][0]) == used
    for group in manifest.groups[1:]:
        assert golden.logits[-1].tokens > manifest_slots(group.slots), "it was compacted"


def manifest_slots(slots: int | str) -> int:
    assert isinstance(slots, int)
    return slots


CHANGES = {
    "kept": (golden_damage.kept, "layer 1 lacks", "cycle 1, kept"),
    "counter": (golden_damage.counter, "known is 40, wanted 41", "cycle 0, known"),
    "logit": (golden_damage.logit, "logit ", "logits, "),
    "next": (golden_damage.next_token, "the next token is ", "next tokens"),
    "tokens": (golden_damage.tokens, "tokens read is ", "tokens read, "),
    "a cycle less": (golden_damage.cycle_less, "wanted none", "cycles"),
    "a cycle more": (golden_damage.cycle_more, "cycles that did not run is 1", "cycles"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_number_is_found(golden_artifact: Artifacts, tmp_path: Path, what: str) -> None:
    change, words, row = CHANGES[what]
    folder = golden_damage.changed(golden_artifact("consensus"), tmp_path / "changed.lcc", change)
    result = one_file(folder, "--golden")
    assert result.returncode == 1
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    verified = lcc_command("verify", folder, "--golden")
    assert verified.returncode == 1
    wrong = [line for line in verified.stdout.splitlines() if line.endswith("  NO")]
    assert any(line.startswith(row) for line in wrong), verified.stdout + verified.stderr
    assert verified.stdout.endswith("NOT the same\n")


def lcc_command(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lcc", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_verify_golden_needs_neither_model_nor_torch(golden_artifact: Artifacts) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from lcc.cli import main; "
        "sys.argv = ['lcc', 'verify', sys.argv[1], '--golden', '--json']; main()"
    )
    command = [sys.executable, "-c", code, str(golden_artifact("consensus"))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    page = json.loads(result.stdout)
    assert page["ok"]
    whats = [row["what"] for row in page["rows"]]
    assert whats[:3] == ["cycles", "cycle 0, counters", "cycle 0, kept"]
    assert whats[-1] == "next tokens"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "none of --golden, --model and --signature given"),
        (("--golden", "--model", "m"), "--golden and --model given"),
        (("--golden", "--heads", "h"), "--heads is of use with --model only"),
    ],
)
def test_verify_wants_one_thing(tmp_path: Path, arguments: tuple, words: str) -> None:
    result = lcc_command("verify", tmp_path, *arguments)
    assert result.returncode == 2
    assert words in result.stderr


def test_it_generates_what_a_session_does(golden_artifact: Artifacts) -> None:
    folder = golden_artifact("consensus")
    ids = [(7 * i) % 251 for i in range(200)]
    session = lcc.runtime.open(folder)
    session.feed(ids)
    wanted = list(session.generate_ids(max_new_tokens=30, temperature=0.0))
    result = one_file(folder, "--ids", ",".join(map(str, ids)), "--new", 30)
    assert result.returncode == 0, result.stderr
    got = [int(line) for line in result.stdout.split()]
    ends = read_manifest(folder).text.ends
    assert [token for token in got if token not in ends] == [t for t in wanted if t not in ends]
    assert len(got) > 3


def test_it_stops_at_an_id_that_ends_answers(golden_artifact: Artifacts, tmp_path: Path) -> None:
    folder = tmp_path / "ends.lcc"
    shutil.copytree(golden_artifact("consensus"), folder)
    got = one_file(folder, "--ids", "1,2,3", "--new", 12).stdout.split()
    end = got[5]
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["text"]["ends"] = [int(end)]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shorter = one_file(folder, "--ids", "1,2,3", "--new", 12).stdout.split()
    assert shorter == got[: got.index(end) + 1]
    assert len(shorter) < len(got)


def test_damaged_artifacts_are_refused(golden_artifact: Artifacts, tmp_path: Path) -> None:
    folder = tmp_path / "damaged.lcc"
    shutil.copytree(golden_artifact("consensus"), folder)
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest.replace('"version": 3', '"version": 4'))
    result = one_file(folder, "--golden")
    assert (result.returncode, result.stderr) == (
        1,
        f"{folder}: wanted an artifact of format version 3\n",
    )
    (folder / "manifest.json").write_text(manifest)
    weights = bytearray((folder / "weights.bin").read_bytes())
    weights[100] ^= 1
    (folder / "weights.bin").write_bytes(weights)
    result = one_file(folder, "--golden")
    assert result.returncode == 1
    assert "weights.bin: changed since it was written" in result.stderr
    (folder / "weights.bin").unlink()
    assert "weights.bin: missing" in one_file(folder, "--golden").stderr
