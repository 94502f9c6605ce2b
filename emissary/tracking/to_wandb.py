"""A run in Weights & Biases for each training job; the run's id is the job's.

Its history is a row for each step of training, and behind the last of them one for each checkpoint, once nothing more
comes of that. A row has the same step whenever it is told, and one that the run has already is left out. Offline, a run
is written anew into the job's folder by each process that tells of it.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import wandb

from emissary.settings import settings
from emissary.tracking.facts import Facts, Point
from emissary.tracking.reporter import Lost

_BEGIN_SECONDS = 60.0


class Wandb:
    """Tells Weights & Biases, or writes runs to be synchronised (WANDB_MODE=offline), as its own variables say."""

    def __init__(self) -> None:
        self._folder = Path(os.environ.get("WANDB_DIR") or settings().home / "wandb")
        self._runs: dict[str, Any] = {}

    def tell(self, job: Facts) -> None:
        """Tell what the job's run has not yet; its process sends it from then on, and goes on while the server is
        away.
        """
        if job.job_id not in self._runs:
            self._runs[job.job_id] = self._begun(job)
        try:
            self._tell(job, self._runs[job.job_id])
        except Exception as error:
            raise Lost(f"the run cannot be written to ({type(error).__name__}: {error})") from error
        if job.has_ended:
            self._end(job, self._runs.pop(job.job_id))

    def _tell(self, job: Facts, run: Any) -> None:
        run.config.update(job.parameters | job.labels, allow_val_change=True)
        has = run.step
        for step, values in _history(job):
            if step >= has:
                run.log(values, step=step, commit=True)
        run.summary.update(_summary(job))

    def _end(self, job: Facts, run: Any) -> None:
        run.finish(exit_code=0 if job.status == "Success" else 1)
        if not run.offline:
            shutil.rmtree(self._folder / job.job_id, ignore_errors=True)

    def _begun(self, job: Facts) -> Any:
        folder = self._folder / job.job_id
        if os.environ.get("WANDB_MODE") == "offline":
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            id=job.job_id,
            resume="allow",
            reinit="create_new",
            project=os.environ.get("WANDB_PROJECT") or "emissary",
            name=job.name,
            notes=job.description or None,
            tags=[job.labels["emissary.project"][:64]],
            dir=str(folder),
            # Of the machine that tells nothing is sent.
            settings=wandb.Settings(
                init_timeout=_BEGIN_SECONDS,
                host="emissary",
                program="emissary",
                console="off",
                silent=True,
                disable_git=True,
                save_code=False,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )
        run.define_metric("checkpoint")
        run.define_metric("checkpoint/*", step_metric="checkpoint")
        return run


def _history(job: Facts) -> Iterator[tuple[int, dict[str, float]]]:
    """Step and values of each row, in the order in which they come."""
    rows: dict[int, list[Point]] = {}
    for point in job.training:
        rows.setdefault(point.step, []).append(point)
    for step, points in rows.items():
        yield step, _row(points)
    if not job.training_is_over:
        return
    last = max(rows, default=0)
    for number, complete, known in job.checkpoints:
        if not complete:
            return
        yield last + number, _row(known) | {"checkpoint": number}


def _row(points: Sequence[Point]) -> dict[str, float]:
    return {point.name: point.value for point in points} | {"_timestamp": points[0].at}


def _summary(job: Facts) -> dict[str, float | str]:
    """What is known of each checkpoint from when it is there, also of a job that does not come to its end."""
    known = {
        f"checkpoints/{number}/{point.name.removeprefix('checkpoint/')}": point.value
        for number, _, points in job.checkpoints
        for point in points
    }
    best = {} if job.best_checkpoint is None else {"best_checkpoint": job.best_checkpoint}
    return known | best | {"status": job.status}
