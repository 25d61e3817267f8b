"""Scores on answers worked out by hand from the published definitions."""

import pytest

from lcc.measure.evaluate.benchmarks import leval, longbench2
from lcc.measure.evaluate.benchmarks.prompt import read_prompts
from lcc.measure.evaluate.metrics import LASTING, METRICS, normalize
from lcc.measure.evaluate.tasks import TASKS

CASES = [
    # RULER, string_match_all: substrings, any case; a third of three
    ("all", "It is ABC-1, I think", ("abc-1",), 1),
    ("all", "12 and 34", ("12", "56", "78"), 1 / 3),
    ("all", "1 2 3", ("123",), 0),
    # BABILong: the first sentence only; a wrong label beside the right one is wrong
    ("label", "She is in the Kitchen. Or the garden.", ("kitchen", "garden"), 1),
    ("label", "The kitchen or the garden", ("kitchen", "garden"), 0),
    ("label", "Nowhere. kitchen", ("kitchen", "garden"), 0),
    ("label", "kitchen\n<example>garden", ("kitchen", "garden"), 1),
    # LongBench, QA F1. Normalized: "blue whale" and "big blue whale swam"; two words in common,
    # precision 2/2, recall 2/4, so 2 * 1 * 0.5 / 1.5
    ("f1", "The blue, whale!", ("a big blue whale swam",), 2 / 3),
    # "fish fish" and "fish": bags have one in common: precision 1/2, recall 1
    ("f1", "fish fish", ("fish",), 2 / 3),
    ("f1", "whale", ("shark", "a whale"), 1),
    ("f1", "the", ("whale",), 0),
    ("f1", "one\ntwo", ("one",), 2 / 3),
    ("f1_first_line", "\none\ntwo", ("one",), 1),
    ("f1_first_line", "\none\ntwo", ("two",), 0),
    # InfiniteBench, Chinese: characters without punctuation; 2 of 3 and 2 of 2
    ("f1_characters", "张三。", ("张三丰",), 0.8),
    ("f1_characters", "。", ("张。",), 0),
    # ideographic and no-break spaces are none of the characters, either
    ("f1_characters", "张\u3000三\xa0丰", ("张三丰",), 1),
    # HELMET
    ("substring_exact_match", "It was the Blue Whale, sir", ("a blue whale",), 1),
    ("substring_exact_match", "It was a bluewhale", ("blue whale",), 0),
    ("substring_exact_match", "\nno\nblue whale", ("blue whale",), 1),
    ("substring_exact_match_first_line", "\n a blue whale\nno", ("blue whale",), 1),
    ("substring_exact_match_first_line", " no\nblue whale", ("blue whale",), 0),
    ("exact_match", " Label: 12\nlabel: 13", ("12",), 1),
    ("exact_match", "label: 121", ("12",), 0),
    # LongBench, ROUGE-L of the library `rouge`: distinct words. Longest common subsequence of
    # "a b c d" and "a c d e f" is "a c d": recall 3/5, precision 3/4, F1 = 0.9 / 1.35 = 2/3
    ("rouge_l", "a b c d", ("a c d e f",), 2 / 3),
    ("rouge_l", "x", ("a c d e f", "x"), 1),
    # twice the same word counts once: {a, b} of {a, b}
    ("rouge_l", "a b a", ("a b",), 1),
    ("rouge_l", "", ("a b",), 0),
    ("rouge_l", "...", ("a b",), 0),
    ("rouge_l_first_line", "a b\nx y z", ("a b",), 1),
    ("rouge_l_first_line", "a b\nx y z", ("x",), 0),
    # Google's counts each: common "a b" of 3 and of 2: precision 2/3, recall 1
    ("rouge_l_google", "a b a", ("a b",), 0.8),
    # order matters without line ends: "c d a b" and "a b c d" share two in order, of four;
    # by lines (Lsum) each line of the wanted text is looked for in all lines: all four
    ("rouge_l_google", "c d\na b", ("a b\nc d",), 0.5),
    ("rouge_lsum", "c d\na b", ("a b\nc d",), 1),
    ("rouge_lsum", "x", ("a b\nc d",), 0),
    # LongBench, classes: shared with others named; one that is part of the right one is not another
    ("classification", "It is Food, or Animal", ("Food", "Animal", "Plant"), 0.5),
    ("classification", "Food of animals", ("Food of animals", "Food", "Plant"), 1),
    ("classification", "Food", ("Animal", "Food", "Plant"), 0),
    ("classification", "\nFood\nAnimal", ("Food", "Animal"), 1),
    # LongBench, numbers: the share that is right
    ("count", "12, no: 13", ("13",), 0.5),
    ("count", "thirteen", ("13",), 0),
    ("retrieval", "Paragraph 3, or 4, or 3", ("Paragraph 3",), 2 / 3),
    ("retrieval", "段落3", ("段落3",), 1),
    # LongBench, code: the first line that is no comment; "abcd" and "bcde" have three letters in
    # a row of four and four: 2 * 3 / 8 = 0.75
    ("code_similarity", "\n# a comment\nabcd\nx", ("bcde",), 0.75),
    ("code_similarity", "```python\nreturn 1", ("return 1",), 1),
    ("code_similarity", "# nothing but this", ("return 1",), 0),
    # LongBench v2
    ("correct_answer_is", "**The correct answer is (B)**", ("B",), 1),
    ("correct_answer_is", "The correct answer is **(B)**", ("B",), 1),
    ("correct_answer_is", "The correct answer is B.", ("B",), 1),
    ("correct_answer_is", "B", ("B",), 0),
    ("correct_answer_is", "The correct answer is (A). No: The correct answer is (B)", ("B",), 0),
    # the letter in parentheses is looked for in the whole answer first
    ("correct_answer_is", "The correct answer is A. No: The correct answer is (B)", ("B",), 1),
    ("correct_answer_is", "The correct answer is (B", ("B",), 0),
    # InfiniteBench, retrieval
    ("word", ' "ab-cd", he said', ("ab-cd",), 1),
    ("word", "ab-cde", ("ab-cd",), 0),
    ("name", "Probably Homer: d'oh", ("HOMER",), 1),
    ("name", "Homeric", ("HOMER",), 0),
    ("first_integer", " 01234. 5", ("01234",), 1),
    ("first_integer", "7 01234", ("01234",), 0),
    # InfiniteBench, code and math
    ("last_integer", "The value is: -7.", ("-7",), 1),
    ("last_integer", "7 apples", ("7",), 0),
    ("last_integer", "", ("7",), 0),
    ("first_number", "It is 2.50, not 3", ("2.5",), 1),
    ("first_number", "none", ("3",), 0),
    ("prefix_of_list", "[1, 5, 9, 2]", ("1", "5", "8", "2"), 0.5),
    ("prefix_of_list", "", ("1",), 0),
    # InfiniteBench, letters: at the beginning; after "answer is"; else the first alone
    ("choice_or_text", "B. Because", ("B", "a boat"), 1),
    ("choice_or_text", "C, surely not B", ("B", "a boat"), 0),
    ("choice_or_text", "The answer is B", ("B", "a boat"), 1),
    ("choice_or_text", "The answer is a boat", ("B", "a boat"), 1),
    ("choice_or_text", "I would say C or B", ("B", "a boat"), 0),
    ("choice_or_text", "", ("B", "a boat"), 0),
    ("choice_or_text", " B", ("B", "a boat"), 1),
    ("choice_or_text", "\n B. The answer is C", ("B", "a boat"), 1),
    ("faulty_function", "B. it crashes", ("B", "run"), 1),
    ("faulty_function", "The answer is: run", ("B", "run"), 1),
    ("faulty_function", "B", ("B", "run"), 0),
    ("faulty_function", " B. it crashes", ("B", "run"), 1),
    ("faulty_function", "\n B: it crashes", ("B", "run"), 1),
    # L-Eval, letters: the first capital; A where there is none; of an empty answer a quarter
    ("one_letter", "(C) because of B", ("C",), 1),
    ("one_letter", "no idea", ("A",), 1),
    ("one_letter", "no idea", ("B",), 0),
    ("one_letter", "AB", ("A",), 0),
    ("one_letter", " AB", ("A",), 0),
    ("one_letter", " C", ("C",), 1),
    ("one_letter", "", ("A",), 0.25),
    ("one_letter", " \n", ("B",), 0.25),
    # coursera: the set; a quarter for some and no wrong one
    ("letters", "ABD", ("ABD",), 1),
    ("letters", "B. yes D. yes", ("BD",), 1),
    ("letters", "B", ("BD",), 0.25),
    ("letters", "BC", ("BD",), 0),
    ("letters", " ABD", ("ABD",), 1),
    ("letters", " BC", ("BD",), 0),
    ("letters", "no idea", ("A",), 1),
    ("letters", "", ("A",), 0.25),
    ("letters", " ", ("BD",), 0.25),
    # L-Eval, numbers and phrases
    ("contained", "2.0", ("2",), 1),
    ("contained", "\nThe Topic is Old Cars\nmore", ("old cars",), 1),
    ("contained", "x\nno\nold cars", ("old cars",), 0),
    ("contained", "x\nold cars", ("old cars",), 1),
    ("final_number", "3 and 4 is 7. The answer is 1,200.", ("... The answer is 1200",), 1),
    ("final_number", "first 3 then $14.50 in all\n\n99", ("The answer is 14",), 1),
    ("final_number", "none", ("The answer is 14",), 0),
    (
        "code_output",
        "the final output will be [1, 2] and more words follow here",
        ("[1, 2]",),
        1,
    ),
    ("code_output", "The printed value is 12.0", ("12",), 1),
    ("code_output", "12 is what will be printed", ("12",), 1),
    ("code_output", "12 is what one of the many other values would be", ("12",), 0),
    ("true_or_false", "That is True, not false", ("True",), 1),
    ("true_or_false", "perhaps", ("True",), 0),
]


