"""Damage to an artifact: its manifest, and its files besides programs."""

import contextlib
import os
import struct
from collections.abc import Callable
from random import Random
from typing import Any

from lcc.artifact.manifest import MANIFEST
from lcc.testing.damage import NUMBERS, change_json, change_numbers, places, with_number
from lcc.testing.fuzz.damaged import STRINGS, any_bytes, any_value, change_any, page_bytes
from lcc.testing.fuzz.mutant import Mutant
from lcc.testing.fuzz.of_programs import change_program

DTYPES = (
    *("float32", "float16", "float64", "int64", "int32", "uint8", "int8", "bool"),
    *("complex128", "object", "S8", "bfloat16", "FLOAT", ""),
)
SIZES = (0, 1, 2, 3, 8, 32, 63, 64, 65, 128, 1000, -1, 2**20, 2**31, 2**40, 2**62)
TEMPLATES = (
    *("{{ ''.__class__.__mro__ }}", "{{ messages.__class__ }}", "{{ 1/0 }}", "{% endfor %}"),
    *("{{ messages[99].content }}", "{% include 'x' %}", "{{ x.y.z }}", "{{ [1]|map('foo') }}"),
    *("{{ raise_exception('no') }}", "{{ strftime_now(5) }}", "{{ strftime_now('%') }}"),
    *("{{ 'x' * 1000000 }}", "{{ range(200000)|list }}", "{{ messages[0].pop('role') }}"),
    *("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ '%d'|format('a') }}"),
    *("{{ messages[0].content.encode('utf-16') }}", "{{ '\\ud83d' }}", "{{ 'a'|int(base=99) }}"),
    *(
        "{% import 'os' as os %}",
        "{{ lipsum(n=1) }}",
        "{{ cycler().next() }}",
        "{{ messages|sum }}",
    ),
    *("{{ {}|dictsort(by='q') }}", "{{ 10**400 + 0.5 }}", "{{ messages|batch(0)|list }}"),
    *("{{ []|random }}", "{{ namespace(1) }}", "{{ dict(a=1)[[]] }}", "{{ 'a'.index('b') }}"),
    *("{{ messages|tojson(indent='a') }}", "{% for i in range(9) %}x{% endfor %}"),
)
KINDS_OF_SIGNATURE = (
    *("exchange", "shape", "shape", "dtype", "name", "updates", "updates", "file", "drop"),
    *("tensor", "twice", "layers", "role"),
)
GENERATION = (
    *("eos_token_id", "max_new_tokens", "temperature", "top_k", "top_p", "min_p"),
    *("repetition_penalty", "do_sample", "bos_token_id"),
)


def file_bytes(mutant: Mutant, random: Random) -> str:
    """Bytes of a file; its hash fits them, or does not."""
    name = random.choice(mutant.names())
    mutant.write(name, any_bytes(mutant.read(name), random))
    if random.random() < 0.8:
        mutant.seal()
    return name


def exchanged_files(mutant: Mutant, random: Random) -> str:
    """One file in the place of another."""
    one, other = random.choice(mutant.names()), random.choice(mutant.names())
    data = mutant.read(one), mutant.read(other)
    mutant.write(one, data[1])
    mutant.put(other, data[0])
    return f"{one}, {other}"


def kind_of_file(mutant: Mutant, random: Random) -> str:
    """A file that is gone, unlisted, a folder, a pipe, or a link."""
    name = random.choice(mutant.names())
    path, data = mutant.folder / name, mutant.read(name)
    path.unlink()
    kind = random.choice(
        ["gone", "unlisted", "folder", "pipe", "out", "in", "zero", "itself", "one"]
    )
    if kind == "unlisted":
        del mutant.page["files"][name]
        path.write_bytes(data)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "out":
        outside = mutant.folder.with_name("outside")
        outside.write_bytes(data)
        path.symlink_to(outside)
    elif kind == "in":
        (mutant.folder / "inside").write_bytes(data)
        path.symlink_to("inside")
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "itself":
        path.symlink_to(name)
    elif kind == "one":
        path.write_bytes(data)
        mutant.page["files"]["more/é.bin"] = {"bytes": 0, "sha256": "0" * 64}
    mutant.seal()
    return f"{name}: {kind}"


