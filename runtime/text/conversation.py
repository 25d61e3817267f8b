"""What a session has read of a conversation, and what of it is new when it is rendered again."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Conversation:
    """What a session holds of the conversation it is in.

    size, digest    characters and sha256 of the text before the prompt, as it was read
    prompt          what was put after the text to ask for the answer
    turn            tokens in the session before the prompt; None = not known
    answer          what was generated then
    eos             text of the token that ended the answer and is in the session too; None = the
                    answer was cut short
    end             tokens in the session behind the answer
    begun           when it was first rendered: a date in it stays the same from turn to turn
    """

    size: int
    digest: str
    prompt: str = ""
    turn: int | None = None
    answer: str = ""
    eos: str | None = None
    end: int | None = None
    begun: float = 0.0

    @classmethod
    def of(cls, told: str, prompt: str, turn: int | None, *, begun: float = 0.0) -> "Conversation":
        """The conversation after `prompt` has asked for an answer to `told`."""
        return cls(len(told), _digest(told), prompt, turn, begun=begun)

    def said(self, answer: str, eos: str | None, end: int) -> "Conversation":
        """The conversation after this answer."""
        return replace(self, answer=answer, eos=eos, end=end)

    def before_turn(self) -> "Conversation":
        """The conversation before the answer was asked for."""
        return replace(self, prompt="", answer="", eos=None, end=self.turn)

    def is_in(self, rendered: str) -> bool:
        """Whether this is the conversation, further on or not, and no other one."""
        return self._rest(rendered) is not None

    def is_retold(self, rendered: str) -> bool:
        """Whether it goes on from here, but the last answer does not stand there as it was read."""
        rest = self._rest(rendered)
        if rest is None:
            return False
        turn = rest.removeprefix(self.prompt)
        told = rest.startswith(self.prompt) and self._behind(turn, self.answer.strip()) is not None
        return not told or not turn

    def unread(self, rendered: str) -> str | None:
        """The part of a rendered conversation that is new; None if it is not this conversation.

        Templates may strip an answer or not, so spaces around it do not count. They may leave out
        what comes before </think>, and a thought that they begin in the prompt. Where the answer is
        not there at all, another one is wanted: then the prompt is what is new.
        """
        rest = self._rest(rendered)
        if rest is None or (rest == self.prompt and rest):
            return rest
        answers = (self.answer.strip(), self.answer.rpartition("</think>")[2].strip())
        for turn in self._turns(rest):
            for said in answers:
                if (new := self._behind(turn, said)) is not None:
                    return new
        return None

    def _turns(self, rest: str) -> Iterator[str]:
        """What may be the answer and all behind it: a prompt's thought may be there or not."""
        if rest.startswith(self.prompt):
            yield rest.removeprefix(self.prompt)
            return
        same = next(i for i, letter in enumerate(self.prompt) if rest[i : i + 1] != letter)
        thought = self.prompt.find("<think>")
        if thought >= 0:  # the answer may begin with the same letters
            yield from (rest[place:] for place in range(same, thought - 1, -1))

    def _behind(self, turn: str, said: str) -> str | None:
        """What follows an answer at the beginning of `turn`; None = it is not there."""
        if not said and not self.eos:
            return turn
        turn = turn.lstrip()
        if not turn.startswith(said):
            return None
        rest = turn.removeprefix(said)
        if not self.eos:
            return rest
        if rest.lstrip().startswith(self.eos):
            return rest.lstrip().removeprefix(self.eos)
        # A template may end answers in a way of its own; else this one is longer.
        return None if self.eos in rest or not said else rest

    def _rest(self, rendered: str) -> str | None:
        """What is told behind the text before the prompt; None = another conversation."""
        if _digest(rendered[: self.size]) != self.digest:
            return None
        return rendered[self.size :]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
