"""A runtime for lcc artifacts in one file, written from docs/format.md: something to port.

    python examples/05_runtime_in_one_file.py smollm2.lcc --golden
    python examples/05_runtime_in_one_file.py smollm2.lcc --ids 1,2,3 --new 20

The first form reproduces golden.json, and exits with 1 at the first number that differs.
"""

import argparse
import hashlib
import json
import sys
from collections import Counter, namedtuple
from math import prod
from pathlib import Path

import numpy as np
import onnxruntime

# The pages of the manifest and their fields; those with a default, at the end, may be absent.
FIELDS = "format version made_by target model cache policy constants counters groups buffers "
FIELDS += "schedule text programs passes memory files also cpu note precision heads archive"
Manifest = namedtuple("Manifest", FIELDS, defaults=[{}, None, None, "fp32", None, []])
Group = namedtuple("Group", "name used kept slots layers align", defaults=[None])
Buffer = namedtuple("Buffer", "name role dtype shape layer group axis saved", defaults=[None] * 4)
Program = namedtuple("Program", "file inputs outputs updates", defaults=[{}])
Tensor = namedtuple("Tensor", "name role dtype shape layer", defaults=[None])
PARTS = "read logits nll cycle compact log marks flush recall"
ABSENT = [[], {}, False, [], [], []]  # the last two: of an archive, which this runtime has not
Schedule = namedtuple("Schedule", PARTS, defaults=ABSENT)
Over = namedtuple("Over", "most ids count rows", defaults=[None] * 3)
ABSENT = [None, None, {}, {}, {}, [], {}, {}, {}]
Run = namedtuple("Run", "run one each bind ints read swap load gather store", defaults=ABSENT)
PARTS = "over when do after swap add lend count set grow append load gather store"
ABSENT = [None, ("zero", "one"), [], [], [], [], False, None, {}, [], None, {}, {}, {}]
Block = namedtuple("Block", PARTS, defaults=ABSENT)


def read_manifest(folder):
    """Read the manifest, and check every file before an engine sees it."""
    page = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    if (page.get("format"), page.get("version")) != ("lcc", 3):
        sys.exit(f"{folder}: wanted an artifact of format version 3")
    for name, entry in page["files"].items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            sys.exit(f"{path}: missing, or outside the artifact's folder")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if (path.stat().st_size, digest) != (entry["bytes"], entry["sha256"]):
            sys.exit(f"{path}: changed since it was written; copy the artifact anew")
    return Manifest(**page)


