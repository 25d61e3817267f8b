"""What a training says of itself: log.jsonl, TensorBoard's events, and at the end a picture."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from lcc.env import needs_extra


@dataclass(frozen=True)
class Step:
    """One line of the log.

    done            share of the whole training
    loss            nats a learned token, before the step
    norm            of the gradient, before it was clipped
    held_out        nats a token of texts that are not learned, where that was measured
    """

    stage: str
    step: int
    done: float
    loss: float
    norm: float
    learning_rate: float
    tokens: int
    seconds: float
    held_out: float | None = None


class Log:
    """The files in a folder, for people and for programs."""

    def __init__(self, folder: Path, lines: int) -> None:
        """Go on behind so many lines: what comes after them is done again."""
        with needs_extra("train"):
            from torch.utils.tensorboard import SummaryWriter
        self.path, self.folder, self.lines = folder / "log.jsonl", folder, lines
        old = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if lines else []
        self.path.write_text("".join(old[:lines]), encoding="utf-8")
        self.events = SummaryWriter(str(folder / "tensorboard"), purge_step=lines + 1)

    def add(self, step: Step) -> None:
        """One more line."""
        self.lines += 1
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(step)) + "\n")
        for name in ("loss", "norm", "learning_rate", "held_out"):
            if (value := getattr(step, name)) is not None:
                self.events.add_scalar(name, value, self.lines)
        self.events.add_scalar(
            "tokens_per_second", step.tokens / max(step.seconds, 1e-3), self.lines
        )

    def finish(self, measured: dict[str, float]) -> None:
        """Draw the loss over the tokens read; `measured`: held-out losses to compare with."""
        from matplotlib.figure import Figure

        self.events.close()
        pages = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        read, total = [], 0
        for page in pages:
            total += page["tokens"]
            read.append(total)
        figure = Figure(figsize=(8, 4.5))
        axes = figure.subplots()
        axes.plot(read, [page["loss"] for page in pages], color="lightsteelblue", label="learned")
        points = [(x, page["held_out"]) for x, page in zip(read, pages, strict=True)]
        points = [(0, measured.get("before")), *points]
        points = [(x, y) for x, y in points if y is not None]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", color="tab:blue", label="held out")
        if "dense" in measured:
            label = "held out, every layer full, untrained"
            axes.axhline(measured["dense"], color="tab:gray", linestyle="--", label=label)
        axes.set(xlabel="tokens read", ylabel="loss, nats a token")
        axes.legend()
        figure.tight_layout()
        figure.savefig(self.folder / "loss.png", dpi=110)
