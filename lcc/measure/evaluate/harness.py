r"""An artifact as a model of EleutherAI's lm-evaluation-harness: its tasks, on what was compiled.

    python -m lcc.measure.evaluate.harness run --model lcc --model_args artifact=m.lcc \
        --tasks hellaswag

is `lm_eval` with the model `lcc` known: the harness finds models by import only. In Python, import
this module and name `lcc` in `lm_eval.simple_evaluate`, or hand it an `ArtifactLM`.

Texts are read as by any session: one at a time, at any length, in the artifact's memory, evicting
as they go; nothing is truncated, so a score is that of what the policy kept.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

import lcc.runtime
from lcc.env import needs_extra
from lcc.errors import CacheError, LccError
from lcc.runtime.text.writing import GREEDY

with needs_extra("harness"):
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import normalize_gen_kwargs
    from tqdm import tqdm

MAX_NEW_TOKENS = 256  # where a task says nothing
DRAWN = ("temperature", "top_k", "top_p", "min_p")
SAMPLING = (*DRAWN, "repetition_penalty", "seed")

Scored = tuple[Any, list[int], list[int]]  # texts, ids of the context, ids of the continuation


@register_model("lcc")
class ArtifactLM(TemplateLM):
    """A session that answers the harness.

    Args:
        artifact: folder of a compiled model.
        batch_size: one text at a time is read; nothing but 1 is taken.
        max_batch_size: likewise.
        device: cpu, or what the harness says by default, which is meant for PyTorch and means
            nothing here: where an artifact runs was decided when it was compiled.
        options: of `lcc.runtime.open`: budget, capacity, threads, target.
    """

    def __init__(
        self,
        artifact: str,
        *,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        for name, size in {"batch_size": batch_size, "max_batch_size": max_batch_size}.items():
            if str(size) != "1" and (name, size) != ("max_batch_size", None):
                raise LccError(f"{name} is {size}, wanted 1: a session reads one text")
        self.artifact = artifact
        where: Literal["cpu"] | None = "cpu" if device == "cpu" else None
        self.session = lcc.runtime.open(artifact, device=where, **options)
        self._context: list[int] = []  # what the session holds, up to where something was asked

    @property
    def tokenizer_name(self) -> str:
        """Names the chat template in the harness' cache."""
        return self.artifact

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return min(self.session.manifest.text.ends, default=0)

    @property
    def prefix_token_id(self) -> int:
        """What a text without context is predicted from: the token that begins one, if any."""
        return (self.session.manifest.text.prefix or [self.eot_token_id])[-1]

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Ids without the tokens that begin a text, which `_read` puts there."""
        return self.session.encode(string)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation in the model's own template; a last message that goes on has no end."""
        template = self.session.model.template()
        if add_generation_prompt:
            return template.render(chat_history)
        *before, last = chat_history
        words = last["content"].rstrip()
        text = template.render([*before, last], generation_prompt=False)
        return text[: text.rindex(words) + len(words)]

    def _loglikelihood_tokens(
        self, requests: list[Scored], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether greedy decoding would write it."""
        results = []
        for texts, context, continuation in tqdm(requests, disable=disable_tqdm):
            self._read(context)
            total, greedy = 0.0, True
            for place, token in enumerate(continuation):
                if place:
                    self.session.feed(continuation[place - 1 : place], prefix=False)
                logits = self.session.next_logits().astype(np.float64)
                total += logits[token] - np.logaddexp.reduce(logits)
                greedy = greedy and int(logits.argmax()) == token
            results.append((float(total), greedy))
            self.cache_hook.add_partial("loglikelihood", texts, results[-1])
        return results

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of whole texts, each token given what the cache held: no windows."""
        results = []
        for (text,) in tqdm([each.args for each in requests], disable=disable_tqdm):
            self._read([self.prefix_token_id])
            nll = self.session.nll(self.tok_encode(text))
            results.append(-float(nll.sum(dtype=np.float64)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), results[-1])
        return results

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers up to a stop string or the model's end."""
        results = []
        for context, asked in tqdm([each.args for each in requests], disable=disable_tqdm):
            options = dict(normalize_gen_kwargs(asked, MAX_NEW_TOKENS))
            stop, limit = options.pop("until"), options.pop("max_gen_toks")
            draws = options.pop("do_sample")
            if unknown := options.keys() - set(SAMPLING):
                raise LccError(
                    f"generation options: {', '.join(sorted(unknown))}; wanted until, do_sample, "
                    f"max_gen_toks, {', '.join(SAMPLING)}"
                )
            if not draws:  # whatever the model's generation_config.json says
                options = dict(GREEDY) | {k: v for k, v in options.items() if k not in DRAWN}
            self._read(self.tok_encode(context) or [self.prefix_token_id])
            stops = [each for each in stop if each]
            pieces = self.session.generate(stop=stops, max_new_tokens=limit, **options)
            results.append("".join(pieces))
            self.cache_hook.add_partial("generate_until", (context, asked), results[-1])
        return results

    def _read(self, ids: list[int]) -> None:
        """Make the session hold these ids and nothing else.

        Questions with several answers have one context: where no cycle has run since it was read,
        it is not read again.
        """
        session, prefix = self.session, [*self.session.manifest.text.prefix]
        if prefix and ids[: len(prefix)] != prefix and ids != [self.prefix_token_id]:
            ids = [*prefix, *ids]
        if ids == self._context and session.manifest.policy.name != "h2o":  # which keeps a trace
            try:
                session.rewind(session.tokens - len(ids))
            except CacheError:
                pass
            else:
                return
        session.reset()
        self._context = []
        session.feed(ids, prefix=False, last=True)
        self._context = ids


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
