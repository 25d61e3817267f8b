"""What a tensor is: the roles of programs' inputs and outputs, and of a session's buffers."""

from enum import StrEnum


class Role(StrEnum):
    """The meaning of a tensor; nothing is inferred from a name.

    tokens          token ids
    positions       of the tokens of a step, as the model's rotation takes them
    counter         one integer: how full something is, how many tokens were read, which layer
    rows            which rows of a step hand out their queries
    slots           the new slots of the entries that a cycle keeps: its length is the budget
    hidden          states after the final norm
    logits          scores of the vocabulary
    key, value      of the cache, or of new entries
    queries         rotated queries
    token_position  place in the text of the token in each slot
    entry_score     a number kept with each entry
    state           what a recurrent layer carries from token to token
    kept            slots that stay, or that leave
    archived        rows of the archive, as a program writes or reads them
    """

    TOKENS = "tokens"
    POSITIONS = "positions"
    COUNTER = "counter"
    ROWS = "rows"
    SLOTS = "slots"
    HIDDEN = "hidden"
    LOGITS = "logits"
    KEY = "key"
    VALUE = "value"
    QUERIES = "queries"
    TOKEN_POSITION = "token_position"
    ENTRY_SCORE = "entry_score"
    STATE = "state"
    KEPT = "kept"
    ARCHIVED = "archived"
