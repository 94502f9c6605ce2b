"""A process that holds a lease, for the tests: lease_holder.py ROW. It answers lines on its input as JSON."""

import json
import sys
from datetime import UTC, datetime, timedelta

from prefect._internal import control_listener
from prefect.exceptions import TerminationSignal

from emissary.store.tables import TrainingJob
from tasks import attempt


def _answer(asked: str, row: str) -> object:
    match asked:
        case "require":
            attempt.require_lease()
            return "held"
        case "cancel":
            control_listener._set_intent("cancel")
            return attempt.must_stop()
        case "reschedule":
            control_listener._set_intent("reschedule")
        case "over time":
            job = TrainingJob(id=row, timeout_seconds=1, started_at=datetime.now(UTC) - timedelta(seconds=2))
            attempt.begin(row, 1, job)
        case "end":
            try:
                attempt.end_if_interrupted()
            except TimeoutError as error:
                return str(error)
            except TerminationSignal as error:
                return f"ends by signal {error.signal:d}"
    return [attempt.must_stop(), attempt.must_save()]


if __name__ == "__main__":
    attempt.begin(sys.argv[1], 1)
    print("begun", flush=True)  # noqa: T201
    for line in sys.stdin:
        print(json.dumps(_answer(line.strip(), sys.argv[1])), flush=True)  # noqa: T201
