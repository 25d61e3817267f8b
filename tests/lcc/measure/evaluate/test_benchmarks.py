"""Benchmark files in their published layout: wording, answers, metric; and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from lcc.errors import LccError
from lcc.measure.evaluate.benchmarks import READERS, read, truncate
from lcc.measure.evaluate.benchmarks.prompt import read_prompts
from lcc.measure.evaluate.metrics import METRICS
from lcc.measure.evaluate.sample import Sample


def samples(
    folder: Path, file: str, *rows: dict[str, Any], name: str | None = None
) -> list[Sample]:
    """Write rows in the layout that the name's ending says, and read them."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = f"[{', '.join(lines)}]" if file.endswith(".json") else "\n".join(lines) + "\n\n"
    (folder / file).write_text(text, encoding="utf-8")
    return list(read(folder / file, name))


def longbench(dataset: str, **fields: Any) -> dict[str, Any]:
    return {
        "input": "Who?",
        "context": "A text.",
        "answers": ["Ann", "Bob"],
        "length": 5000,
        "dataset": dataset,
        "language": "en",
        "all_classes": None,
        "_id": "1",
    } | fields


def test_longbench(tmp_path: Path) -> None:
    (sample,) = samples(tmp_path, "hotpotqa.jsonl", longbench("hotpotqa"))
    assert sample.context + sample.asked == (
        "Answer the question based on the given passages. Only give me the answer and do not "
        "output any other words.\n\nThe following are given passages.\nA text.\n\nAnswer the "
        "question based on the given passages. Only give me the answer and do not output any "
        "other words.\n\nQuestion: Who? Answer:"
    )
    assert sample.context.endswith("A text.\n"), "what is read does not know the question"
    assert (sample.answers, sample.metric, sample.max_new_tokens) == (("Ann", "Bob"), "f1", 32)
    assert (sample.dataset, sample.group, sample.depth, sample.tokens) == ("hotpotqa", "", None, 0)
    assert "Who?" not in sample.task


def test_longbench_classes_and_code(tmp_path: Path) -> None:
    row = longbench("trec", answers=["Food"], all_classes=["Animal", "Food", "Plant"], input="Q")
    (sample,) = samples(tmp_path, "trec.jsonl", row)
    assert sample.answers == ("Food", "Animal", "Plant")
    assert METRICS[sample.metric](" Food\nAnimal", sample.answers) == 1
    assert sample.asked == "\nQ"
    row = longbench("lcc", context="a = 1\n", input="", answers=["b = 2"])
    (sample,) = samples(tmp_path, "lcc.jsonl", row)
    assert sample.context + sample.asked == (
        "Please complete the code given below. \na = 1\nNext line of code:\n"
    )


def test_longbench_e_is_in_groups(tmp_path: Path) -> None:
    rows = [longbench("qasper", length=length) for length in (3999, 4000, 8000)]
    read_rows = samples(tmp_path, "qasper_e.jsonl", *rows)
    assert [sample.group for sample in read_rows] == ["0-4k", "4-8k", "8k+"]
    assert {sample.dataset for sample in read_rows} == {"qasper"}


def test_longbench_2(tmp_path: Path) -> None:
    row = {"_id": "1", "domain": "d", "sub_domain": "s", "difficulty": "hard", "length": "short"}
    row |= {"question": " Which? ", "answer": "C", "context": "A text."}
    row |= {f"choice_{letter}": f" the {letter} " for letter in "ABCD"}
    (sample,) = samples(tmp_path, "data.json", row)
    assert sample.context + sample.asked == (
        "Please read the following text and answer the question below.\n\n<text>\nA text.\n"
        "</text>\n\nWhat is the correct answer to this question: Which?\nChoices:\n(A) the A\n"
        "(B) the B\n(C) the C\n(D) the D\n\n"
        'Format your response as follows: "The correct answer is (insert answer here)".'
    )
    assert METRICS[sample.metric]("The correct answer is (C)", sample.answers) == 1
    assert (sample.dataset, sample.group) == ("longbench_v2", "short, hard")
    assert sample.max_new_tokens == 128


def infinitebench(**fields: Any) -> dict[str, Any]:
    return {"id": 0, "context": "A text.", "input": "", "answer": ["12"], "options": []} | fields


def test_infinitebench_kv_retrieval(tmp_path: Path) -> None:
    asked = 'Key: "ab"\nThe value associated with the specified key is: '
    row = infinitebench(context='JSON data:\n{"ab": "cd"}', input=asked, answer=["cd"])
    (sample,) = samples(tmp_path, "kv_retrieval.jsonl", row)
    assert sample.context + sample.asked == (
        "Extract the value corresponding to the specified key in the JSON object below.\n\n"
        'JSON data:\n{"ab": "cd"}\n\nKey: "ab" The value associated with the specified key is:'
    )
    assert (sample.metric, sample.max_new_tokens) == ("word", 50)


