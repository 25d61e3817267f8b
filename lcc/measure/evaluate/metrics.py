"""How an answer is compared with what was wanted: the published scores of the benchmarks, 0 to 1.

`METRICS[name](answer, wanted)`. As a rule the best of several wanted answers counts. Where a score
needs the wrong options, too (`label`, `classification`), the right one comes first in `wanted`.
"""

import difflib
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from lcc.env import needs_extra
from lcc.measure.evaluate.closed_questions import (
    choice_or_text,
    code_output,
    contained,
    faulty_function,
    final_number,
    first_integer,
    first_number,
    last_integer,
    letters,
    one_letter,
    prefix_of_list,
    true_or_false,
    words,
)

Metric = Callable[[str, tuple[str, ...]], float]
Single = Callable[[str, str], float]

CHINESE_PUNCTUATION = (
    "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿"
    "–—‘’‛“”„‟…‧﹏"
)


def best(score: Single) -> Metric:
    """Against each wanted answer, the best counts."""
    return lambda answer, wanted: max(float(score(answer, each)) for each in wanted)


def on_first_line(metric: Metric) -> Metric:
    """Only the first line that is not empty: what comes after it the model made up."""
    return lambda answer, wanted: metric(answer.lstrip("\n").split("\n")[0], wanted)


# RULER


def string_match_all(answer: str, wanted: tuple[str, ...]) -> float:
    """RULER's score of all its tasks but two: the share of the wanted strings that occur."""
    return sum(each.lower() in answer.lower() for each in wanted) / len(wanted)


# BABILong


def label(answer: str, wanted: tuple[str, ...]) -> float:
    """BABILong's: the first sentence names the right label, and none of the wrong ones."""
    said = answer.lower().split(".")[0].split("<context>")[0].split("<example>")[0]
    right, *wrong = (each.lower() in said for each in wanted)
    return float(right and not any(wrong))


# words in common


def normalize(text: str) -> str:
    """SQuAD's: lower case, no punctuation, no articles, single spaces."""
    text = "".join(each for each in text.lower() if each not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def f1(answer: str, wanted: str) -> float:
    """SQuAD's and LongBench's: harmonic mean of precision and recall of words, as bags."""
    return overlap(normalize(answer).split(), normalize(wanted).split())


def f1_characters(answer: str, wanted: str) -> float:
    """InfiniteBench's of Chinese answers: the same, over characters that are no white space."""
    dropped = string.punctuation + CHINESE_PUNCTUATION
    answer, wanted = (
        "".join(c for c in "".join(text.lower().split()) if c not in dropped)
        for text in (answer, wanted)
    )
    return overlap(answer, wanted)


def overlap(answer: Sequence[str], wanted: Sequence[str]) -> float:
    """Return the F1 of two bags."""
    same = sum((Counter(answer) & Counter(wanted)).values())
    return 2 * same / (len(answer) + len(wanted)) if same else 0.0


def substring_exact_match(answer: str, wanted: str) -> float:
    """HELMET's: the normalized answer contains the normalized wanted one."""
    return float(normalize(wanted) in normalize(answer))


def exact_match(answer: str, wanted: str) -> float:
    """HELMET's of labels: equal after normalization, on the first line, after "label:"."""
    said = re.sub(r"^\s*label:", "", answer.strip().split("\n")[0], flags=re.IGNORECASE)
    return float(normalize(said) == normalize(wanted))


def rouge_l(answer: str, wanted: str) -> float:
    """LongBench's ROUGE-L: F1 of the library `rouge`, over distinct words, sentence by sentence."""
    with needs_extra("eval"):
        from rouge import Rouge
    try:
        return float(Rouge(metrics=["rouge-l"]).get_scores(answer, wanted)[0]["rouge-l"]["f"])
    except (ValueError, RecursionError):  # nothing but full stops, or an endless sentence: as there
        return 0.0


def rouge_score(kind: str) -> Single:
    """F1 of Google's `rouge-score`, no stemming: rougeL is L-Eval's, rougeLsum InfiniteBench's."""

    def score(answer: str, wanted: str) -> float:
        with needs_extra("eval"):
            from rouge_score.rouge_scorer import RougeScorer
        return float(RougeScorer([kind]).score(wanted, answer)[kind].fmeasure)

    return score


# LongBench


def classification(answer: str, wanted: tuple[str, ...]) -> float:
    """LongBench's: the right class is named; shared with the others that are named."""
    right = wanted[0]
    named = [each for each in dict.fromkeys(wanted) if each in answer]
    named = [each for each in named if each == right or each not in right]
    return 1 / len(named) if right in named else 0.0


def count(answer: str, wanted: str) -> float:
    """LongBench's of a number: the share of the numbers said that are the right one."""
    said = re.findall(r"\d+", answer)
    return said.count(wanted) / len(said) if said else 0.0


def retrieval(answer: str, wanted: str) -> float:
    """LongBench's of "Paragraph 12": the same, of the number alone."""
    return count(answer, re.findall(r"(?:Paragraph |段落)(\d+)", wanted)[0])


def code_similarity(answer: str, wanted: str) -> float:
    """LongBench's edit similarity of the first line that is neither comment nor Markdown."""
    lines = answer.lstrip("\n").split("\n")
    code = (line for line in lines if not any(mark in line for mark in ("`", "#", "//")))
    return round(100 * difflib.SequenceMatcher(None, next(code, ""), wanted).ratio()) / 100


def correct_answer_is(answer: str, wanted: str) -> float:
    """LongBench v2's: the letter in "The correct answer is (B)"; only else in "... is B"."""
    said = answer.replace("*", "")
    found = re.search(r"The correct answer is \(([A-D])\)", said)
    found = found or re.search(r"The correct answer is ([A-D])", said)
    return float(found is not None and found[1] == wanted)


LASTING = frozenset({"all", "substring_exact_match"})
"""Where an answer of score 1 keeps it, whatever else is said after it."""

METRICS: dict[str, Metric] = {
    "all": string_match_all,
    "label": label,
    "f1": best(f1),
    "f1_first_line": on_first_line(best(f1)),
    "f1_characters": best(f1_characters),
    "substring_exact_match": best(substring_exact_match),
    "substring_exact_match_first_line": on_first_line(best(substring_exact_match)),
    "exact_match": best(exact_match),
    "rouge_l": best(rouge_l),
    "rouge_l_first_line": on_first_line(best(rouge_l)),
    "rouge_l_google": best(rouge_score("rougeL")),
    "rouge_lsum": best(rouge_score("rougeLsum")),
    "classification": on_first_line(classification),
    "count": best(count),
    "retrieval": best(retrieval),
    "code_similarity": best(code_similarity),
    "correct_answer_is": best(correct_answer_is),
    "word": lambda answer, wanted: float(wanted[0] in words(answer)),
    "name": lambda answer, wanted: float(wanted[0].upper() in words(answer.upper())),
    "first_integer": best(first_integer),
    "last_integer": best(last_integer),
    "first_number": best(first_number),
    "prefix_of_list": prefix_of_list,
    "choice_or_text": choice_or_text,
    "faulty_function": faulty_function,
    "one_letter": best(one_letter),
    "letters": best(letters),
    "contained": best(contained),
    "final_number": best(final_number),
    "code_output": best(code_output),
    "true_or_false": best(true_or_false),
}
