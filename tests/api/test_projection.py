"""Status words of the API for states of flow runs, and sentences for what went wrong."""

import pytest
from prefect.client.schemas.objects import StateType

from emissary.api.projection import error_sentence, status_word
from emissary.store.tables import Deployment, Engine, TrainingJob

TABLE = [
    # state type, state name, training job, deployment, engine
    ("SCHEDULED", "Scheduled", "Pending", "Pending", "Creating"),
    ("SCHEDULED", "Late", "Pending", "Pending", "Creating"),
    ("SCHEDULED", "AwaitingRetry", "Pending", "Pending", "Creating"),
    ("PENDING", "Pending", "Pending", "Pending", "Creating"),
    ("PAUSED", "Paused", "Pending", "Pending", "Creating"),
    ("RUNNING", "Running", "Running", "Deploying", "Creating"),
    ("RUNNING", "Testing", "Testing", "Deploying", "Creating"),
    ("RUNNING", "Active", "Running", "Deploying", "Active"),
    ("COMPLETED", "Completed", "Success", "Deployed", "Inactive"),
    ("FAILED", "Failed", "Failed", "Failed", "Inactive"),
    ("FAILED", "TimedOut", "TimedOut", "TimedOut", "Inactive"),
    ("CANCELLING", "Cancelling", "Cancelled", "Cancelled", "Inactive"),
    ("CANCELLED", "Cancelled", "Cancelled", "Cancelled", "Inactive"),
]


@pytest.mark.parametrize(("state_type", "name", "job", "deployment", "engine"), TABLE)
def test_state_has_the_word_of_the_table(state_type: str, name: str, job: str, deployment: str, engine: str) -> None:
    assert status_word(TrainingJob, state_type, name) == job
    assert status_word(Deployment, state_type, name) == deployment
    assert status_word(Engine, state_type, name) == engine


@pytest.mark.parametrize("kind", [TrainingJob, Deployment, Engine])
def test_every_type_of_state_has_a_word_but_a_crash_which_the_sweep_decides_on(kind: type) -> None:
    without = {state.value for state in StateType if status_word(kind, state.value, "Named by somebody") is None}
    assert without == {"CRASHED"}


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("Flow run encountered an exception: ValueError: no rows left", "no rows left"),
        ("Flow run encountered an exception: emissary.errors.InvalidInput: Row 3: empty.", "Row 3: empty."),
        ("The process died 3 times.", "The process died 3 times."),
        ("Flow run failed due to timeout: TimeoutError('The job took too long.')", "The job took too long."),
        ('Flow run failed due to timeout: TimeoutError("It\'s over.")', "It's over."),
        (
            "Flow run encountered an exception: RuntimeError: A: B: two colons stay",
            "A: B: two colons stay",
        ),
    ],
)
def test_error_sentence_has_no_frame_of_prefects(message: str, sentence: str) -> None:
    assert error_sentence(message) == sentence


@pytest.mark.parametrize("message", [None, ""])
def test_failure_without_a_message_points_to_the_log(message: str | None) -> None:
    assert "log in the Prefect UI" in error_sentence(message)
