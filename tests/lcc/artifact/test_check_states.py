"""States and marks of a manifest that do not fit one another."""

from types import SimpleNamespace
from typing import Any

import pytest

from lcc.artifact.check_states import check_states
from lcc.artifact.schedule import BufferSpec
from lcc.errors import ArtifactError
from lcc.ir.roles import Role

SHAPES: dict[str, tuple[int | str, ...]] = {
    "state_0": (1, 2, 3),
    "mark_state_0": (1, 2, 3),
    "state_1": (1, 4),
    "mark_state_1": (1, 4),
}
MARKS = (("state_0", "mark_state_0"), ("state_1", "mark_state_1"))


def checked(
    marks: Any = MARKS,
    shapes: Any = None,
    constants: Any = None,
    counters: tuple[str, ...] = ("marked",),
    dtype: str = "float32",
) -> None:
    manifest: Any = SimpleNamespace(
        schedule=SimpleNamespace(marks=marks),
        constants={"snapshots": 3, "newest": 64} if constants is None else constants,
        counters=dict.fromkeys(counters, 0),
    )
    buffers = {
        name: BufferSpec(name=name, role=Role.STATE, dtype=dtype, shape=shape)
        for name, shape in (SHAPES if shapes is None else shapes).items()
    }
    buffers["key_0"] = BufferSpec(name="key_0", role=Role.KEY, dtype="float32", shape=(1, 2, 3))
    check_states(manifest, buffers)


def test_what_fits() -> None:
    checked()
    checked(marks=(), counters=())
    checked(marks=(), shapes={}, constants={}, counters=())


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"dtype": "float16"}, r"state_0 is float16 \[1, 2, 3\], wanted a state of float32"),
        ({"shapes": SHAPES | {"state_0": (1, "used")}}, "state_0 is float32 .* of numbers"),
        ({"constants": {"newest": 64}}, "wanted snapshots of 1 or more"),
        ({"constants": {"snapshots": 3}}, "a constant newest"),
        ({"counters": ()}, "wanted a counter marked"),
        ({"marks": (("state_0", "key_0"),)}, "marks: no buffer key_0 of role state"),
        ({"marks": (("state_0", "state_9"),)}, "marks: no buffer state_9"),
        ({"marks": (("state_0", "mark_state_1"),)}, "mark_state_1 has another shape than state_0"),
        ({"marks": MARKS[:1]}, "wanted one mark of its own for each state"),
        ({"marks": (MARKS[0], MARKS[0], MARKS[1][::-1])[:2]}, "one mark of its own"),
    ],
)
def test_what_does_not_fit_is_named(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        checked(**changed)
