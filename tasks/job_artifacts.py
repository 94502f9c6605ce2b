"""What a person sees of a training job in the Prefect UI: a progress bar, the loss curve, the table of checkpoints."""

import base64
from functools import partial
from uuid import UUID

from prefect.artifacts import (
    acreate_image_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from emissary.store import training_jobs
from tasks.catalogue import in_catalogue
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
            made = await acreate_progress_artifact(progress=0.0, description=f"Progress of {self._job_id}")
            self._artifact_id = UUID(str(made))
        await aupdate_progress_artifact(self._artifact_id, float(self._shown))


def show_loss_curve(job_id: str) -> None:
    """Show the training loss so far as a picture, and the reward where there is one."""
    report("The loss curve", partial(_publish_loss_curve, job_id))


def show_checkpoints(job_id: str) -> None:
    """Show the job's checkpoints with their losses and scores as a table."""
    report("The table of checkpoints", partial(_publish_checkpoint_table, job_id))


def _key(job_id: str, what: str) -> str:
    return f"{what}-{job_id}".lower()


async def _publish_loss_curve(job_id: str) -> None:
    job = await in_catalogue(training_jobs.get, job_id)
    if not job.training_loss:
        return
    shown = {"loss": f"Training loss of {job.name}"}
    if "reward" in job.training_loss[0]:
        shown["reward"] = f"Reward of {job.name}"
    for value, title in shown.items():
        picture = base64.b64encode(loss_curve_png(job.training_loss, title, value)).decode()
        await acreate_image_artifact(
            image_url=f"data:image/png;base64,{picture}", key=_key(job_id, value), description=title
        )


async def _publish_checkpoint_table(job_id: str) -> None:
    job = await in_catalogue(training_jobs.get, job_id)
    rows = await in_catalogue(training_jobs.checkpoints, job_id)
    table = [
        {
            "checkpoint": row.number,
            "best": "★" if row.number == job.best_checkpoint else "",
            "train loss": row.train_loss,
            "test loss": row.test_loss,
            **(row.scores or {}),
        }
        for row in rows
    ]
    await acreate_table_artifact(table=table, key=_key(job_id, "checkpoints"), description=f"Checkpoints of {job.name}")
