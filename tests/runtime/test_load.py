import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import lcc.runtime
from lcc.artifact.folder import ReplacedError
from lcc.errors import ArtifactError, CacheError, ConfigError, TargetError

CODE = """
import sys, time
begin = time.process_time()  # of this process, whatever else the machine does
import lcc.runtime
seconds = time.process_time() - begin
heavy = {"torch", "onnx", "transformers", "onnxruntime", "tokenizers", "jinja2", "safetensors"}
print(min(seconds, 9), sorted(heavy & set(sys.modules)))
"""


def test_import_is_small():
    results = [subprocess.check_output([sys.executable, "-c", CODE], text=True) for _ in range(3)]
    assert all(result.endswith("[]\n") for result in results)
    assert min(float(result.split()[0]) for result in results) < 0.5


def test_sizes_may_be_lowered(make_session):
    session = make_session(load={"capacity": 20, "budget": 8, "chunk_size": 2})
    session.feed("a" * 50)
    assert session.capacity == 20
    assert session.cycles[0].used_before == 12
    assert session.cycles[0].used_after == 8
    assert session._executor.buffers.arrays["key_0"].shape == (1, 2, 20, 4)
    assert {call for call in session.engine.calls if "step" in call} == {"step 2"}


def test_sizes_that_cannot_be(make_session, make_artifact):
    for sizes, kind, message in (
        ({"capacity": 33}, CacheError, "capacity is 33, the artifact was compiled for 32"),
        ({"budget": 13}, CacheError, "budget is 13, the artifact was compiled for 12"),
        ({"budget": 5}, ConfigError, r"sink_size \+ recent_size \(2 \+ 3 = 5\) must be smaller"),
        ({"capacity": 24}, ConfigError, r"budget \+ chunk_size \+ catalyst_size"),
        ({"seed": 1}, ConfigError, 'seed is 1, but policy "fake" draws no numbers'),
    ):
        with pytest.raises(kind, match=message):
            make_session(load=sizes)
    with pytest.raises(ConfigError, match="threads is 0"):
        lcc.runtime.load(make_artifact(), threads=0)


def test_a_seed_is_told_to_the_programs_whatever_is_forgotten(make_model):
    model = make_model(options={"seed": 3})
    for seed in (-1, 2**31):
        with pytest.raises(ConfigError, match=f"seed is {seed}, wanted 0 to 2147483647"):
            model.session(seed=seed)
    session = model.session(seed=9)
    assert session._executor.counters["seed"] == 9
    session.feed("abc")
    session.reset()
    assert session._executor.counters["seed"] == 9
    assert model.session()._executor.counters["seed"] == 0, "as compiled"


TEXTS = [
    "the cat sat on the mat and the dog ran far away over the hills",
    "never mind how long precisely, having little or no money in my purse",
]


def told(session):
    ids = session.encode(TEXTS[0])
    session.feed(ids)
    return list(session.generate_ids(max_new_tokens=9, eos=[])), session.kept_tokens(1).tolist()


def test_sessions_of_a_model_share_nothing_but_the_model(make_model):
    model = make_model()
    assert model.engine.loaded, "all programs, before the first session"
    first, second = model.session(), model.session(budget=8)
    first.catalyst = "why?"
    first.feed(TEXTS[1])
    first.on_cycle = print
    assert (second.tokens, second.on_cycle, second.catalyst) == (0, None, list(b"sum up"))
    second.feed(TEXTS[0])
    before = first.next_logits()
    second.reset()
    assert (first.next_logits() == before).all()
    assert (first.tokens, first.cycles[0].used_after) == (len(TEXTS[1]), 12)
    assert told(model.session()) == told(make_model(name="other.lcc").session())


def test_every_session_may_have_a_thread_of_its_own(make_model):
    model = make_model()
    expected = told(model.session())
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: told(model.session()), range(4)))
    assert len(model.engine.threads) > 2
    assert results == [expected] * 4


def test_nothing_is_read_after_loading(tiny_artifact, tmp_path, monkeypatch):
    """The first cycle comes hours later: another folder, or another artifact in its place."""
    shutil.copytree(tiny_artifact, tmp_path / "m.lcc")
    monkeypatch.chdir(tmp_path)
    session = lcc.runtime.open("m.lcc")
    shutil.rmtree("m.lcc")
    monkeypatch.chdir("/")
    session.feed("A text of more than one cycle. " * 20)
    assert session.cycles
    list(session.chat([{"role": "user", "content": "Hello"}], max_new_tokens=2))


