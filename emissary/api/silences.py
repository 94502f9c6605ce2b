"""For how long each run has shown no sign of life, or is in its state, by nothing but what this process has seen.

No two clocks are compared, and time in which nothing could be seen does not count: after an outage of the database,
of Prefect or of the API a run that lives has as long as ever to be noticed.
"""

import time
from collections.abc import Callable, Hashable, Mapping
from uuid import UUID

LONGEST_GAP = 10.0
"""Seconds between two looks after which all begins anew."""


class Silences:
    """Remembers what was last seen of each run and each state, by their ids, and since when it has not changed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[UUID, tuple[Hashable, float]] = {}
        self._looked = float("-inf")

    def look(self, signs: Mapping[UUID, Hashable]) -> dict[UUID, float]:
        """For how many seconds each of `signs` has been the same; forgets all others."""
        now = self._clock()
        before = self._since if now - self._looked <= LONGEST_GAP else {}
        self._looked = now
        self._since = {
            run: known if (known := before.get(run)) is not None and known[0] == sign else (sign, now)
            for run, sign in signs.items()
        }
        return {run: now - since for run, (_, since) in self._since.items()}
