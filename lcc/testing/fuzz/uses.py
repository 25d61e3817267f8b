"""What is done with a file that may be damaged: all that an app or the compiler would do."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lcc import runtime
from lcc.artifact.manifest import read_manifest
from lcc.cli.inspect import describe
from lcc.runtime.model import Model
from lcc.runtime.session import Session
from lcc.testing.fuzz.damaged import digest_of
from lcc.testing.fuzz.forked import Say

TEXT = "The cat sat on the mat. Where was it? Nobody knew; the key is 4711. " * 3
MEMORY_LIMIT, TIME_LIMIT = 512 << 20, 5.0  # bytes; seconds of a call, which TVM cannot keep
QUESTION = "Who knew the key?"


def opened(folder: Path) -> Model:
    """An artifact, of any target, with an app's limits; its machine code may run."""
    target, engine = read_manifest(folder).target, None
    if target == "reference":
        import lcc.passes.ops  # noqa: F401 - registers the operators
        from lcc.targets.reference import open_engine

        engine = open_engine(folder, read_manifest(folder))
    return runtime.load(
        folder,
        threads=1,
        engine=engine,
        allow_native=True,
        memory_limit=MEMORY_LIMIT,
        time_limit=TIME_LIMIT if target.startswith("onnxruntime") else None,
    )


def three_ids(session: Session) -> list[int]:
    """The most probable ids that come next."""
    return list(session.generate_ids(max_new_tokens=3, temperature=0.0))


def use_artifact(folder: Path, scratch: Path, say: Say) -> Any:
    """Inspect, load, read, write, save, talk, go back, recall."""
    say("inspect")
    text = describe(read_manifest(folder))
    assert all(line.isprintable() for line in text.split("\n")), "it moves the cursor"
    say("load")
    model, archive = opened(folder), scratch / "rows"
    archive.unlink(missing_ok=True)
    say("open a session")
    session = model.session(archive=archive if model.manifest.schedule.recall else None)
    say("feed")
    session.feed(TEXT[:140])
    say("generate")
    found: list[Any] = [three_ids(session)]
    say("logits")
    found.append(digest_of(session.next_logits().tobytes()))
    say("save")
    session.save(scratch / "state")
    say("chat")
    found.append("".join(session.generate(QUESTION, chat=True, max_new_tokens=3)))
    say("load a state")
    session.load(scratch / "state")
    say("sample")
    list(session.generate_ids("More. ", max_new_tokens=2, seed=1))
    say("rewind")
    session.rewind(min(3, session.rewindable))
    session.stats()
    session.close()
    return found


def use_golden(folder: Path, say: Say) -> Any:
    """`lcc verify --golden`."""
    from lcc.measure.check_golden import check_golden

    say("load")
    model = opened(folder)
    say("golden")
    return [[row.what, row.max_error] for row in check_golden(model, folder).rows]


def use_state(
    model: Callable[[], Model], state: Path, archive: Path | None, scratch: Path, say: Say
) -> Any:
    """Load it, go on in every way, save it again."""
    session = model().session()
    if archive is not None:
        say("open the archive")
        session.attach(archive)
    say("load")
    session.load(state)
    say("generate")
    found: list[Any] = [three_ids(session)]
    say("logits")
    found.append(digest_of(session.next_logits().tobytes()))
    say("chat")
    found.append("".join(session.generate(QUESTION, chat=True, max_new_tokens=3)))
    say("feed")
    session.feed(TEXT[:120])
    found.append(three_ids(session))
    say("kept")
    for layer in range(len(session.manifest.model.layers)):
        session.kept_tokens(layer)
    say("rewind")
    session.rewind(min(3, session.rewindable))
    found.append(three_ids(session))
    say("save")
    session.save(scratch / "again")
    session.stats()
    session.close()
    return found


def use_source(source: Path, say: Say) -> Any:
    """What `lcc compile` reads of a model before it captures it."""
    from lcc.sources.models import encoder, load_model
    from lcc.sources.text_facts import text_facts
    from lcc.sources.text_tables.tables import text_tables

    say("load")
    loaded = load_model(source)
    say("text")
    module: Any = loaded.module
    size = module.get_input_embeddings().weight.shape[0]
    text_facts(loaded.files, vocab_size=size, catalyst="What matters?", catalyst_size=24)
    text_tables(loaded.files)
    with contextlib.suppress(KeyError):
        encoder(loaded)(TEXT)
    return sum(int(each.numel()) for each in module.parameters())
