"""One part of a manifest at a time that does not fit the others (`lcc.artifact.check_schedule`)."""

import msgspec
import pytest

from lcc.artifact.check_schedule import check_schedule
from lcc.artifact.manifest import Manifest
from lcc.errors import ArtifactError


def as_json(value: object) -> dict:
    return msgspec.json.decode(msgspec.json.encode(value))


def at(page: dict, place: str):
    """The list or dict that a path like `programs.step.inputs.0.dtype` names, and its last part."""
    *path, last = place.split("/")
    for part in path:
        page = page[int(part) if isinstance(page, list) else part]
    return page, int(last) if isinstance(page, list) else last


READ, CYCLE, COMPACT = "schedule/read/0", "schedule/cycle", "schedule/compact/w"
STEP, EVICT, SEE = f"{READ}/do/0", f"{CYCLE}/1/do/0", f"{COMPACT}/0/do/0"
KEY = 6  # place of key_0 among the buffers

# What is wrong: place -> what is put there (None = taken away), and the words of the error.
BROKEN = {
    "counter and constant": ({"counters/zero": 0}, "counters: zero is a constant, too"),
    "no constant": ({"constants/reserved": None}, "constants: no reserved"),
    "no counter": ({"counters/state": None}, "counters: no state"),
    "other sizes": ({"constants/budget": 6}, "constants: budget is 6, cache says 5"),
    "no room": (
        {"constants/reserved": 4},
        r"budget \+ chunk_size \+ reserved is 13, wanted capacity \(12\) or less",
    ),
    "state at first": ({"counters/state": 0}, "counters: state is 0, wanted no_state at first"),
    "one": ({"constants/one": 2}, "wanted zero to be 0 and one to be 1"),
    "first group": ({"groups/0/name": "all"}, "groups: wanted full first"),
    "counter of a group": ({"groups/1/used": "used_9"}, "groups: w: no counter used_9"),
    "slots of a group": ({"groups/1/slots": "most"}, "groups: w: no constant most"),
    "slots": ({"groups/1/slots": 0}, "groups: w: 0 slots, wanted 1 or more"),
    "align": ({"groups/1/align": "zero"}, "groups: w: align is 0 or less"),
    "layer twice": ({"groups/1/layers": [0, 1]}, r"layers \[0, 0, 1\], wanted each of the model's"),
    "no layer": ({"groups/1/layers": []}, r"groups: layers \[0\], wanted each"),
    "nothing compacts": ({"schedule/compact": {}}, r"compact has lists for \[\], wanted \['w'\]"),
    "dtype": ({f"buffers/{KEY}/dtype": "float64"}, "buffers: key_0 is float64, wanted one of"),
    "size": ({f"buffers/{KEY}/shape/2": "slots"}, "buffers: key_0: no constant slots"),
    "no size": ({f"buffers/{KEY}/shape/2": "zero"}, "buffers: key_0: size zero is less than 1"),
    "axis": ({f"buffers/{KEY}/axis": 4}, "buffers: key_0: axis 4 of a shape of 4"),
    "saved": ({f"buffers/{KEY}/saved": ["zero", "end"]}, "buffers: key_0: no counter end"),
    "group": ({f"buffers/{KEY}/group": "others"}, "buffers: key_0: no group others"),
    "layer": ({f"buffers/{KEY}/layer": 2}, "buffers: key_0: layer 2, the model has no such layer"),
    "twice": ({f"buffers/{KEY + 1}/name": "key_0"}, "buffers: key_0 is there twice"),
    "no ids": ({"buffers/0/name": "tokens"}, "buffers: wanted ids, of role tokens int64"),
    "rows of ids": ({"buffers/0/shape": [11]}, r"ids is \[11\], wanted capacity \(12\) rows"),
    "rows of rows": ({"buffers/0/shape": [12, 1]}, r"ids is \[12, 1\], wanted capacity"),
    "updates": (
        {"programs/score/outputs/0/shape": ["S", 1]},
        r"programs: score: paid_out is .* \['S', 1\] .*, wanted that of paid: .* \['S'\]",
    ),
    "update of another layer": (
        {"programs/step/updates/key_0_out": "key_1"},
        r"key_0_out is key .*'S', 1\] of layer None, wanted that of key_1: .* \[1, 1, 'W', 1\] of",
    ),
    "update of another role": (
        {"programs/step/updates/key_0_out": "value_0"},
        r"key_0_out is key .*, wanted that of value_0: value ",
    ),
    "two updates of one": (
        {"programs/step/outputs/3/role": "key", "programs/step/updates/value_0_out": "key_0"},
        "two outputs replace one input",
    ),
    "no update": (
        {"programs/step/updates/key_0_out": None},
        r"run step: output key_0_out \(key\) is bound to nothing: it would be lost",
    ),
    "an output left out": (
        {"programs/step/updates/key_0_out": None, "programs/step/outputs/2": None},
        r"run step: no output replaces key_0 \(key\): what is read would be lost",
    ),
    "vocabulary": ({"model/vocab_size": 1 << 40}, r"vocab_size is 1099511627776, wanted .* logits"),
    "heads": ({"model/layers/0/kv_heads": 3}, "layer 0 has 3 kv_heads, wanted those of buffer"),
    "no heads": ({"model/layers/1/kv_heads": 0}, "layer 1 has 0 kv_heads"),
    "a large constant": ({"constants/log_rows": 1 << 60}, r"log_rows is \d+, wanted -1 to 2\^53"),
    "a counter below all": ({"counters/known": -2}, r"known is -2, wanted -1 to 2\^53"),
    "a large buffer": (
        {"buffers/0/shape": [1 << 30, 1 << 30]},
        r"buffers: ids is \[.*\], wanted at most 8 sizes and 2\^47 bytes",
    ),
    "an id": ({"text/ends": [10**9]}, "text: ends has id 1000000000, wanted 0 to"),
    "an id below all": ({"text/separator": [-1]}, "text: separator has id -1, wanted 0 to"),
    "a prefix": ({"text/prefix": [5, 10**9]}, "text: prefix has id 1000000000"),
    "a special id": ({"text/special": [10**9]}, "text: special has id 1000000000"),
    "an id of the catalyst": ({"text/catalyst": {"ids": [-7]}}, "text: catalyst has id -7"),
    "a long catalyst": ({"text/catalyst": {"ids": [1] * 99}}, "has 99 ids, reserved are"),
    "a catalyst of nothing": ({"text/catalyst": {}}, "catalyst has ids and beginning, or neither"),
    "a catalyst of all": ({"text/catalyst": {"beginning": 999}}, "999 tokens, wanted 1 to 32"),
    "a stop": ({"text/stops": [""]}, "text: stops has an empty text"),
    "over": ({f"{READ}/over/rows": ["used", "one"]}, "read, block 0: over has ids and rows, or"),
    "over nothing": ({f"{READ}/over/ids": None}, "over has ids and rows, or neither"),
    "count": ({f"{READ}/over/count": "one"}, "over has a count where ids are newest, only"),
    "most": ({f"{READ}/over/most": "zero"}, "most is zero, which is 0 or less"),
    "no most": ({f"{READ}/over/most": "many"}, "read, block 0: no counter or constant many"),
    "endless": (
        {f"{CYCLE}/0/add": []},
        "cycle, block 0: known does not come to used by being added to: a loop",
    ),
    "runs away": (
        {f"{CYCLE}/0/add": ["known", "used"]},
        "does not come to used by being added to: a loop",
    ),
    "text in a cycle": (
        {f"{CYCLE}/0/over": {"ids": "text", "most": "one"}},
        "cycle, block 0: a loop over the ids of text",
    ),
    "catalyst in read": ({f"{READ}/over/ids": "catalyst"}, "a loop over the ids of catalyst"),
    "added constant": ({f"{READ}/add": ["one"]}, "read, block 0: no counter one"),
    "set constant": ({f"{READ}/set": {"budget": "one"}}, "read, block 0: no counter budget"),
    "set to nothing": ({f"{READ}/set": {"state": "x"}}, "no counter or constant x"),
    "when": ({f"{READ}/when": ["used", "x"]}, "no counter or constant x"),
    "counted": ({f"{READ}/count": "x"}, "read, block 0: no counter x"),
    "row": ({f"{READ}/after": [["hidden", "zero", "x"]]}, "no counter or constant x"),
    "copied buffer": ({f"{READ}/after": [["x", "zero", "one"]]}, "after: no buffer x"),
    "copied key": ({f"{READ}/after": [["key_0", "zero", "one"]]}, "key_0 may lie on a device"),
    "swapped": ({f"{READ}/swap": [["ids", "x"]]}, "read, block 0: swap: no buffer x"),
    "unlike": (
        {f"{READ}/swap": [["ids", "nll"]]},
        r"swap: ids is tokens int64 \[17\], nll is entry_score float32 \[17\]; wanted two of one",
    ),
    "unlike layers": (
        {f"{EVICT}/swap": [["key_*", "spare_key_1"]]},
        "run evict, layer 0: swap: key_0 is .*, spare_key_1 is",
    ),
    "program": ({f"{STEP}/run": "prefill"}, "read, block 0: no program prefill"),
    "program for one": ({f"{STEP}/one": "decode"}, "read, block 0: no program decode"),
    "each": ({f"{EVICT}/each": [2]}, "cycle, block 1, run evict, layer 2: the model has no such"),
    "tensor": ({f"{STEP}/bind/cache": "ids"}, "run step: it has no tensor cache"),
    "read of nothing": ({f"{SEE}/read": {"sene": "seen"}}, "run see: it has no tensor sene"),
    "unbound": ({f"{STEP}/bind/key_0": None}, "run step: input key_0 is bound to nothing"),
    "twice bound": ({f"{STEP}/ints/tokens": "one"}, "run step: input tokens is bound twice"),
    "buffer": ({f"{STEP}/bind/key_0": "key_9"}, "run step: no buffer key_9"),
    "star": ({f"{STEP}/bind/key_0": "key_*"}, r"run step: no buffer key_\*"),
    "role": (
        {f"{STEP}/bind/key_0": "value_0"},
        r"key_0 is key float32 \[1, 1, 'S', 1\], wanted what fits buffer value_0, value float32",
    ),
    "kind": (
        {f"{EVICT}/bind/token_position": "ids"},
        r"token_position is token_position int64 \[1, 'S'\], wanted what fits buffer ids",
    ),
    "rank": ({f"buffers/{KEY}/shape": [1, "capacity", 1]}, "key_0 is .*, wanted what fits buffer"),
    "number": (
        {"programs/evict/inputs/0/shape/2": 11},
        r"run evict, layer 0: key is key float32 \[1, 1, 11, 1\], wanted what fits buffer key_0",
    ),
    "two sizes": (
        {f"buffers/{KEY}/shape/2": 9},
        "run step: value_0: S is 12, in another tensor it is 9",
    ),
    "two counts": (
        {f"{STEP}/ints/positions": ["used", "one"]},
        "run step: positions: Q is 1, in another tensor it is n",
    ),
    "rows of keys": ({f"{STEP}/bind/key_0": ["key_0", "zero", "one"]}, "and is bound whole only"),
    "width of rows": (
        {"buffers/1/shape/1": 5},
        r"hidden is hidden float32 \[1, 'Q', 4\], wanted what fits buffer hidden",
    ),
    "integers": (
        {"programs/step/inputs/2/dtype": "float32", "programs/one/inputs/2/dtype": "float32"},
        "used is float32, wanted integers",
    ),
    "one number": (
        {f"{STEP}/ints/positions": "used"},
        r"positions is \[1, 'Q'\], wanted one number",
    ),
    "series": (
        {"programs/step/inputs/1/shape": [2, "Q"]},
        r"positions is \[2, 'Q'\], wanted a series of numbers",
    ),
    "integers of 32 bits": (
        {"counters/left": 1 << 31},
        r"run evict.*: left is an int32, and left is 2147483648",
    ),
    "read input": ({f"{SEE}/read": {"used": "seen"}}, "wanted used to be an output of one integer"),
    "read many": (
        {f"{SEE}/read": {"stays": "seen"}},
        "wanted stays to be an output of one integer",
    ),
    "integers out": ({f"{SEE}/ints/seen": "one"}, "run see: seen is an output; integers are given"),
    "update elsewhere": (
        {f"{EVICT}/bind/paid_out": "paid"},
        r"paid_out is bound to paid, wanted \('nll', 'zero', 'capacity'\), as paid",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_fit_is_named(make_manifest, name):
    manifest = make_manifest()
    page = as_json(manifest)
    changes, words = BROKEN[name]
    for place, value in changes.items():
        inside, last = at(page, place)
        if value is None:
            del inside[last]
        else:
            inside[last] = value
    broken = msgspec.convert(page, Manifest)
    check_schedule(manifest, manifest.programs)  # it was whole
    with pytest.raises(ArtifactError, match=words) as caught:
        check_schedule(broken, broken.programs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rank", ["nll", "catalyst", "newest"])
@pytest.mark.parametrize("length", [None, 4])
def test_what_fits(make_manifest, rank, length):
    manifest = make_manifest(rank=rank, length=length)
    check_schedule(manifest, manifest.programs)
    assert {block.over.ids for block in manifest.schedule.cycle if block.over} & {
        *("catalyst", "newest", None)
    }


def test_a_value_that_is_the_key_lies_in_its_buffer(make_manifest):
    manifest = make_manifest()
    page = as_json(manifest)
    for place, value in ((f"{STEP}/bind/value_0", "key_0"), (f"{STEP}/bind/value_0_out", "key_0")):
        inside, last = at(page, place)
        inside[last] = value
    changed = msgspec.convert(page, Manifest)
    assert changed != manifest
    check_schedule(changed, changed.programs)


def test_tensors_that_only_another_target_has(make_manifest):
    """A schedule is for all targets: what some program lacks is left out."""
    page = as_json(make_manifest())
    more = {"name": "rows", "role": "rows", "dtype": "int64", "shape": ["R"]}
    for name in ("read", "nll"):
        page["schedule"][name][0]["do"][0]["ints"]["rows"] = ["zero", "one"]
    with pytest.raises(ArtifactError, match="run step: it has no tensor rows"):
        check_schedule(manifest := msgspec.convert(page, Manifest), manifest.programs)
    programs = as_json(make_manifest().programs)
    programs["step"]["inputs"].append(more)
    page["also"] = {"other": {"programs": programs}}
    manifest = msgspec.convert(page, Manifest)
    check_schedule(manifest, manifest.programs)
    check_schedule(manifest, manifest.also["other"].programs)
