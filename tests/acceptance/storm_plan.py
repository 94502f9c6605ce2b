"""What a storm does and when: drawn from its seed alone, before it begins."""

import random
from dataclasses import dataclass
from signal import SIGKILL, SIGTERM, Signals

EVERYTHING, SUPERVISOR = "everything", "supervisor"
KILLS: list[tuple[str, Signals]] = [
    ("run", SIGKILL),
    ("run", SIGTERM),
    ("worker", SIGKILL),
    ("worker", SIGTERM),
    ("fork server", SIGKILL),
    ("sandbox", SIGKILL),
    ("API", SIGKILL),
    ("API", SIGTERM),
    ("Prefect server", SIGKILL),
    ("Prefect server", SIGTERM),
    ("PostgreSQL backend", SIGKILL),
    ("PostgreSQL backend", SIGTERM),
    ("postmaster", SIGKILL),
    ("postmaster", SIGTERM),
    (SUPERVISOR, SIGKILL),
    (EVERYTHING, SIGKILL),
]
"""Each comes once before any comes again."""
WORK = {
    "train": 6,
    "train classes": 6,
    "train on rewards": 1,
    "retrain": 1,
    "upload": 4,
    "deploy": 8,
    "call": 16,
    "cancel": 6,
    "resume": 6,
    "delete job": 3,
    "delete deployment": 2,
}
"""What clients do, by how often."""
KILL_SECONDS, WORK_SECONDS = 11.0, 3.5
"""Mean times between two."""


@dataclass(frozen=True)
class Step:
    """At a second of the storm, a client's action, or the signal that a process of the kind `action` gets.

    `share`, 0 to 1, chooses among the things that there are then.
    """

    at: float
    action: str
    signal: Signals | None
    share: float

    def __str__(self) -> str:
        return f"{self.signal.name} to {self.action}" if self.signal else self.action


def plan(seed: int, minutes: float) -> list[Step]:
    """The steps of a storm in their order. It begins with a job, and every kind of job and a pipeline come early."""
    random_ = random.Random(seed)  # noqa: S311 - to be repeated
    end = minutes * 60
    steps = [
        Step(0.1 * number, action, None, random_.random())
        for number, action in enumerate(("train", "train classes", "train on rewards", "retrain", "train"))
    ]
    at = 0.0
    while (at := at + random_.expovariate(1 / WORK_SECONDS)) < end:
        (action,) = random_.choices(list(WORK), list(WORK.values()))
        steps.append(Step(at, action, None, random_.random()))
    at, deck = 0.0, list[tuple[str, Signals]]()
    while (at := at + random_.uniform(0.5, 1.5) * KILL_SECONDS) < end:
        deck = deck or random_.sample(KILLS, len(KILLS))
        kind, number = deck.pop()
        steps.append(Step(at, kind, number, random_.random()))
    return sorted(steps, key=lambda step: step.at)
