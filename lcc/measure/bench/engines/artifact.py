"""An artifact of lcc, in its own runtime: this process loads no torch."""

from typing import Any

from lcc.measure.bench.measure import OnToken, Request


class Artifact:
    """A session that begins anew with every prompt."""

    def __init__(self, request: Request) -> None:
        """Load it; the request's options are those of `lcc.runtime.open`."""
        import lcc.runtime
        from lcc.runtime.text.writing import GREEDY

        self._greedy = GREEDY
        self.session = lcc.runtime.open(
            request.source, threads=request.threads, verify="size", **request.options
        )

    def generate(self, ids: list[int], count: int, on_token: OnToken) -> None:
        """Read and write."""
        self.session.reset()
        self.session.feed(ids)
        for token in self.session.generate_ids(max_new_tokens=count, eos=[], **self._greedy):
            on_token(token)

    def facts(self) -> dict[str, Any]:
        """Of the session."""
        stats = self.session.stats()
        return {"kv_bytes": stats.cache_bytes, "cycles": stats.cycles}


load = Artifact