class Runtime:
    """One text in a cache of fixed size: counters, buffers, and lists that say what to do."""

    def __init__(self, folder, manifest, sizes):
        """`sizes`: of capacity, budget and chunk_size those that are lowered."""
        self.programs = {name: Program(**page) for name, page in manifest.programs.items()}
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.x64quantprecision", "1")  # exact for int8
        files = {program.file for program in self.programs.values()}
        self.sessions = {f: onnxruntime.InferenceSession(folder / f, options) for f in files}
        s, self.text = Schedule(**manifest.schedule), manifest.text
        lists = {"read": s.read, "cycle": s.cycle, "logits": s.logits, **s.compact}
        self.lists = {name: [Block(**page) for page in pages] for name, pages in lists.items()}
        self.groups = [Group(**page) for page in manifest.groups]
        self.numbers = {"layer": 0, **manifest.constants, **manifest.counters, **sizes}
        buffers, size = [Buffer(**page) for page in manifest.buffers], self.numbers.get
        self.buffers = {b.name: np.zeros([size(s, s) for s in b.shape], b.dtype) for b in buffers}
        self.marks = dict(s.marks)  # state of a recurrent layer -> what it was
        states = [b.name for b in buffers if b.role == "state"]
        self.states = [name for name in states if name not in self.marks.values()]
        places = [b for b in buffers if b.role == "token_position" and b.saved]
        self.positions = {b.group if b.layer is None else b.layer: b.name for b in places}
        self.beginning, self.on_cycle = [], lambda: None  # of the text, for the catalyst

    def read(self, ids, ends=False):
        """Read any number of the text's ids; `ends`: the text ends with them."""
        numbers, usable = self.numbers, self.numbers["capacity"] - self.numbers["reserved"]
        while (rest := len(ids)) > 0:
            if numbers["used"] >= usable:
                self.cycle(rest if ends and rest <= usable - numbers["budget"] else -1)
            n = min(rest, numbers["chunk_size"], usable - numbers["used"])
            for align in (numbers[group.align] for group in self.groups if group.align):
                n = min(n, align - numbers["tokens"] % align)
            mark = usable - numbers["newest"] if self.marks else 0
            n = min(n, mark - numbers["used"]) if numbers["used"] < mark else n
            self.compact(n)
            few = self.text.get("catalyst", {}).get("beginning", 0) - len(self.beginning)
            self.beginning += ids[: min(n, few)]
            self.run_list("read", ids[:n])
            if numbers["used"] == mark:
                self.mark()
            ids = ids[n:]

    def mark(self):
        """Note the states: what comes from here on is read again, in the next cycle."""
        self.copy(self.marks)
        self.numbers["marked"] = self.numbers["used"]

    def copy(self, pairs):
        """Copy buffers to others."""
        for one, other in pairs.items():
            self.buffers[other][:] = self.buffers[one]

    def compact(self, n):
        """Make room for `n` entries in layers that need only some of those they hold."""
        numbers = self.numbers
        for group in self.groups[1:]:
            full = numbers[group.used] + n > numbers.get(group.slots, group.slots)
            align = numbers[group.align] if group.align else None
            if numbers[group.used] and (full or (align and numbers["tokens"] % align == 0)):
                self.run_list(group.name)

    def cycle(self, left):
        """Evict. `left`: tokens still to read, where this is the last cycle; otherwise -1."""
        if not self.lists["cycle"]:
            sys.exit(f"the cache is full: {self.numbers['used']} entries, and nothing evicts them")
        beginning = [*self.text.get("separator", []), *self.beginning]
        ids = self.text.get("catalyst", {}).get("ids", beginning)[: self.numbers["reserved"]]
        self.compact(len(ids))
        self.numbers["left"] = left
        self.run_list("cycle", ids)
        self.mark() if self.marks else None
        self.on_cycle()

    def logits(self):
        """Scores of all token ids to be the next one, [V]."""
        self.run_list("logits")
        return self.buffers["logits"].reshape(-1)

    def kept_tokens(self, layer):
        """Token positions of the entries that a layer holds: a list for each KV head."""
        group = next(group for group in self.groups if layer in group.layers)
        used, kept, end = (self.numbers[name] for name in (group.used, group.kept, "tokens"))
        places = self.buffers[self.positions.get(layer, self.positions.get(group.name))]
        return [[*head[:kept].tolist(), *range(end - used + kept, end)] for head in places]

    def run_list(self, name, ids=()):
        """Run blocks in order, each as often as its `over` says; `ids`: those of the call."""
        numbers = self.numbers
        for block in self.lists[name]:
            if numbers[block.when[0]] >= numbers[block.when[1]]:
                continue
            over, former, total = Over(**block.over or {"most": "one"}), dict(numbers), 1
            back = self.states if block.lend or over.ids == "newest" else []
            back = {name: self.buffers[name].copy() for name in back}
            if over.rows:
                total = numbers[over.rows[1]] - numbers[over.rows[0]]
            elif over.ids == "newest":  # these are in the buffer
                since = numbers["marked" if self.marks else "kept"]
                total = min(numbers[over.count], numbers["used"] - since)
                self.copy({mark: state for state, mark in self.marks.items()})
                numbers |= {name: numbers[name] - total for name in block.add}
            elif over.ids:
                total = len(ids)
                self.buffers["ids"][numbers["used"] :][:total] = ids
            numbers |= {"start": numbers["used"]} if block.over else {}
            numbers |= {block.count: 0} if block.count else {}
            while total > 0:
                numbers["n"] = min(total, numbers[over.most]) if block.over else numbers["n"]
                self.run_block(block)
                total -= numbers["n"] if block.over else 1
            numbers |= {name: former[name] for name in block.add if block.lend}
            for name, state in back.items():
                self.buffers[name][:] = state

    def run_block(self, block):
        """Run what a block has to do, and change buffers and counters then."""
        numbers = self.numbers
        for run in (Run(**page) for page in block.do):
            for layer in run.each or [numbers["layer"]]:
                numbers["layer"] = layer
                self.run(run, str(layer))
                self.swap([[name.replace("*", str(layer)) for name in p] for p in run.swap])
        for buffer, source, to in block.after:
            self.buffers[buffer][numbers[to]] = self.buffers[buffer][numbers[source]]
        self.swap(block.swap)
        for name in [*block.add, *filter(None, [block.count])]:
            numbers[name] += numbers["n"]
        numbers |= {name: numbers[other] for name, other in block.set.items()}

    def swap(self, pairs):
        """Let buffers exchange their memory."""
        for one, other in pairs:
            self.buffers |= {one: self.buffers[other], other: self.buffers[one]}

    def run(self, run, layer):
        """Run one program: on memory that `bind` names, on integers, and on integers to read."""
        numbers, arrays = self.numbers, {}
        program = self.programs[run.one if run.one and numbers["n"] == 1 else run.run]
        values = {**run.ints, **dict.fromkeys(run.read, "zero")}
        for tensor in [Tensor(**page) for page in program.inputs + program.outputs]:
            place = run.bind.get(tensor.name, values.get(tensor.name, "zero"))
            *buffer, first, count = [place, "one"] if isinstance(place, str) else place
            shape = [numbers[count] if isinstance(s, str) else s for s in tensor.shape]
            if buffer:  # some rows of it
                memory = self.buffers[buffer[0].replace("*", layer)]
                begin = numbers[first] * prod(memory.shape[1:])
                arrays[tensor.name] = memory.reshape(-1)[begin:][: prod(shape)].reshape(shape)
            elif tensor.name in run.bind:  # all of it
                arrays[tensor.name] = self.buffers[place.replace("*", layer)]
            elif tensor.name in values:
                integers = np.arange(prod(shape), dtype=tensor.dtype).reshape(shape)
                arrays[tensor.name] = integers + numbers[first]
        self.call(program, arrays)
        numbers |= {run.read[name]: int(arrays[name].item()) for name in run.read if name in arrays}

    def call(self, program, arrays):
        """The engine: run a program on memory; `arrays`: inputs, and outputs that are wanted."""
        binding = self.sessions[program.file].io_binding()
        roles = [(program.inputs, binding.bind_input), (program.outputs, binding.bind_output)]
        for bind, name in ((bind, each["name"]) for tensors, bind in roles for each in tensors):
            if (x := arrays.get(name, arrays.get(program.updates.get(name)))) is not None:
                bind(name, "cpu", 0, x.dtype, x.shape, x.ctypes.data)
        self.sessions[program.file].run_with_iobinding(binding)