@pytest.mark.parametrize(("name", "answer", "wanted", "score"), CASES)
def test_by_hand(name: str, answer: str, wanted: tuple[str, ...], score: float) -> None:
    assert METRICS[name](answer, wanted) == pytest.approx(score)


@pytest.mark.parametrize("name", sorted(LASTING))
def test_what_is_said_after_a_lasting_answer_changes_nothing(name: str) -> None:
    right = [
        (answer, wanted) for case, answer, wanted, score in CASES if case == name and score == 1
    ]
    assert right
    for answer, wanted in right:
        for more in (" no", "s", "7", "the", " an", "\n", ".", " It is not that."):
            assert METRICS[name](answer + more, wanted) == 1


def test_every_metric_has_cases_that_differ() -> None:
    for name in METRICS:
        assert len({score for case, _, _, score in CASES if case == name}) > 1, name


def test_normalize() -> None:
    assert normalize("The  Cat's, an apple; a\ttheme.") == "cats apple theme"


def test_every_metric_is_asked_for(haystack: list[str]) -> None:
    """By a task or by a benchmark's prompt."""
    used = {*leval.METRICS.values(), *leval.OVERLAP.values(), longbench2.PROMPT.metric}
    for benchmark in ("longbench", "infinitebench", "helmet"):
        used |= {prompt.metric for prompt in read_prompts(benchmark).values()}
    for task in TASKS.values():
        used.add(task.make(lambda text: len(text.split()), 3000, 50, 1, haystack).metric)
    assert set(METRICS) == used
