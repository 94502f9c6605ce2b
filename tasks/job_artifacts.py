"""What a person sees of a training job in the Prefect UI: progress, loss and rewards, completions that GRPO sampled,
checkpoints, plots of their tests, and answers before and after.
"""

import base64
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from prefect import runtime
from prefect.artifacts import (
    Artifact,
    acreate_image_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from emissary import intervals
from emissary.store import training_jobs
from emissary.store.tables import Checkpoint, TrainingJob
from tasks import reward_plots
from tasks.catalogue import in_catalogue
from tasks.drawing import png
from tasks.loss_plot import loss_curve_png
from tasks.reporting import report

PREPARED, TRAINED = 5, 75
"""Percent of the whole job that is done after preparing and after training; testing takes the rest."""


class Progress:
    """The progress bar of a job: on its flow run, and as `progress` in the catalogue."""

    def __init__(self, job_id: str) -> None:
        self._job_id, self._shown = job_id, -1
        self._artifact_id: UUID | None = None

    async def update(self, percent: float) -> None:
        """Show `percent`, 0 to 100; calls that change nothing visible cost nothing."""
        if int(percent) <= self._shown:
            return
        self._shown = int(percent)
        await in_catalogue(training_jobs.record_progress, self._job_id, self._shown)
        report("The progress bar", self._show)

    async def _show(self) -> None:
        if self._artifact_id is None:
            self._artifact_id = await _bar(self._job_id)
        await aupdate_progress_artifact(self._artifact_id, float(self._shown))


async def _bar(job_id: str) -> UUID:
    """The progress bar of this flow run, which an earlier step or process of it may have made."""
    key = _key(job_id, "progress")
    found = await Artifact.aget(key)
    if found is not None and str(found.flow_run_id) == runtime.flow_run.get_id():
        return found.id
    return UUID(str(await acreate_progress_artifact(progress=0.0, key=key, description=f"Progress of {job_id}")))


def show_loss_curve(job_id: str) -> None:
    """Show the training loss so far as a picture; of GRPO the rewards too, and how the model changes."""
    report("The loss curve", partial(_publish_loss_curve, job_id))


def show_completions(job: TrainingJob, rows: Sequence[dict[str, Any]]) -> None:
    """Show completions that GRPO sampled as a table, of which these are all rows now."""
    title = f"Completions that {job.name} sampled, with their rewards"
    show = partial(acreate_table_artifact, table=list(rows), key=_key(job.id, "completions"), description=title)
    report("The table of completions", show)


def show_answers(job: TrainingJob, rows: Sequence[dict[str, Any]]) -> None:
    """Show how the base model and the best checkpoint answer some test rows, side by side."""
    title = f"Answers of {job.base_model} before and after {job.name}"
    show = partial(acreate_table_artifact, table=list(rows), key=_key(job.id, "answers"), description=title)
    report("The table of answers", show)


def show_checkpoints(job_id: str) -> None:
    """Show the job's checkpoints with their losses and scores as a table."""
    report("The table of checkpoints", partial(_publish_checkpoint_table, job_id))


def show_plots(job: TrainingJob, checkpoint: int, plots: Mapping[str, bytes]) -> None:
    """Show a checkpoint's plots (name → PNG): each a picture that has a version per checkpoint."""
    for name, picture in plots.items():
        title = f"{job.name}, checkpoint {checkpoint}: {name.replace('_', ' ')}"
        report(
            f"The plot {name} of checkpoint {checkpoint}", partial(_publish_picture, _key(job.id, name), picture, title)
        )


def _key(job_id: str, what: str) -> str:
    return f"{what}-{job_id}".lower().replace("_", "-")


async def _publish_picture(key: str, picture: bytes, title: str) -> None:
    encoded = base64.b64encode(picture).decode()
    await acreate_image_artifact(image_url=f"data:image/png;base64,{encoded}", key=key, description=title)


async def _publish_loss_curve(job_id: str) -> None:
    job = await in_catalogue(training_jobs.get, job_id)
    if not job.training_loss:
        return
    title = f"Training loss of {job.name}"
    await _publish_picture(_key(job_id, "loss"), loss_curve_png(job.training_loss, title), title)
    if "reward" not in job.training_loss[0]:
        return
    title = f"Rewards of {job.name}"
    await _publish_picture(_key(job_id, "reward"), png(reward_plots.rewards(job.training_loss, title)), title)
    title = f"What the policy of {job.name} does"
    await _publish_picture(_key(job_id, "policy"), png(reward_plots.policy(job.training_loss, title)), title)


def _summaries(row: Checkpoint) -> dict[str, Any]:
    return dict((row.report or {}).get("test_summary", {}))


async def _publish_checkpoint_table(job_id: str) -> None:
    job = await in_catalogue(training_jobs.get, job_id)
    rows = await in_catalogue(training_jobs.checkpoints, job_id)
    table = [
        {
            "checkpoint": row.number,
            "best": "★" if row.number == job.best_checkpoint else "",
            "train loss": row.train_loss,
            "test loss": row.test_loss,
            **(row.report or {}).get("metrics", {}),
            **(row.scores or {}),
            **{name: intervals.written(summary) for name, summary in _summaries(row).items()},
        }
        for row in rows
    ]
    if base := next((found for row in rows if (found := intervals.of_base(_summaries(row)))), None):
        table.insert(0, dict.fromkeys(table[0], "") | {"checkpoint": "base"} | base)
    await acreate_table_artifact(table=table, key=_key(job_id, "checkpoints"), description=f"Checkpoints of {job.name}")