def check_golden(runtime, golden):
    """Read what golden.json says; exit at the first number that differs."""
    cycles = list(golden["cycles"])

    def compare(what, got, wanted, tolerance=0.0):
        if not abs(got - wanted) <= tolerance:
            sys.exit(f"golden: {what} is {got}, wanted {wanted}")

    def check_cycle():
        at = f"cycle after {runtime.numbers['tokens']} tokens"
        wanted = cycles.pop(0) if cycles else sys.exit(f"golden: {at}, wanted none")
        for name, value in {**wanted["counters"], "tokens": wanted["tokens"]}.items():
            compare(f"{at}: {name}", runtime.numbers[name], value)
        for layer, heads in wanted["kept"].items():
            got = [Counter(each) for each in runtime.kept_tokens(int(layer))]
            gone = [p for head, kept in enumerate(heads) for p in Counter(kept) - got[head]]
            most = golden["tolerance"]["kept"] * sum(map(len, heads))
            compare(f"{at}: layer {layer} lacks {gone[:1]}; lost", len(gone), 0, most)

    runtime.on_cycle = check_cycle
    runtime.read(golden["ids"], ends=True)
    for wanted, token in zip(golden["logits"], [*golden["next"], None], strict=True):
        logits, at = runtime.logits(), f"after {runtime.numbers['tokens']} tokens"
        compare("tokens read", runtime.numbers["tokens"], wanted["tokens"])
        for number, value in wanted["top"]:
            compare(f"{at}, logit {number}", logits[number], value, golden["tolerance"]["logits"])
        if token is not None and golden["exact"]:
            compare(f"{at}, the next token", logits.argmax(), token)
        runtime.read([] if token is None else [token])
    compare("number of cycles that did not run", len(cycles), 0)
    print("golden: all numbers are the same")


def main():
    """Reproduce golden.json, or generate greedily after the ids given."""
    parser = argparse.ArgumentParser()
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--golden", action="store_true")
    parser.add_argument("--ids", default="0")
    parser.add_argument("--new", type=int, default=20)
    options = parser.parse_args()
    manifest = read_manifest(options.artifact)
    golden = json.loads((options.artifact / "golden.json").read_text(encoding="utf-8"))
    runtime = Runtime(options.artifact, manifest, golden["sizes"] if options.golden else {})
    if options.golden:
        return check_golden(runtime, golden)
    runtime.read([int(each) for each in options.ids.split(",")])
    for _ in range(options.new):
        print(token := int(runtime.logits().argmax()), flush=True)
        if token in runtime.text.get("ends", []):
            break
        runtime.read([token])


if __name__ == "__main__":
    main()
