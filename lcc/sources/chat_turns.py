"""A chat template as pieces of text, where it is regular: found by rendering, proved by rendering.

Conversations whose contents are known words are rendered, and what stands around those words is
cut out. Then other conversations are composed from the pieces and compared with what the template
makes of them. A template that treats any of them in another way (it drops earlier reasoning, merges
the system message into the first turn, tells the date) is not regular.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from lcc.artifact.schedule import Turns
from lcc.errors import ConfigError

Message = dict[str, str]
Render = Callable[[list[Message], bool, float], str]

TIMES = (1_000_000_000.0, 2_000_000_000.0)  # seconds since 1970: no part of the dates is the same
ROLES = {"s": "system", "u": "user", "a": "assistant"}
SHAPES = ("u", "uau", "uauau", "ua", "uu", "uaau", "au", "s", "su", "sua", "suau", "suauau", "suu")
CONTENTS = (
    "plain",
    "two\nlines\n\nand more",
    "  spaces around \n",
    "\ttab\r\n",
    "{{ braces }} {% if %} {# x #} {0}",
    "émigré 東京 🙂\u00a0",
    "",
    " ",
    "<think>why\n</think>\n\nbecause",
    "'quotes' \"doubled\" & <tags> [TAGS] \\n",
)


def compose(turns: Turns, messages: Sequence[Mapping[str, str]], prompt: bool = True) -> str:
    """The text of a conversation.

    Args:
        turns: pieces of the template.
        messages: `role` and `content` of each.
        prompt: whether to ask for an answer.

    Raises:
        ConfigError: a role that the template refuses, or a system message that is not the first.
    """
    text = [turns.begin]
    if turns.system and turns.default_system is not None and messages[0]["role"] != "system":
        text += [turns.system[0], turns.default_system, turns.system[1]]
    for i, message in enumerate(messages):
        role, content = message["role"], message["content"]
        pieces = getattr(turns, role) if role in ROLES.values() else None
        if pieces is None:
            known = [name for name in ROLES.values() if getattr(turns, name)]
            raise ConfigError(f"messages[{i}]: role is {role}, wanted one of {', '.join(known)}")
        if role == "system" and i:
            raise ConfigError(f"messages[{i}]: role is system; put the system message first")
        text += [pieces[0], content.strip() if turns.strip else content, pieces[1]]
    return "".join([*text, turns.prompt if prompt else ""])


def chat_turns(render: Render, words: Sequence[str] = ()) -> Turns | None:
    """The pieces of a chat template; None = it is not regular.

    Conversations that the template refuses are not compared, but for a role that it refuses.

    Args:
        render: messages, whether to ask for an answer, the time in seconds since 1970 -> their
            text; it raises where the template refuses the messages.
        words: what the template may look for in a content, see `template_words`.
    """
    turns = _cut(render)
    if turns is None:
        return None
    for strip in (False, True):
        turns = msgspec.structs.replace(turns, strip=strip)
        if all(_agree(turns, render, messages) for messages in _conversations(words)):
            return turns
    return None


def template_words(source: str) -> list[str]:
    """Strings in the code of a template: those that it may look for in a content are among them."""
    import jinja2

    tokens = jinja2.Environment().lexer.tokenize(source)
    return sorted({str(token.value) for token in tokens if token.type == "string"} - {""})


def _cut(render: Render) -> Turns | None:
    """Turns that fit the shortest conversations, if any do; `strip` is not known yet."""
    asked, answered = _pieces(render, "u"), _pieces(render, "uau")
    if asked is None or answered is None:
        return None
    # What may follow a content: the prompt, the next message, or nothing.
    after_user = _common([answered[1], *_ends(render, "u")])
    after_assistant = _common([answered[2], *_ends(render, "ua")])
    user = answered[2].removeprefix(after_assistant), after_user
    begin, system, default = _system(render, asked[0].removesuffix(user[0]), user[0])
    return Turns(
        begin=begin,
        system=system,
        user=user,
        assistant=(answered[1].removeprefix(after_user), after_assistant),
        prompt=asked[1].removeprefix(after_user),
        default_system=default,
    )


def _system(
    render: Render, head: str, before_user: str
) -> tuple[str, tuple[str, str] | None, str | None]:
    """What begins a conversation, the pieces of the system message, and the default one.

    head            what comes before a conversation without a system message
    before_user     what comes before the content of a user
    """
    pieces = _pieces(render, "su")
    if pieces is None:
        return head, None, None
    before, after = pieces[0], pieces[1].removesuffix(before_user)
    if before.startswith(head):
        return head, (before.removeprefix(head), after), None
    return "", (before, after), head.removeprefix(before).removesuffix(after)


def _ends(render: Render, shape: str) -> list[str]:
    """What follows the last content of a conversation, with a prompt and without."""
    found = [_pieces(render, shape, prompt) for prompt in (True, False)]
    return [pieces[-1] for pieces in found if pieces is not None]


def _pieces(render: Render, shape: str, prompt: bool = True) -> list[str] | None:
    """What stands before, between and after the contents; None = the template refuses them.

    None, too, where one of the contents is not there.

    shape   roles of the messages, by their first letters
    """
    contents = [f"qx{i}zq" for i in range(len(shape))]
    rest = _rendered(render, _messages(shape, contents), prompt, TIMES[0])
    if rest is None:
        return None
    pieces = []
    for content in contents:
        before, found, rest = rest.partition(content)
        if not found:
            return None
        pieces.append(before)
    return [*pieces, rest]


def _common(pieces: list[str]) -> str:
    """The longest beginning that all have in common and that cuts no <tag> or [TAG] in two."""
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*pieces, strict=False))
    shared = "".join(letters[0] for letters in same)
    return shared if shared in pieces else re.sub(r"[<\[][^<>\[\]]*$", "", shared)


def _messages(shape: str, contents: Sequence[str]) -> list[Message]:
    return [
        {"role": ROLES[letter], "content": content}
        for letter, content in zip(shape, contents, strict=True)
    ]


def _conversations(words: Sequence[str]) -> Iterator[list[Message]]:
    """What the pieces are tried on: every content in every place, every word in every role."""
    size = len(CONTENTS)
    for shape in SHAPES:
        for first in range(size):
            contents = [CONTENTS[(first + 3 * i) % size] for i in range(len(shape))]
            yield _messages(shape, contents)
    for word in words:
        for content in (word, f"{word} then", f"so {word}", f"a {word} b"):
            for shape in ("uau", "suau"):
                for role in sorted(set(shape)):
                    yield _messages(
                        shape, [content if letter == role else "plain" for letter in shape]
                    )


def _agree(turns: Turns, render: Render, messages: list[Message]) -> bool:
    """Whether the pieces give what the template gives, at any time, or the template refuses."""
    told = {_rendered(render, messages, True, when) for when in TIMES}
    if told == {None}:
        return True
    try:
        return told == {compose(turns, messages)}
    except ConfigError:  # a role that the shortest conversation was refused for
        return False


def _rendered(render: Render, messages: list[Message], prompt: bool, when: float) -> str | None:
    """The template's own text; None = it refuses the messages."""
    try:
        return render([dict(message) for message in messages], prompt, when)
    except Exception:  # the code of a template can raise anything
        return None