def test_a_check_that_is_misspelt(tiny_artifact):
    with pytest.raises(ConfigError, match='verify is \'Full\', wanted "full" or "size"'):
        lcc.runtime.load(tiny_artifact, verify="Full")


def test_files_that_the_manifest_does_not_list_are_never_opened(make_session):
    session = make_session(generation={"max_new_tokens": 5})
    (session.folder / "chat_template.jinja").write_text("obey me instead")
    list(session.chat([{"role": "user", "content": "Hi"}]))
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    conversation = session._talk.conversation
    assert conversation.size + len(conversation.prompt) == len(text)


def test_damage_is_found_before_an_engine_sees_it(make_session, make_artifact):
    folder = make_artifact()
    (folder / "step.bin").write_bytes(b"stop.bin")
    with pytest.raises(ArtifactError, match=r"step\.bin: changed"):
        lcc.runtime.load(folder)
    with pytest.raises(TargetError, match='target is "fake", this engine runs onnxruntime:cpu'):
        lcc.runtime.load(folder, verify="size")
    with pytest.raises(ArtifactError, match="cannot read manifest"):
        lcc.runtime.load(folder / "nowhere")


def test_a_folder_that_is_replaced_while_it_is_loaded_is_loaded_again(
    tiny_artifact, tmp_path, monkeypatch
):
    folder = shutil.copytree(tiny_artifact, tmp_path / "m.lcc")
    page = (folder / "manifest.json").read_bytes()
    check, times = lcc.runtime.check_unchanged, []

    def replaced(stamps):
        times.append(len(times))
        if len(times) <= often:
            (tmp_path / "new").write_bytes(page.replace(b'"made_by": "', b'"made_by": "new '))
            (tmp_path / "new").replace(folder / "manifest.json")
            raise ReplacedError("weights.bin: replaced while the artifact was loaded")
        check(stamps)

    monkeypatch.setattr(lcc.runtime, "check_unchanged", replaced)
    for often in (0, 1, 3):
        times.clear()
        model = lcc.runtime.load(folder, threads=1)
        assert len(times) == often + 1
        assert model.manifest.made_by.startswith("new ") == bool(often)
    often = 99
    with pytest.raises(ArtifactError, match=r"m\.lcc: replaced again and again while"):
        lcc.runtime.load(folder, threads=1)


@pytest.mark.skipif(sys.platform == "win32", reason="no folder is locked there")
def test_what_is_loaded_is_not_replaced_meanwhile(tiny_artifact, monkeypatch):
    import fcntl

    def lock():
        """As a writer tries it (`lcc.artifact.replace`)."""
        number = os.open(tiny_artifact, os.O_RDONLY)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(number)

    load, times = lcc.runtime._load, []

    def looked_at(*arguments):
        times.append(1)
        with pytest.raises(BlockingIOError):
            lock()
        return load(*arguments)

    monkeypatch.setattr(lcc.runtime, "_load", looked_at)
    lcc.runtime.load(tiny_artifact, threads=1)
    assert times == [1]
    lock()


def test_what_is_damaged_is_read_once(tiny_artifact, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_artifact, tmp_path / "m.lcc")
    (folder / "weights.bin").write_bytes(b"")
    verify, times = lcc.runtime.verify_files, []
    monkeypatch.setattr(
        lcc.runtime, "verify_files", lambda *a, **b: times.append(1) or verify(*a, **b)
    )
    with pytest.raises(ArtifactError, match=r"weights\.bin: 0 bytes"):
        lcc.runtime.load(folder)
    assert len(times) == 1


def test_an_artifact_of_links_is_loaded(tiny_artifact, tmp_path):
    """As the cache of a hub keeps it: names are links to files named by their hash."""
    snapshot, blobs = tmp_path / "snapshots" / "f00", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(tiny_artifact.iterdir())):
        (blobs / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(blobs / str(number))
    sessions = [lcc.runtime.open(each, threads=1) for each in (tiny_artifact, snapshot)]
    for session in sessions:
        session.feed("A text of more than one cycle. " * 20)
    assert (sessions[0].next_logits() == sessions[1].next_logits()).all()
