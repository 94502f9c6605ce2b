"""A run in MLflow for each training job, found again by the job's id.

What MLflow has is asked once for each job and process, and only what is missing is sent. So nothing is there twice,
whenever this process was killed, whichever it was.
"""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag, ViewType

from emissary.tracking.facts import Facts, Point

_STATUS = {
    "Pending": "SCHEDULED",
    "Running": "RUNNING",
    "Testing": "RUNNING",
    "Success": "FINISHED",
    "Failed": "FAILED",
    "TimedOut": "FAILED",
    "Cancelled": "KILLED",
}
_JOB = "emissary.job_id"
_AT_ONCE = 100
_LONGEST = 5000
T = TypeVar("T")


@dataclass
class _Told:
    """What MLflow has of a job."""

    run_id: str
    deleted: bool
    status: str
    parameters: set[str]
    tags: dict[str, str]
    points: set[tuple[str, int]]


class Mlflow:
    """Tells MLflow's server at MLFLOW_TRACKING_URI."""

    def __init__(self) -> None:
        # Its own patience would keep other jobs waiting; what fails is told again soon.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        self._client = MlflowClient()
        self._experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "emissary"
        self._told: dict[str, _Told] = {}

    def tell(self, job: Facts) -> None:
        """Tell what MLflow does not know yet of the job; nothing of one whose run somebody deleted there."""
        # Whatever fails, what MLflow has by then is asked again.
        told = self._told.pop(job.job_id, None) or self._known(job)
        if not told.deleted:
            self._tell(job, told)
        if not job.has_ended:
            self._told[job.job_id] = told

    def _tell(self, job: Facts, told: _Told) -> None:
        parameters = [
            Param(_name(name), str(value)[:_LONGEST])
            for name, value in job.parameters.items()
            if _name(name) not in told.parameters
        ]
        best = {} if job.best_checkpoint is None else {"emissary.best_checkpoint": str(job.best_checkpoint)}
        tags = job.labels | best | {"emissary.status": job.status, "mlflow.note.content": job.description}
        changed = [RunTag(name, value[:_LONGEST]) for name, value in tags.items() if told.tags.get(name) != value]
        known = [point for _, _, points in job.checkpoints for point in points]
        missing = [point for point in (*job.training, *known) if (_name(point.name), point.step) not in told.points]
        for some in _pieces(parameters):
            self._client.log_batch(told.run_id, params=some)
        for some in _pieces(changed):
            self._client.log_batch(told.run_id, tags=some)
        for some in _pieces(missing):
            self._client.log_batch(told.run_id, metrics=[_metric(point) for point in some])
        status = _STATUS[job.status]
        if status != told.status and job.has_ended:
            self._client.set_terminated(told.run_id, status)
        elif status != told.status:
            self._client.update_run(told.run_id, status)
        told.status = status
        told.parameters.update(row.key for row in parameters)
        told.tags |= tags
        told.points.update((_name(point.name), point.step) for point in missing)

    def _known(self, job: Facts) -> _Told:
        """The job's run, made where there is none, and what is in it."""
        experiment_id = self._experiment_id()
        found = self._client.search_runs(
            [experiment_id], f"tags.`{_JOB}` = '{job.job_id}'", ViewType.ALL, order_by=["attributes.start_time ASC"]
        )
        run: Run = found[0] if found else self._made(job, experiment_id)
        metrics: list[Any] = [
            metric for name in run.data.metrics for metric in self._client.get_metric_history(run.info.run_id, name)
        ]
        return _Told(
            run_id=run.info.run_id,
            deleted=run.info.lifecycle_stage == "deleted",
            status=run.info.status,
            parameters=set(run.data.params),
            tags=dict(run.data.tags),
            points={(metric.key, metric.step) for metric in metrics},
        )

    def _made(self, job: Facts, experiment_id: str) -> Run:
        # With the tag from the first moment on: a process that is killed behind this finds it.
        return self._client.create_run(
            experiment_id, start_time=int(job.began * 1000), tags={_JOB: job.job_id}, run_name=job.name
        )

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        return str(found.experiment_id if found else self._client.create_experiment(self._experiment))


def _name(name: str) -> str:
    """The name with the characters that MLflow takes alone."""
    return re.sub(r"[^\w. /-]", "_", name, flags=re.ASCII)[:250]


def _metric(point: Point) -> Metric:
    return Metric(_name(point.name), point.value, int(point.at * 1000), point.step)


def _pieces(rows: Iterable[T]) -> Iterator[list[T]]:
    left = iter(rows)
    while piece := list(islice(left, _AT_ONCE)):
        yield piece
