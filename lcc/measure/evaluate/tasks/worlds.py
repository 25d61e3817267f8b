"""Small worlds after bAbI (arXiv 1502.05698): facts in order, a question, the one-word answer.

Simulated here; the sentences and the kinds of question are those of its tasks 1 to 5. A question
has exactly one answer by construction: a world that leaves a doubt is drawn again.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
THINGS = ("apple", "football", "milk")
PEOPLE = ("Daniel", "John", "Mary", "Sandra")
GIVERS = ("Bill", "Fred", "Jeff", "Mary")
LABELS = {  # of which one is the answer
    **dict.fromkeys(("qa1", "qa2", "qa3", "qa4"), PLACES),
    "qa5": (*GIVERS, *THINGS),
}
MOVE = ("moved to", "went to", "journeyed to", "travelled to", "went back to")
TAKE = ("got", "took", "grabbed", "picked up")
DROP = ("dropped", "left", "discarded", "put down")
GIVE = ("gave", "handed", "passed")
OPPOSITE = {"north": "south", "south": "north", "east": "west", "west": "east"}


@dataclass(frozen=True)
class Story:
    """Facts in order, and what is asked about them."""

    facts: list[str]
    question: str
    answer: str


@dataclass
class World:
    """Who is where, who has what, and where each thing has been, in order."""

    draw: random.Random
    people: tuple[str, ...] = PEOPLE
    facts: list[str] = field(default_factory=list)
    place: dict[str, str] = field(default_factory=dict)  # of people
    holder: dict[str, str] = field(default_factory=dict)  # of things that are carried
    been: dict[str, list[str]] = field(default_factory=dict)  # places of things, once they moved

    def move(self) -> None:
        """Somebody goes to another place, with what they carry."""
        person = self.draw.choice(self.people)
        place = self.draw.choice([p for p in PLACES if p != self.place.get(person)])
        self.facts.append(f"{person} {self.draw.choice(MOVE)} the {place}.")
        self.place[person] = place
        for thing, holder in self.holder.items():
            if holder == person:
                self.been[thing].append(place)

    def take(self) -> None:
        """Somebody whose place is known takes a thing that nobody has and that is not elsewhere."""
        person = self.draw.choice(self.people)
        free = [thing for thing in THINGS if thing not in self.holder]
        here = [t for t in free if self.been.get(t, [None])[-1] in (None, self.place.get(person))]
        if person in self.place and here:
            thing = self.draw.choice(here)
            self.facts.append(f"{person} {self.draw.choice(TAKE)} the {thing} there.")
            self.holder[thing] = person
            self.been.setdefault(thing, [self.place[person]])

    def drop(self) -> None:
        """Somebody puts down what they have."""
        if self.holder:
            thing = self.draw.choice(sorted(self.holder))
            self.facts.append(f"{self.holder.pop(thing)} {self.draw.choice(DROP)} the {thing}.")


def where_is_somebody(draw: random.Random) -> Story:
    """Task 1: one fact answers."""
    world = World(draw)
    for _ in range(2 * draw.randint(1, 5)):
        world.move()
    person = draw.choice(sorted(world.place))
    return Story(world.facts, f"Where is {person}?", world.place[person])


def where_is_something(draw: random.Random) -> Story:
    """Task 2: who has it or had it, and where they are or were."""
    while True:
        world = _busy(draw, steps=12)
        if world.been:
            thing = draw.choice(sorted(world.been))
            return Story(world.facts, f"Where is the {thing}?", world.been[thing][-1])


def where_was_something(draw: random.Random) -> Story:
    """Task 3: also where it was before it came to a place; asked of a place it came to once."""
    while True:
        world = _busy(draw, steps=24)
        asked = [
            (thing, before, place)
            for thing, been in sorted(world.been.items())
            for before, place in itertools.pairwise(been)
            if been.count(place) == 1
        ]
        if asked:
            thing, before, place = draw.choice(asked)
            return Story(world.facts, f"Where was the {thing} before the {place}?", before)


def which_way(draw: random.Random) -> Story:
    """Task 4: two places on two sides of a third one."""
    first, middle, last = draw.sample(PLACES, 3)
    way, other = draw.sample(sorted(OPPOSITE), 2)
    facts = [
        f"The {first} is {way} of the {middle}."
        if draw.random() < 0.5
        else f"The {middle} is {OPPOSITE[way]} of the {first}.",
        f"The {last} is {other} of the {middle}.",
    ]
    draw.shuffle(facts)
    if draw.random() < 0.5:
        return Story(facts, f"What is {way} of the {middle}?", first)
    return Story(facts, f"What is the {middle} {OPPOSITE[way]} of?", first)


def who_gave_what(draw: random.Random) -> Story:
    """Task 5: who gave what to whom; asked of a gift that is the only one of its kind."""
    while True:
        world, gifts = World(draw, GIVERS), list[tuple[str, str, str]]()
        for _ in range(16):
            if world.holder and draw.random() < 0.4:
                thing = draw.choice(sorted(world.holder))
                giver = world.holder[thing]
                taker = draw.choice([each for each in GIVERS if each != giver])
                verb = draw.choice(GIVE)
                world.facts.append(f"{giver} {verb} the {thing} to {taker}.")
                world.holder[thing] = taker
                gifts.append((giver, thing, taker))
            else:
                draw.choice((world.move, world.take))()
        asked = [
            *((f"Who gave the {thing} to {taker}?", giver) for giver, thing, taker in gifts),
            *((f"Who did {giver} give the {thing} to?", taker) for giver, thing, taker in gifts),
            *((f"What did {giver} give to {taker}?", thing) for giver, thing, taker in gifts),
        ]
        questions = [question for question, _ in asked]
        clear = [each for each in asked if questions.count(each[0]) == 1]
        if clear:
            question, answer = draw.choice(clear)
            return Story(world.facts, question, answer)


def _busy(draw: random.Random, steps: int) -> World:
    world = World(draw)
    for _ in range(steps):
        draw.choice((world.move, world.move, world.take, world.drop))()
    return world


STORIES: dict[str, Callable[[random.Random], Story]] = {
    "qa1": where_is_somebody,
    "qa2": where_is_something,
    "qa3": where_was_something,
    "qa4": which_way,
    "qa5": who_gave_what,
}
