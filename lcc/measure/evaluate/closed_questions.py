"""Scores that read a letter, a number or a word out of an answer: InfiniteBench's and L-Eval's.

What the published scorers do, cases of doubt included, so that results compare. But where they
look at the beginning of an answer, white space there is dropped: theirs came from tokenizers that
drop it, while those of byte-level BPE have answers begin with a space.
"""

import re

# InfiniteBench


def words(answer: str) -> list[str]:
    """Words between spaces and InfiniteBench's punctuation."""
    return re.sub(r"[\n:\"'.,?!{}]", " ", answer).split()


def first_integer(answer: str, wanted: str) -> float:
    """Of its pass keys: the first digits are the wanted ones."""
    found = re.search(r"[0-9]+", answer)
    return float(found is not None and found[0] == wanted)


def last_integer(answer: str, wanted: str) -> float:
    """Of its code runs: the last word is the wanted number."""
    said = re.sub(r"[\n.`'\":]", " ", answer).split()
    try:
        return float(int(said[-1]) == int(wanted))
    except (IndexError, ValueError):
        return 0.0


def first_number(answer: str, wanted: str) -> float:
    """Of its Math.Find: the first number is the wanted one."""
    found = re.search(r"\d+\.\d+|\d+", answer)
    return float(found is not None and float(found[0]) == float(wanted))


def prefix_of_list(answer: str, wanted: tuple[str, ...]) -> float:
    """Of its Math.Calc: the share of a list of integers that is right before the first error."""
    said, right = re.findall(r"[0-9]+", answer), 0
    while right < min(len(said), len(wanted)) and int(said[right]) == int(wanted[right]):
        right += 1
    return right / len(wanted)


def choice_or_text(answer: str, wanted: tuple[str, ...]) -> float:
    """Of its multiple choice: a letter at the beginning, after "answer is", or the first alone.

    `wanted` is the letter, and the text of the option where that counts, too.
    """
    answer = answer.lstrip()
    if answer[:1] in tuple("ABCD"):
        return float(answer[0] in wanted)
    said = re.sub(r"[\n\"'.,?!{} ]+", " ", answer)
    for prefix in ("answer is:", "answer:", "answer is", "option is"):
        _, found, after = said.partition(prefix)
        if found:
            return float(after[1:].startswith(wanted))
    letters = [word for word in said.split() if word in "ABCD"]
    return float(letters[:1] == [wanted[0]])


def faulty_function(answer: str, wanted: tuple[str, ...]) -> float:
    """Of its Code.Debug: the letter at the beginning, or it or the function's name after "is:"."""
    letter, answer = wanted[0], answer.strip()
    if answer[:2] in (f"{letter}.", f"{letter}:"):
        return 1.0
    said = re.sub(r"[\n`'\"\-*]|[Oo]ption", " ", answer)
    said = re.sub(" +", " ", said)
    for prefix in ("answer is:", "is:", "answer:"):
        _, found, after = said.partition(prefix)
        if found:
            return float(after[1:].startswith(wanted))
    return 0.0


# L-Eval


def one_letter(answer: str, wanted: str) -> float:
    """Of its questions with one right option: the first capital A to D; A where there is none.

    An empty answer counts a quarter, as one of some right letters and no wrong one.
    """
    answer = answer.strip()
    if not answer:
        return 0.25
    said = answer if answer in "ABCD" else (re.findall("[A-D]", answer) or ["A"])[0]
    return float(said == re.sub("[^A-D]", "", wanted.split()[0]))


def letters(answer: str, wanted: str) -> float:
    """Of its coursera: the set of letters; a quarter for some right ones, or none, and no wrong."""
    answer = answer.strip()
    first = re.match("[A-D]*", answer)[0]  # type: ignore[index]  # matches nothing at least
    said, right = set(first), set(re.sub("[^A-D]", "", wanted.split()[0]))
    if len(first) < 2:
        rest = answer[len(first) :].split("Question")[0]
        said |= set(re.findall(r"([A-D])(?=[\s.)])", rest))
        if answer and not said:
            said = {"A"}
    return 1.0 if said == right else 0.25 if said <= right else 0.0


def contained(answer: str, wanted: str) -> float:
    """Of its other closed questions: equal numbers, or the first line of length contains it."""
    try:
        return float(float(answer) == float(wanted))
    except ValueError:
        line = next((each for each in answer.split("\n") if len(each) > 1), answer)
        return float(wanted.lower().replace(" ", "") in line.lower().replace(" ", ""))


def final_number(answer: str, wanted: str) -> float:
    """Of its gsm100: digits after "The answer is", else the last word with digits, are equal."""

    def digits(text: str) -> str:
        found = re.search(r"The answer is (\S+)", text)
        said = [w for w in text.split("\n\n")[0].split(" ") if any(map(str.isdigit, w))]
        return re.sub(r"\D", "", (found[1] if found else said[-1] if said else "").split(".")[0])

    return contained(digits(answer), digits(wanted))


def code_output(answer: str, wanted: str) -> float:
    """Of its codeU: the last words, or those after "the final output", contain the wanted ones."""

    def plain(text: str) -> str:
        text = re.sub(r"[,'\\]", "", re.sub(r"\s+", " ", text)).replace(".0", "")
        return text.replace("] [", "][").replace("[ [", "[[").replace("] ]", "]]")

    said = plain(answer)
    for phrase in (
        "will be",
        "of the code",
        "is",
        "would be",
        "the value of",
        "the result of",
        "printed",
    ):
        said = said.replace(phrase, "")
    _before, found, after = said.rpartition("the final output")
    size = len(wanted.split()) + 3
    kept = re.split(r"\s+", after)[:size] if found else re.split(r"\s+", said)[-size:]
    return contained(" ".join(kept), plain(wanted))


def true_or_false(answer: str, wanted: str) -> float:
    """Of its sci_fi: the first word that holds "true" or "false"."""
    found = re.search("true|false", answer.lower())
    return float(found is not None and found[0] == wanted.lower())