def test_infinitebench_others(tmp_path: Path) -> None:
    row = infinitebench(input="What is the pass key?", answer="01234")
    (sample,) = samples(tmp_path, "validation.jsonl", row, name="passkey")
    assert sample.asked == "\nWhat is the pass key? The pass key is"
    assert (sample.answers, sample.dataset) == (("01234",), "passkey")

    row = infinitebench(input="Why?", options=["one", "two", "three", "four"], answer=["two"])
    (sample,) = samples(tmp_path, "longbook_choice_eng.jsonl", row)
    assert sample.answers == ("B", "two")
    assert sample.asked == (
        "\nQuestion: Why?\nA. one\nB. two\nC. three\nD. four The letter of the correct answer is"
    )
    (sample,) = samples(tmp_path, "code_debug.jsonl", row)
    assert METRICS[sample.metric]("B. two", sample.answers) == 1

    row = infinitebench(input="Please give me func_3(-7).", answer=[-12])
    (sample,) = samples(tmp_path, "code_run.jsonl", row)
    assert sample.context.startswith("There is a function called func_3 in the following")
    assert sample.asked.endswith("value of func_3(-7). The value of func_3(-7) is")
    assert METRICS[sample.metric](" -12", sample.answers) == 1

    row = infinitebench(input="The smallest number of the list is:", answer=[3])
    (sample,) = samples(tmp_path, "math_find.jsonl", row)
    assert sample.context.startswith("What is the smallest number in the following list?\n\nA text")

    row = infinitebench(context="1 + 2", answer=[1, 3])
    (sample,) = samples(tmp_path, "math_calc.jsonl", row)
    assert (sample.context + sample.asked).endswith(
        "Values: [8, 5, 7, 3]\n\nExpression: 1 + 2\nValues:"
    )
    assert sample.answers == ("1", "3")


def leval(kind: str, *pairs: tuple[str, str]) -> dict[str, Any]:
    return {
        "instructions": [question for question, _ in pairs],
        "outputs": [answer for _, answer in pairs],
        "input": "A {text}.",
        "source": "somewhere",
        "evaluation": kind,
    }


def test_leval(tmp_path: Path) -> None:
    row = leval("exam", ("Which?", "B B. two"), ("And?", "C"))
    first, second = samples(tmp_path, "quality.jsonl", row)
    assert first.context == second.context
    assert first.context.startswith("Now you are given a very long document. Please follow")
    assert first.context.endswith("(like A or B) when answering. For other questions, please "
        "directly give the concise and accurate answer. \n\nDocument is as follows. A {text}."
    )  # fmt: skip
    assert first.asked == (
        "\nQuestion: Which?.  Please directly give answer without any additonal output or "
        "explanation Answer:"
    )
    assert METRICS[first.metric]("B", first.answers) == 1
    (sample,) = samples(tmp_path, "sci_fi.jsonl", leval("exam", ("So?", "True [fact: False]")))
    assert (sample.metric, sample.answers) == ("true_or_false", ("True",))
    (sample,) = samples(tmp_path, "gsm100.jsonl", leval("exam", ("1+1?", "The answer is 2")))
    assert sample.asked == "\n1+1?"
    (sample,) = samples(tmp_path, "news_summ.jsonl", leval("rouge", ("Sum up.", "one two")))
    assert sample.asked == "\nInstruction: Sum up. \nAnswer this question with 2 words."
    assert sample.metric == "rouge_l_google"
    judged = leval("LLM", ("Sum up.", "one two"))
    (sample,) = samples(tmp_path, "x.jsonl", judged, leval("f1", ("Who?", "Ann")))
    assert sample.metric == "f1", "what needs a judge is left out"


def test_helmet(tmp_path: Path) -> None:
    row = {"context": '{"a": "b"}', "question": "a", "answer": "b", "num_kvs": 1}
    row |= {"demos": [["x", "y"], ["z", "w"], ["u", "v"]]}
    (sample,) = samples(tmp_path, "test_k1_dep6.jsonl", row)
    assert sample.context + sample.asked == (
        '{"a": "b"}\n\nExtract the value corresponding to the specified key in the JSON object '
        "below.\n\nKey: x\nCorresponding value: y\n\nKey: z\nCorresponding value: w\n\nKey: a "
        "Corresponding value:"
    )
    assert (sample.metric, sample.max_new_tokens) == ("substring_exact_match", 100)

    passages = [{"title": "T", "text": "one"}, {"title": "U", "text": "two"}]
    row = {"question": "Who?", "answers": ["Ann"], "ctxs": passages}
    (sample,) = samples(tmp_path, "nq.jsonl", row)
    assert (sample.context + sample.asked).endswith(
        "Document (Title: T): one\n\nDocument (Title: U): two\n\nQuestion: Who? Answer:"
    )
    assert METRICS[sample.metric](" Ann\nQuestion: Where?", sample.answers) == 1
    assert METRICS[sample.metric](" Bob\nor Ann", sample.answers) == 0, "it stops at a line end"
    known, unknown = ({**row, "s_pop": 1000}, {**row, "s_pop": 999, "question": "Which?"})
    (sample,) = samples(tmp_path, "popqa_test_1000_k1000_dep6.jsonl", known, unknown)
    assert sample.question == "Question: Which?", "1,000 visits and more a month are left out"
    assert len(samples(tmp_path, "nq.jsonl", known, unknown)) == 2

    row = {"context": "text", "query": "k", "type_needle_v": "number", "outputs": ["7"]}
    (sample,) = samples(tmp_path, "niah_multikey_3.jsonl", row)
    assert sample.context.startswith("A special magic number is hidden within the following text.")
    assert sample.answer_prefix == (
        "The special magic number for k mentioned in the provided text is"
    )
    assert (sample.metric, sample.max_new_tokens, sample.answers) == ("all", 100, ("7",))
    row |= {"type_needle_v": "numbers"}
    (sample,) = samples(tmp_path, "v.jsonl", row, name="ruler_niah_mv")
    assert (
        sample.question
        == "What are all the special magic numbers for k mentioned in the provided text?"
    )

    row = {"context": "t\nlabel: 3", "question": "u", "answer": "4"}
    (sample,) = samples(tmp_path, "icl_trec.jsonl", row)
    assert 'Only output "label: {label}" and nothing else. \n\nt\nlabel: 3\n' in sample.context
    assert METRICS[sample.metric](" 4\n\nlabel: 5", sample.answers) == 1


