"""How long a job waited, prepared, trained and tested."""

from collections.abc import Sequence
from typing import Any

_WAITING, _PREPARING = "Waiting for a worker", "Preparing, to the first reported loss"
_TRAINING, _TESTING = "Training", "Testing"
STAGES = (_WAITING, _PREPARING, _TRAINING, _TESTING)
_BEGINS = {"queued": _WAITING, "started": _PREPARING, "resumed": _PREPARING, "testing": _TESTING}
"""Kind of event → the stage that begins with it."""
_SHOWS = {"loss": _TRAINING, "epoch": _TRAINING, "tested": _TESTING}
"""What shows that a run is done with preparing → what it does now: a resumed run has no new event of a begun test."""
_ENDS = ("succeeded", "cancelled", "failed")


def durations(
    events: Sequence[dict[str, Any]], training_loss: Sequence[dict[str, Any]], now: float
) -> dict[str, float]:
    """Seconds that a job spent in each of the `STAGES` that it has been in; several runs of it are added up.

    `events` and `training_loss` are as the API gives them, their times in UNIX seconds, of events whole ones. The stage
    of a job that goes on ends `now`.
    """
    marks = [(float(event["created_at"]), event["kind"]) for event in events]
    marks += [(point["timestamp"], "loss") for point in training_loss]
    spent: dict[str | None, float] = {}
    stage, since = None, now
    for time, kind in [*sorted(marks, key=lambda mark: mark[0]), (now, None)]:
        following = _following(stage, kind)
        if following != stage or kind is None:
            spent[stage] = spent.get(stage, 0.0) + max(0.0, time - since)
            stage, since = following, time
    return {name: spent[name] for name in STAGES if name in spent}


def _following(stage: str | None, kind: str | None) -> str | None:
    if kind in _ENDS:
        return None
    if stage == _PREPARING and kind in _SHOWS:
        return _SHOWS[kind]
    return _BEGINS.get(kind or "", stage)
