"""Manifests and folders that once were believed; what each must come to now."""

import contextlib
from collections.abc import Callable
from typing import Any

from lcc.artifact.manifest import MANIFEST
from lcc.testing.fuzz.mutant import Mutant

Change = Callable[[Mutant], None]
STEPS = ("prefill_chunk", "decode")
DEEP = "[" * 100_000


def page(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Something else on the manifest's page."""

    def go(mutant: Mutant) -> None:
        change(mutant.page)
        mutant.seal()

    return go


def put(name: str, data: Any) -> Change:
    """Another file in the place of one, its hash in the manifest."""
    return lambda mutant: mutant.put(name, data)


def _ids(m: dict[str, Any]) -> int:
    return [spec["name"] for spec in m["buffers"]].index("ids")


def _no_evict(m: dict[str, Any]) -> None:
    cycle = m["schedule"]["cycle"]
    cycle.remove(next(block for block in cycle if "used" in block.get("set", {})))


def _all_left(m: dict[str, Any]) -> None:
    block = next(block for block in m["schedule"]["cycle"] if "used" in block.get("set", {}))
    block["set"]["used"] = "tokens"


def _layer(**fields: Any) -> Change:
    return page(lambda m: m["model"]["layers"][0].update(fields))


def _update(output: str, source: str | None) -> Change:
    """What an output of the step replaces; None = nothing."""

    def change(m: dict[str, Any]) -> None:
        for name in STEPS:
            updates = m["programs"][name]["updates"]
            if source is None:
                del updates[output]
            else:
                updates[output] = source

    return page(change)


def _tensor(side: str, **fields: Any) -> Change:
    """The first input or output of `decode`."""
    return page(lambda m: m["programs"]["decode"][side][0].update(fields))


def _exchange(m: dict[str, Any]) -> None:
    programs = m["programs"]
    programs["head"], programs["score_0"] = programs["score_0"], programs["head"]


def _output_of_all(name: str, dtype: str) -> Change:
    """The dtype of an output, in every program that has it."""

    def change(m: dict[str, Any]) -> None:
        for program in m["programs"].values():
            for tensor in program["outputs"]:
                if tensor["name"].rstrip("0123456789").rstrip("_") == name:
                    tensor["dtype"] = dtype

    return page(change)


def _replaced(old: str, new: str) -> Change:
    """Text of the manifest."""

    def go(mutant: Mutant) -> None:
        text = mutant.read(MANIFEST).decode()
        assert old in text, old
        mutant.write(MANIFEST, text.replace(old, new, 1).encode())

    return go


def _unlisted(name: str) -> Change:
    """A file that is there, and in no list."""
    return page(lambda m: m["files"].pop(name))


def _link_to_itself(mutant: Mutant) -> None:
    path = mutant.folder / "tokenizer_config.json"
    path.unlink()
    path.symlink_to(path.name)
    mutant.seal()


def _listed(name: str) -> Change:
    """One more name in the list, of a file that is not there."""
    return page(lambda m: m["files"].update({name: {"bytes": 0, "sha256": "0" * 64}}))


def _listed_and_there(name: str) -> Change:
    """A file of an odd name."""

    def go(mutant: Mutant) -> None:
        with contextlib.suppress(OSError):
            mutant.write(name, b"x")
        mutant.page["files"][name] = {"bytes": 1, "sha256": "0" * 64}
        mutant.seal()

    return go


def _golden_deep(mutant: Mutant) -> None:
    text = mutant.read("golden.json").decode().replace('"ids": [', '"ids": ' + DEEP, 1)
    mutant.put("golden.json", text)


def _many_rows(m: dict[str, Any]) -> None:
    """So many that their numbers cannot be counted in 64 bits."""
    outputs = m["programs"]["prefill_chunk"]["outputs"]
    next(each for each in outputs if each["name"] == "hidden")["shape"][1] = 2**62


# name -> what is changed, and whether it must be refused; otherwise it may as well work
MANIFESTS: dict[str, tuple[Change, bool]] = {
    "layer 0, kv_heads 1": (_layer(kv_heads=1), True),
    "layer 0, kv_heads 0": (_layer(kv_heads=0), True),
    "layer 0, kv_heads 2^31": (_layer(kv_heads=2**31), True),
    "layer 0, head_size -1": (_layer(head_size=-1), False),
    "layer 0, query_heads 8": (_layer(query_heads=8), False),
    "hidden_size 80": (page(lambda m: m["model"].update(hidden_size=80)), False),
    "vocab_size 100": (page(lambda m: m["model"].update(vocab_size=100)), True),
    "vocab_size 10^7": (page(lambda m: m["model"].update(vocab_size=10**7)), True),
    "vocab_size 2^40": (page(lambda m: m["model"].update(vocab_size=2**40)), True),
    "no layers": (page(lambda m: m["model"].update(layers=[])), True),
    "one layer fewer": (page(lambda m: m["model"]["layers"].pop()), True),
    "one layer more": (page(lambda m: m["model"]["layers"].append(m["model"]["layers"][0])), True),
    "capacity 2^40": (
        page(lambda m: (m["cache"].update(capacity=2**40), m["constants"].update(capacity=2**40))),
        True,
    ),
    "2^62 rows of hidden": (page(_many_rows), True),
    "ids of 8 rows": (page(lambda m: m["buffers"][_ids(m)].update(shape=[8])), True),
    "seed 2^31": (page(lambda m: m["counters"].update(seed=2**31)), True),
    "a cycle that evicts nothing": (page(_no_evict), True),
    "a cycle that leaves all tokens": (page(_all_left), True),
    "catalyst_size 0": (page(lambda m: m["cache"].update(catalyst_size=0)), False),
    "key_0_out updates nothing": (_update("key_0_out", None), True),
    "key_0_out updates value_1": (_update("key_0_out", "value_1"), True),
    "key_0_out updates key_1": (_update("key_0_out", "key_1"), True),
    "key_0_out updates tokens": (_update("key_0_out", "tokens"), True),
    "hidden is called hidde": (_tensor("outputs", name="hidde"), True),
    "head is score_0": (page(_exchange), True),
    "dtype FLOAT": (_tensor("outputs", dtype="FLOAT"), True),
    "shape []": (_tensor("inputs", shape=[]), True),
    "hidden as uint8": (_output_of_all("hidden", "uint8"), True),
    "hidden as float16": (_output_of_all("hidden", "float16"), True),
    "logits as uint8": (_output_of_all("logits", "uint8"), True),
    "queries as float16": (_output_of_all("queries", "float16"), True),
    "separator beyond the vocabulary": (
        page(lambda m: m["text"].update(separator=[2**40])),
        True,
    ),
    "prefix beyond the vocabulary": (page(lambda m: m["text"].update(prefix=[99_999])), True),
    "catalyst beyond the vocabulary": (
        page(lambda m: m["text"].update(catalyst={"ids": [10**9]})),
        True,
    ),
    "a file name of 300 letters": (_listed("a" * 300), True),
    "a surrogate in a file name": (_listed("\ud800"), True),
    "a file name that clears the screen": (_listed("\x1b[2J"), True),
    "a file name with a line end": (_listed_and_there("a\nb"), True),
    "a link to itself": (_link_to_itself, True),
    "a program that no list has": (_unlisted("head.onnx"), True),
    "weights that no list has": (_unlisted("weights.bin"), True),
    "10^5 deep": (_replaced('"passes": [', '"passes": ' + DEEP), True),
    "a golden 10^5 deep": (_golden_deep, False),
    "a template that is not UTF-8": (put("chat_template.jinja", b"\xff\xfe{{"), False),
    "eos_token_id [[1]]": (put("generation_config.json", {"eos_token_id": [[1]]}), False),
    "generation defaults 10^5 deep": (
        put("generation_config.json", '{"eos_token_id": ' + DEEP),
        False,
    ),
}
