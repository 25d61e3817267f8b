"""L-Eval (arXiv 2307.11088): lines of JSON, a file a dataset; a text with many questions a row.

Closed questions by its own matching, the others by F1 and ROUGE-L where it does so; rows that it
leaves to a judge model or to people are left out. `sci_fi` counts its first part only: the second
asks a model what it knows without the text.
"""

from collections.abc import Iterator
from typing import Any

from lcc.errors import LccError
from lcc.measure.evaluate.benchmarks.prompt import Prompt
from lcc.measure.evaluate.sample import Sample

NAME = "L-Eval"
FIELDS = ({"instructions", "outputs", "input", "evaluation"},)
MAX_NEW_TOKENS = 512

LONG = "Now you are given a very long document. "
LETTER = "Please only provide the letter corresponding to the answer (like A or "
FOLLOW = f"{LONG}Please follow the instruction based on this document. For multi-choice questions, "
SYSTEM = {
    "gsm100": "Given several question answer pairs, you need to follow a similar format to answer "
    "the last question. Make sure the response is end with The answer is _ . ",
    "topic_retrieval_longchat": "Below is a record of our previous conversation on many different "
    "topics. You are the ASSISTANT, and I am the USER. At the beginning of each topic, the USER "
    "will say 'I would like to discuss the topic of <TOPIC>'. Memorize each <TOPIC>. At the end of "
    "the record, I will ask you to retrieve the first/second/third topic names. Now the record "
    "start. ",
    "coursera": f"{FOLLOW}there could be a sinlge correct option or multiple correct options. "
    f"{LETTER}AB) when answering. ",
    "codeU": "Now you are given a code base consisting of a large amount of functions and the "
    "corresponding comments. In the end, I will call some functions defined in the code base. "
    "Please carefully read these codes and comments and answer the question.",
    "sci_fi": "Now you are given a scientific fiction. I will ask you some questions and the "
    'answer should be "True" or "False". Notice that you should answer the question based on the '
    "evidence in the document instead of your background knowledge.",
}
EXAM = (
    f"{FOLLOW}there is only a sinlge correct option. {LETTER}B) when answering. "
    "For other questions, please directly give the concise and accurate answer. "
)
OPEN = (
    f"{LONG}Please follow the instruction after this document. These instructions may include "
    "summarizing a document, answering questions based on the document, or writing a required "
    "paragraph. "
)
METRICS = {
    "coursera": "letters",
    "quality": "one_letter",
    "tpo": "one_letter",
    "gsm100": "final_number",
    "codeU": "code_output",
    "sci_fi": "true_or_false",
    "topic_retrieval_longchat": "contained",
}
OVERLAP = {"f1": "f1", "rouge": "rouge_l_google"}
JUDGED = ("LLM", "human")


def samples(row: dict[str, Any], name: str) -> Iterator[Sample]:
    """A sample for each instruction of a row."""
    kind = row["evaluation"]
    if kind in JUDGED:
        return
    if kind not in ("exam", *OVERLAP):
        raise LccError(f"evaluation is {kind!r}, wanted exam, f1, rouge, {', '.join(JUDGED)}")
    if kind == "exam" and name not in METRICS:
        raise LccError(f"dataset is {name!r}, wanted one of {', '.join(METRICS)}")
    prompt = prompt_of(name, kind)
    for instruction, output in zip(row["instructions"], row["outputs"], strict=True):
        wanted = output.split("[fact:")[0].strip() if name == "sci_fi" else output
        yield prompt.sample(
            row["input"],
            (wanted,),
            dataset=name,
            instruction=instruction,
            words=len(output.split()),
        )


def prompt_of(name: str, kind: str) -> Prompt:
    """What L-Eval puts around the texts of a dataset; `kind` is how it is scored."""
    system = SYSTEM.get(name, EXAM if kind == "exam" else OPEN)
    prefix, document = "", "Document is as follows. "
    if name in ("gsm100", "codeU", "topic_retrieval_longchat"):
        document, after = "", "\n\n{instruction}"
    elif kind == "exam":
        after = (
            "\nQuestion: {instruction}.  Please directly give answer without any additonal output "
            "or explanation"
        )
        prefix = "Answer:"
    else:
        after = "\nInstruction: {instruction} \nAnswer this question with {words} words."
    return Prompt(
        before=f"{system}\n\n{document}".replace("{", "{{").replace("}", "}}"),
        after=after,
        answer_prefix=prefix,
        metric=METRICS[name] if kind == "exam" else OVERLAP[kind],
        max_new_tokens=MAX_NEW_TOKENS,
    )
