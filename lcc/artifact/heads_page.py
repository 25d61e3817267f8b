"""What a file of retaining heads, and an artifact that has some, say of them."""

from typing import Literal

import msgspec

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]
Teacher = Literal["answer", "repeat"]
VERSION: Literal[1] = 1


class HeadsPage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a heads file says of itself.

    architecture    of the model, e.g. "llama"
    model           fingerprint of the model's weights: heads read one model's states only
    weights         digest of the heads' own weights, as they are stored
    width           hidden numbers of a head
    activation      between its two layers
    teacher         what a score is: "repeat", the logarithm of an attention; "answer", a logit.
                    Files of before this field were all taught by repeating
    trained_on      what it learned from, in words: data, teacher, tokens
    """

    version: Literal[1] = VERSION
    architecture: str
    model: str
    weights: str = ""
    width: int
    activation: Activation
    teacher: Teacher = "repeat"
    trained_on: str
