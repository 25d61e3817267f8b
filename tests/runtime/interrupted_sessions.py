"""Twenty sessions of one model at once, each interrupted a hundred times; prints what came of it.

python interrupted_sessions.py MODEL.lcc [THREADS] [INTERRUPTS]

The session of the main thread is interrupted by SIGINT, those of the others by what an app has for
it: `stop` while they read, and a loop that is left while they write. Each goes on where it was
stopped, and must give the answer and the logits of a session that nobody has disturbed.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import lcc.runtime

TEXT = "The cat sat on the mat. Where was it? Nobody knew; the key is 4711. " * 12
ANSWER = 60
HOW: dict[str, Any] = {"temperature": 0.0, "eos": []}


class Reader:
    """Reads and answers again and again, until it was interrupted often enough."""

    def __init__(self, model: lcc.runtime.Model, interrupts: int) -> None:
        self.session, self.wanted = model.session(), interrupts
        self.seen, self.outcomes, self.error = 0, list[bytes](), ""
        self.flag, self.busy = threading.Event(), False  # whether SIGINT may come

    def run(self) -> None:
        """One text after the other."""
        try:
            while self.seen < self.wanted:
                self.outcomes.append(self.read())
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def read(self) -> bytes:
        """A text and an answer to it, however often it is interrupted; what it came to."""
        self.session.reset()
        ids = self.session.encode(TEXT)
        while (read := self.session.tokens) < len(ids) + ANSWER:
            try:
                self.busy = True
                if read < len(ids):
                    self.session.feed(ids[read:], stop=self.flag.is_set)
                elif read < len(ids) + ANSWER:
                    self.write(len(ids) + ANSWER - read)
                self.busy = False
            except KeyboardInterrupt:
                self.busy = False
                self.seen += 1
            if self.flag.is_set():
                self.flag.clear()
                self.seen += 1
        return self.session.next_logits().tobytes()

    def write(self, count: int) -> None:
        """So many ids, or fewer."""
        for _ in self.session.generate_ids(max_new_tokens=count, **HOW):
            if self.flag.is_set():
                break


def disturb(main: Reader, readers: list[Reader], done: threading.Event) -> None:
    """Interrupt one after the other, at any moment."""
    chance = random.Random(0)
    while not done.is_set():
        target = chance.choice([main, *readers])
        if target is not main:
            target.flag.set()
        elif main.busy and main.seen < main.wanted:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(chance.uniform(0, 0.003))


def main() -> None:
    """Start them, interrupt them, compare."""
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    interrupts = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    model = lcc.runtime.load(Path(sys.argv[1]), threads=1)
    wanted = Reader(model, 0).read()
    first, *others = (Reader(model, interrupts) for _ in range(count))
    threads, done = [threading.Thread(target=each.run) for each in others], threading.Event()
    shooter = threading.Thread(target=disturb, args=(first, others, done))
    for thread in [*threads, shooter]:
        thread.start()
    for step in (first.run, *(thread.join for thread in threads), done.set, shooter.join):
        while True:
            try:
                step()
                break
            except KeyboardInterrupt:  # sent while `run` was ending
                continue
    readers = [first, *others]
    outcomes = [outcome for each in readers for outcome in each.outcomes]
    page = {
        "sessions": count,
        "interrupts": sum(each.seen for each in readers),
        "least": min(each.seen for each in readers),
        "texts": len(outcomes),
        "wrong": sum(outcome != wanted for outcome in outcomes),
        "errors": [each.error for each in readers if each.error],
    }
    print(json.dumps(page))


if __name__ == "__main__":
    main()
