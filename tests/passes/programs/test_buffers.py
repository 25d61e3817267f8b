"""The buffers of a session: what there is, how large, and what a saved state holds of it."""

from collections.abc import Callable

import pytest

from lcc.artifact.schedule import BufferSpec
from lcc.ir.roles import Role
from lcc.passes.specialize import Specialized

Special = Callable[..., Specialized]
ROWS = 96 + 1 + 16  # a slot, one more, and room for a step of fixed length
CACHE = (1, 2, "capacity", 16)
OF_HEADS = (2, "capacity")


def buffers(special: Specialized) -> dict[str, BufferSpec]:
    found = {each.name: each for each in special.plan.buffers}
    assert len(found) == len(special.plan.buffers)
    return found


def shown(each: BufferSpec) -> tuple:
    return each.dtype, each.shape, each.axis, each.saved


def test_of_a_policy_that_reads_likelihoods(specialized: Special) -> None:
    every = buffers(specialized("consensus"))
    of_archives = (Role.ARCHIVED, Role.KEPT)
    found = {name: each for name, each in every.items() if each.role not in of_archives}
    assert {name: shown(each) for name, each in found.items() if not name.endswith("_1")} == {
        "ids": ("int64", (ROWS,), 0, ("kept", "used")),
        "hidden": ("float32", (ROWS, 64), 0, ("kept", "next")),
        "logits": ("float32", (1, 260), 0, None),
        "agreed": ("float32", ("capacity",), 0, None),
        "nll": ("float32", (ROWS,), 0, ("kept", "known")),
        "sentence": ("float32", (ROWS,), 0, ("kept", "next")),
        "key_0": ("float32", CACHE, 2, ("zero", "used")),
        "value_0": ("float32", CACHE, 2, ("zero", "used")),
        "token_position_0": ("int64", OF_HEADS, 1, ("zero", "kept")),
        "nll_kept_0": ("float32", OF_HEADS, 1, ("zero", "kept")),
        "sentence_kept_0": ("float32", OF_HEADS, 1, ("zero", "kept")),
        "queries_0": ("float32", (8, 4, 16), 0, None),
        "spare_key_2xcapacityx16": ("float32", CACHE, 2, None),
        "spare_value_2xcapacityx16": ("float32", CACHE, 2, None),
        "spare_token_position_2xcapacityx16": ("int64", OF_HEADS, 1, None),
        "spare_nll_kept_2xcapacityx16": ("float32", OF_HEADS, 1, None),
        "spare_sentence_kept_2xcapacityx16": ("float32", OF_HEADS, 1, None),
    }
    layers = {name.rpartition("_")[0] for name, each in found.items() if each.layer == 1}
    assert layers == {name.rpartition("_")[0] for name, each in found.items() if each.layer == 0}


def test_of_an_archive(specialized: Special) -> None:
    """Rows that leave, rows that come back, rows that are asked; what grows with it is no size."""
    every = buffers(specialized("consensus")).values()
    found = {each.name: each for each in every if each.role in (Role.ARCHIVED, Role.KEPT)}
    assert {name: (each.dtype, each.shape) for name, each in found.items()} == {
        "leaving": ("int64", ("capacity",)),
        "rows": ("int64", ("budget",)),
        **{
            f"{place}_{what}": (dtype, (rows, *row))
            for place, rows in (("archived", "capacity"), ("back", "budget"))
            for what, dtype, row in (
                ("position", "int64", ()),
                ("nll", "float32", ()),
                ("sentence", "float32", ()),
                ("key_2x16", "float32", (2, 16)),
                ("value_2x16", "float32", (2, 16)),
            )
        },
        "scanned_key_2x16": ("float32", ("scan_rows", 2, 16)),
        "total_1": ("float32", (8, 4)),
        "votes": ("float32", ("archived",)),
        "all_position": ("int64", ("archived",)),
        "all_sentence": ("float32", ("archived",)),
        "all_nll": ("float32", ("archived",)),
        "by_token": ("float32", ("tokens",)),
    }
    assert all(each.saved is None for each in found.values())


@pytest.mark.parametrize(
    ("policy", "hidden"),
    [("consensus", ROWS), ("infinipot", ROWS), ("locret", 17), ("knorm", 17), ("none", 17)],
)
def test_states_are_kept_where_likelihoods_are_read(
    policy: str, hidden: int, specialized: Special
) -> None:
    """Otherwise those of the last step, and the one before."""
    found = buffers(specialized(policy))["hidden"]
    assert found.shape == (hidden, 64)
    saved = ("kept", "next") if hidden == ROWS else ("zero", "hidden_rows")
    assert found.saved == saved


@pytest.mark.parametrize(
    ("policy", "rows"), [("consensus", 8), ("snapkv", 64), ("h2o", 16), ("knorm", None)]
)
def test_queries_wait_until_they_are_scored(
    policy: str, rows: int | None, specialized: Special
) -> None:
    found = [each for each in specialized(policy).plan.buffers if each.role == Role.QUERIES]
    assert [each.shape for each in found] == ([] if rows is None else [(rows, 4, 16)] * 2)


def test_scores_that_stay_with_their_entries(specialized: Special) -> None:
    found = buffers(specialized("h2o"))
    assert shown(found["attention_0"]) == ("float32", OF_HEADS, 1, ("zero", "used"))
    assert "spare_attention_2xcapacityx16" in found
    found = buffers(specialized("snapkv"))  # made anew each cycle
    assert shown(found["attention_0"]) == ("float32", OF_HEADS, 1, None)
    assert "spare_attention_2xcapacityx16" not in found
    found = buffers(specialized("locret"))  # the step writes a row a token
    assert shown(found["retaining_0"]) == ("float32", (ROWS, 2), 0, ("zero", "used"))
    assert found["spare_retaining_2xcapacityx16"].shape == (ROWS, 2)
    assert "noise_0" not in buffers(specialized("random"))
    found = buffers(specialized("consensus", with_heads=True))
    assert shown(found["expected"]) == ("float32", (ROWS,), 0, ("kept", "log_rows"))


def test_of_layers_that_are_not_full(specialized: Special) -> None:
    plan = "0: full; 1: sink_window(sink=2, window=9)"
    found = buffers(specialized("snapkv", plan=plan, positions="contiguous"))
    slots, group = 2 + 9 + 16 + 63, "sink_window_1"
    of_group = {name: shown(each) for name, each in found.items() if each.group == group}
    assert of_group == {
        "key_1": ("float32", (1, 2, slots, 16), 2, ("zero", "used_1")),
        "value_1": ("float32", (1, 2, slots, 16), 2, ("zero", "used_1")),
        f"token_position_{group}": ("int64", (2, slots), 1, ("zero", "kept_1")),
        f"spare_token_position_{group}": ("int64", (2, slots), 1, None),
        f"stays_{group}": ("int64", (2, slots), 1, None),
    }
    assert {f"spare_key_2x{slots}x16", f"spare_value_2x{slots}x16"} <= found.keys()
    assert not {"attention_1", "queries_1", "token_position_1"} & found.keys()