def names_of_files(mutant: Mutant, random: Random) -> str:
    """A path of the manifest, and often the file that it leads to."""
    old = random.choice(mutant.names())
    odd = (f"./{old}", f"{old}/", old.upper(), f"sub/{old}", "a/../../x", "a" * 300, " ")
    new = random.choice([*STRINGS, *odd])
    mutant.page["files"][new] = mutant.page["files"].pop(old, {"bytes": 0, "sha256": "0" * 64})
    if random.random() < 0.6:
        for program in mutant.page["programs"].values():
            program["file"] = new if program["file"] == old else program["file"]
    if random.random() < 0.5 and not new.startswith(("/", "..", "~")) and "/.." not in new:
        with contextlib.suppress(OSError, ValueError):
            (mutant.folder / new).parent.mkdir(parents=True, exist_ok=True)
            (mutant.folder / old).rename(mutant.folder / new)
    mutant.seal()
    return f"{old} is {new[:40]!r}"


def manifest_values(mutant: Mutant, random: Random) -> str:
    """Values of any type anywhere in the manifest."""
    said = []
    for _ in range(random.choice([1, 1, 2, 3])):
        if random.random() < 0.4:
            change_json(mutant.page, random)
        else:
            spots = [
                (holder, key)
                for holder, key in places(mutant.page)
                if not {"bytes", "sha256"} & {key}
            ]
            said.append(change_any(mutant.page, random, spots))
    _seal_or_not(mutant, random)
    return "; ".join(said)


def manifest_numbers(mutant: Mutant, random: Random) -> str:
    """Numbers, and names in the schedule: what only a check of sense can find."""
    change_numbers(mutant.page, random)
    _seal_or_not(mutant, random)
    return ""


def manifest_text(mutant: Mutant, random: Random) -> str:
    """Its bytes, which may be no JSON any more."""
    data = mutant.read(MANIFEST)
    text = data.decode()
    forms: tuple[Callable[[], bytes], ...] = (
        lambda: text.replace('"cache": {', '"cache": {"capacity": 9999999, ', 1).encode(),
        lambda: text.replace('"passes": [', '"passes": ' + "[" * 100_000, 1).encode(),
        lambda: text.encode("utf-16"),
        lambda: b"\xef\xbb\xbf" + data,
        lambda: text.replace('"capacity": ', '"capacity": NaN, "x": ', 1).encode(),
        lambda: data + b"{}",
    )
    number = random.randrange(3 * len(forms))
    mutant.write(MANIFEST, forms[number]() if number < len(forms) else any_bytes(data, random))
    return f"form {number}" if number < len(forms) else "bytes"


