"""Prefill and decode against onnxruntime-genai: one run, interleaved, each in its own process.

python docs/measure/speed.py lcc model.lcc --tokens 8192
python docs/measure/speed.py genai genai_folder --tokens 8000
python docs/measure/speed.py both model.lcc genai_folder --tokens 7800 --rounds 3

`lcc` and `genai` print one line of JSON: prefill and decode in tokens/s after --tokens tokens.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time


def prompt(tokens: int) -> list[int]:
    """The same ids for both."""
    draw = random.Random(1)
    return [draw.randrange(1000, 40000) for _ in range(tokens)]


def run_lcc(
    folder: str,
    tokens: int,
    new: int,
    threads: int,
    *,
    capacity: int | None = None,
    budget: int | None = None,
) -> tuple[float, float]:
    """Seconds of prefill, seconds per token of decode."""
    import lcc.runtime

    session = lcc.runtime.load(
        folder, threads=threads, verify="size", capacity=capacity, budget=budget
    )
    session.feed(prompt(512))
    session.reset()
    begin = time.perf_counter()
    session.feed(prompt(tokens))
    prefill = time.perf_counter() - begin
    written = session.generate_ids(max_new_tokens=new + 1, eos=[])
    next(written)
    begin = time.perf_counter()
    count = sum(1 for _ in written)
    return prefill, (time.perf_counter() - begin) / count


def run_genai(folder: str, tokens: int, new: int, threads: int) -> tuple[float, float]:
    """The same, with its own chunks of 512 tokens."""
    import onnxruntime_genai as genai

    config = genai.Config(folder)
    page = {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}
    config.overlay(json.dumps(page))
    model = genai.Model(config)
    for count in (512, tokens):
        params = genai.GeneratorParams(model)
        params.set_search_options(max_length=count + new + 2, chunk_size=512, do_sample=False)
        generator = genai.Generator(model, params)
        begin = time.perf_counter()
        generator.append_tokens(prompt(count))
        generator.generate_next_token()
        prefill = time.perf_counter() - begin
        if count == tokens:
            begin = time.perf_counter()
            for _ in range(new):
                generator.generate_next_token()
            decode = (time.perf_counter() - begin) / new
        del generator
    return prefill, decode


def main() -> None:
    """Run one, or both in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=["lcc", "genai", "both"])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--tokens", type=int, default=7800)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--capacity", type=int, help="of lcc: less than was compiled")
    parser.add_argument("--budget", type=int, help="of lcc: less than was compiled")
    options = parser.parse_args()
    sizes = (options.tokens, options.new_tokens, options.threads)
    if options.which != "both":
        if options.which == "lcc":
            less = {"capacity": options.capacity, "budget": options.budget}
            prefill, decode = run_lcc(options.folders[0], *sizes, **less)
        else:
            prefill, decode = run_genai(options.folders[0], *sizes)
        print(json.dumps({"prefill": options.tokens / prefill, "decode": 1 / decode}))
        return
    flags = [f"--tokens={sizes[0]}", f"--new-tokens={sizes[1]}", f"--threads={sizes[2]}"]
    less = {name: getattr(options, name) for name in ("capacity", "budget")}
    flags += [f"--{name}={value}" for name, value in less.items() if value is not None]
    results: dict[str, list[dict]] = {"lcc": [], "genai": []}
    for _ in range(options.rounds):
        for which, folder in zip(results, options.folders, strict=True):
            command = [sys.executable, __file__, which, folder, *flags]
            line = subprocess.check_output(command, text=True).splitlines()[-1]
            results[which].append(json.loads(line))
            print(which, line, flush=True)
    for phase in ("prefill", "decode"):
        ratios = [a[phase] / b[phase] for a, b in zip(*results.values(), strict=True)]
        print(f"{phase}: lcc / genai {statistics.median(ratios):.2f} x, all {ratios}")


if __name__ == "__main__":
    main()
