"""HELMET (arXiv 2410.02694): its files for recall and retrieval, and rows of in-context learning.

The files on disk are RULER's tasks (`ruler/`), the JSON dictionary (`json_kv/`) and questions over
retrieved passages (`kilt/`). In-context learning comes from a hub; rows that were saved with
`context`, `question` and `answer` are read under a name that begins with `icl`. Left out: ranking,
and what a judge model scores. Passages are asked about without the two solved examples, which lie
in files of their own. Of PopQA, questions about well-known subjects are left out, as it does.
"""

from collections.abc import Iterator
from typing import Any

from lcc.errors import LccError
from lcc.measure.evaluate.benchmarks.prompt import Prompt, prompt_of
from lcc.measure.evaluate.sample import Sample

NAME = "HELMET"
FIELDS = (
    {"context", "question", "answer", "demos", "num_kvs"},
    {"question", "answers", "ctxs"},
    {"context", "query", "outputs"},
    {"context", "query", "answer"},
    {"context", "question", "outputs"},
    {"context", "question", "answer"},
    {"context", "outputs"},
)
SHOTS = 2  # of json_kv
WELL_KNOWN = 1000  # s_pop of PopQA: the 3 of its popqa_3 is the logarithm
ALIASES = {  # how a name begins -> its template in helmet.yaml, the first that fits
    "niah_multivalue": "niah_multivalue",
    "niah_mv": "niah_multivalue",
    "niah_multiquery": "niah_multiquery",
    "niah_mq": "niah_multiquery",
    "niah_multikey_3": "niah_multikey_3",
    "niah_mk_3": "niah_multikey_3",
    **{kind: kind for kind in ("niah", "vt", "cwe", "fwe", "qa")},
}


def samples(row: dict[str, Any], name: str) -> Iterator[Sample]:
    """One sample a row; `name` is of a task of RULER, or begins with icl, where the row is one.

    None of a well-known subject, where the name has popqa in it.
    """
    if "ctxs" in row:
        if "popqa" in name and row["s_pop"] >= WELL_KNOWN:
            return
        text = "\n\n".join(f"Document (Title: {c['title']}): {c['text']}" for c in row["ctxs"])
        kind, answers = "rag", row["answers"]
        fields = {"question": row["question"]}
    elif "num_kvs" in row:
        shown = [f"Key: {key}\nCorresponding value: {value}" for key, value in row["demos"][:SHOTS]]
        kind, text, answers = "json_kv", row["context"], row["answer"]
        fields = {"question": row["question"], "demos": "".join(f"{each}\n\n" for each in shown)}
    elif name.startswith("icl"):
        kind, text, answers = "icl", row["context"], row["answer"]
        fields = {"question": row["question"]}
    else:
        kind, text = _ruler(name), row["context"]
        answers = row["answer"] if "answer" in row else row["outputs"]
        example = row.get("example") or ""
        fields = {
            "query": row.get("query", row.get("question", "")),
            "type_needle_v": row.get("type_needle_v", ""),
            "num_v": row.get("num_v", 5),
            "example": example and f"{example}\n\n",
        }
    wanted = tuple(answers) if isinstance(answers, list) else (str(answers),)
    prompt: Prompt = prompt_of("helmet", kind)
    yield prompt.sample(text, wanted, dataset=name, **fields)


def _ruler(name: str) -> str:
    """Which template a task of RULER has, by its name."""
    short = name.removeprefix("ruler_")
    for begin, kind in ALIASES.items():
        if short.startswith(begin):
            return kind
    raise LccError(
        f"name is {name!r}, wanted a task of RULER (niah_multikey_2, vt, cwe, fwe, qa_1, ...), or "
        "icl_... for rows of in-context learning"
    )