def sizes(mutant: Mutant, random: Random) -> str:
    """What buffers are made of, alone or with all that goes with it."""
    page, said = mutant.page, []
    for _ in range(random.choice([1, 1, 2])):
        where = random.choice(
            ["constants", "counters", "cache", "model", "layer", "shape", "group"]
        )
        owners: dict[str, Any] = {
            "layer": random.choice(page["model"]["layers"] or [{"x": 0}]),
            "shape": random.choice(page["buffers"]),
            "group": random.choice(page["groups"]),
        }
        owner: Any = owners.get(where, page.get(where))
        if where == "shape":
            place, new = random.randrange(len(owner["shape"])), random.choice(SIZES)
            said.append(f"{owner['name']} {owner['shape']}[{place}]={new}")
            owner["shape"][place] = new
            continue
        keys = [key for key, value in owner.items() if type(value) is int]
        if keys:
            key = random.choice(keys)
            old = owner[key]
            owner[key] = random.choice([old + 1, old - 1, 2 * old, old // 2, 64 * old, *SIZES])
            said.append(f"{where} {key}={owner[key]}")
            if where == "cache" and key in page["constants"] and random.random() < 0.5:
                page["constants"][key] = owner[key]
    mutant.seal()
    return "; ".join(said)


def signatures(mutant: Mutant, random: Random) -> str:
    """Programs, their tensors, and what they update."""
    programs = mutant.page["programs"]
    name = random.choice(sorted(programs))
    program = programs[name]
    side = random.choice(["inputs", "outputs"])
    tensor: dict[str, Any] = random.choice(program[side] or [{"name": "x", "shape": [1]}])
    kind = random.choice(KINDS_OF_SIGNATURE)
    if kind == "exchange":
        other = random.choice(sorted(programs))
        programs[name], programs[other] = programs[other], program
    elif kind == "shape" and tensor["shape"]:
        place = random.randrange(len(tensor["shape"]))
        tensor["shape"][place] = random.choice([*SIZES, "tokens", "slots", "rows", "n", ""])
        if random.random() < 0.2:
            tensor["shape"].append(1)
    elif kind in ("dtype", "name", "role"):
        other = random.choice(program[side] or [tensor])
        tensor[kind] = random.choice(DTYPES if kind == "dtype" else [other.get(kind), *STRINGS])
    elif kind == "updates":
        updates = program.setdefault("updates", {})
        if updates and random.random() < 0.5:
            del updates[random.choice(sorted(updates))]
        elif program["outputs"] and program["inputs"]:
            output = random.choice(program["outputs"])["name"]
            updates[output] = random.choice(program["inputs"])["name"]
    elif kind == "file":
        program["file"] = random.choice(sorted(mutant.page["files"]))
    elif kind == "drop":
        del programs[name]
    elif kind == "tensor" and program[side]:
        program[side].remove(tensor)
    elif kind == "twice" and program[side]:
        program[side].append(dict(tensor))
    elif kind == "layers":
        layers = mutant.page["model"]["layers"]
        layers.append(dict(layers[0])) if random.random() < 0.5 else layers.pop()
    mutant.seal()
    return f"{kind} {name}.{side}.{tensor['name']}"


def schedule(mutant: Mutant, random: Random) -> str:
    """Blocks and runs: one is gone, there twice, in another list, or has another field."""
    lists = mutant.page["schedule"]
    name = random.choice([key for key, value in lists.items() if isinstance(value, list) and value])
    place = random.randrange(len(lists[name]))
    kind = random.choice(["drop", "twice", "move", "field", "run"])
    block = lists[name][place]
    if kind == "drop":
        del lists[name][place]
    elif kind == "twice":
        lists[name].insert(place, block)
    elif kind == "move":
        other = random.choice([key for key, value in lists.items() if isinstance(value, list)])
        lists[other].append(block)
    else:
        runs = block.get("do") if isinstance(block, dict) else None
        inside = block if kind == "field" or not runs else random.choice(runs)
        if isinstance(inside, dict) and (spots := list(places(inside))):
            change_any(inside, random, spots)
    mutant.seal()
    return f"{kind} {name}[{place}]"


def text_facts(mutant: Mutant, random: Random) -> str:
    """What the manifest says of the text."""
    facts = mutant.page["text"]
    said = []
    for _ in range(random.choice([1, 2])):
        key = random.choice(
            ["prefix", "ends", "separator", "special", "stops", "catalyst", "turns"]
        )
        ids: Any = [random.choice([0, 259, 260, 261, 10**6, *NUMBERS]) for _ in range(3)]
        new: Any = {"ids": ids} if key == "catalyst" else ["x"] if key == "stops" else ids
        if key == "catalyst" and random.random() < 0.5:
            new = {"beginning": random.choice(NUMBERS)}
        if key == "turns":
            old = facts.get(key)  # a value of any kind, where it is changed twice
            new = dict(old) if isinstance(old, dict) else {}
            new[random.choice(["begin", "user", "prompt", "strip", "x"])] = any_value("x", random)
        facts[key] = new if random.random() < 0.8 else any_value(facts.get(key), random)
        said.append(f"{key}={str(facts[key])[:60]}")
    mutant.seal()
    return "; ".join(said)


def json_files(mutant: Mutant, random: Random) -> str:
    """Values of the tokenizer, its configuration, the generation defaults, the golden."""
    name = random.choice(mutant.names(".json"))
    page = mutant.json_of(name)
    if name == "generation_config.json" and random.random() < 0.7:
        key = random.choice(GENERATION)
        page[key] = any_value(page.get(key, 1), random)
        page.setdefault("do_sample", random.random() < 0.5)
        said = f"{key}={str(page[key])[:50]!r}"
    else:
        said = change_any(page, random, list(places(page)))
    mutant.put(name, page)
    return f"{name}: {said}"


def goldens(mutant: Mutant, random: Random) -> str:
    """Values of golden.json."""
    page = mutant.json_of("golden.json")
    said = [change_any(page, random, list(places(page))) for _ in range(random.choice([1, 1, 2]))]
    mutant.put("golden.json", page)
    return f"golden.json: {'; '.join(said)}"


def templates(mutant: Mutant, random: Random) -> str:
    """Something more in the chat template."""
    text, new = mutant.read("chat_template.jinja").decode(), random.choice(TEMPLATES)
    place = random.choice([0, len(text), random.randrange(len(text) + 1)])
    mutant.put("chat_template.jinja", text[:place] + new + text[place:])
    return new


def text_tables(mutant: Mutant, random: Random) -> str:
    """Numbers of text.bin, its length right or not."""
    data = mutant.read("text.bin")
    sections = struct.unpack_from("<I", data, 12)[0]
    info = struct.unpack_from("<Q", data, 40)[0]  # the first section
    for _ in range(random.randint(1, 3)):
        kind = random.randrange(4)
        if kind == 0:
            data = with_number(data, random, range(32, 32 + 24 * sections, 4))
        elif kind == 1:
            data = with_number(data, random, range(info, info + 60, 4))
        else:
            data = any_bytes(data, random)
            if random.random() < 0.7 and len(data) > 24:
                data = data[:16] + struct.pack("<Q", len(data)) + data[24:]
        if len(data) < info + 64:
            break
    mutant.put("text.bin", data)
    return ""


def weights(mutant: Mutant, random: Random) -> str:
    """Weights that are no numbers, or far too large."""
    name = random.choice(mutant.names(".bin"))
    data = bytearray(mutant.read(name))
    place = random.randrange(0, max(1, len(data) - 4096)) // 4 * 4
    pattern = random.choice([b"\xff" * 4, struct.pack("<f", 3e38), struct.pack("<f", 1e999)])
    data[place : place + 4096] = (pattern * 1024)[: len(data) - place]
    mutant.put(name, bytes(data))
    return f"{name}: {pattern.hex()} at {place}"


def programs(mutant: Mutant, random: Random) -> str:
    """ONNX programs that are still ONNX."""
    names = mutant.names(".onnx")
    if not names:
        return file_bytes(mutant, random)
    name = random.choice(names)
    data, said = change_program(mutant.read(name), random)
    mutant.put(name, data)
    return f"{name}: {said}"


def _seal_or_not(mutant: Mutant, random: Random) -> None:
    if random.random() < 0.8:
        mutant.seal()
    else:
        mutant.write(MANIFEST, page_bytes(mutant.page))


Damage = Callable[[Mutant, Random], str]
DAMAGES: dict[Damage, int] = {
    **{file_bytes: 14, exchanged_files: 4, kind_of_file: 6, names_of_files: 5},
    **{manifest_values: 20, manifest_numbers: 14, manifest_text: 4, sizes: 16},
    **{signatures: 24, schedule: 12, text_facts: 6, json_files: 14, templates: 5},
    **{text_tables: 4, weights: 2, programs: 20},
}
"""How often each is drawn."""