def test_every_prompt_has_a_metric() -> None:
    for benchmark in ("longbench", "infinitebench", "helmet"):
        prompts = read_prompts(benchmark)
        assert len(prompts) > 10
        assert all(prompt.metric in METRICS for prompt in prompts.values())
    assert len(READERS) == 5


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(LccError, match=r"no\.jsonl: No such file"):
        list(read(tmp_path / "no.jsonl"))
    (tmp_path / "a.jsonl").write_text("{1}\n")
    with pytest.raises(LccError, match=r"a\.jsonl: no JSON, nor lines of it"):
        list(read(tmp_path / "a.jsonl"))
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(LccError, match="no rows"):
        list(read(tmp_path / "a.jsonl"))
    with pytest.raises(LccError, match="a row has a, b; wanted LongBench: all_classes, answers, c"):
        samples(tmp_path, "a.jsonl", {"b": 1, "a": 2})
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(LccError, match="a row is int, wanted a JSON object"):
        list(read(tmp_path / "a.json"))
    with pytest.raises(LccError, match=r"dataset is 'vcsum', wanted one of narrativeqa.*Chinese"):
        samples(tmp_path, "vcsum.jsonl", longbench("vcsum"))
    with pytest.raises(LccError, match="dataset is 'other', wanted one of passkey, number_string"):
        samples(tmp_path, "other.jsonl", infinitebench())
    damaged = {key: value for key, value in longbench("lcc").items() if key != "context"}
    with pytest.raises(LccError, match=r"row 2: not as LongBench has it \(KeyError: 'context'\)"):
        samples(tmp_path, "a.jsonl", longbench("lcc"), damaged)
    choice = infinitebench(options=["one", "two", "three", "four"], answer=["five"])
    with pytest.raises(LccError, match=r"a\.jsonl, row 2: not as Inf.*\(ValueError: .*not in list"):
        samples(
            tmp_path, "a.jsonl", choice | {"answer": ["one"]}, choice, name="longbook_choice_eng"
        )
    with pytest.raises(LccError, match=r"a\.jsonl, row 1: code_run: no 'func_.*Run it"):
        samples(tmp_path, "a.jsonl", infinitebench(input="Run it."), name="code_run")
    unanswered = longbench("trec", answers=[], all_classes=["Animal", "Food"])
    for row in (unanswered, {"question": "Who?", "answers": [], "ctxs": []}):
        with pytest.raises(LccError, match=r"a\.jsonl, row 1: no answers, wanted one or more"):
            samples(tmp_path, "a.jsonl", row)
    with pytest.raises(LccError, match="dataset is 'mine', wanted one of coursera, quality"):
        samples(tmp_path, "mine.jsonl", leval("exam", ("Who?", "Ann")))
    with pytest.raises(LccError, match="name is 'other', wanted a task of RULER"):
        samples(tmp_path, "other.jsonl", {"context": "t", "outputs": ["7"]})


def test_truncation_keeps_both_ends() -> None:
    """Letters as tokens: 12, of which the question takes 3 with its line end; 6 and 3 of text."""
    sample = Sample(
        context="abcdefghijklm",
        question="Q?",
        task="",
        answer_prefix="",
        answers=("x",),
        depth=None,
        tokens=0,
    )

    def encode(text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(ids: list[int]) -> str:
        return "".join(map(chr, ids))

    cut = truncate(sample, 12, encode, decode)
    assert (cut.context, cut.tokens) == ("abcdefklm", 9)
    assert (truncate(sample, 16, encode, decode).context) == sample.context
    assert truncate(sample, 15, encode, decode).context == "abcdefgijklm"
    assert truncate(sample, 6, encode, decode).context == "abc"
    assert truncate(sample, 5, encode, decode).context == "ab"
    with pytest.raises(LccError, match="tokens is 4, wanted 5 or more: the question has 3"):
        truncate(sample, 4, encode, decode)
