"""What is told of a training job: everything that the catalogue has of it, each point once."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from emissary.schemas.parameters import AUTO
from emissary.settings import settings
from emissary.store.tables import TERMINAL, Checkpoint, TrainingJob
from emissary.store.tracked_jobs import Known


@dataclass(frozen=True)
class Point:
    """A value of a curve: of training by step, of checkpoints by their number; `at` in UNIX seconds."""

    name: str
    value: float
    step: int
    at: float


@dataclass(frozen=True)
class Facts:
    """What is known of a job by now; two of the same content are equal."""

    job_id: str
    name: str
    description: str
    status: str
    began: float
    training_is_over: bool
    """Whether no point of training comes any more."""
    parameters: dict[str, Any]
    labels: dict[str, str]
    """What the job belongs to, and where its checkpoints are."""
    training: tuple[Point, ...]
    """In the order of steps."""
    checkpoints: tuple[tuple[int, bool, tuple[Point, ...]], ...]
    """Number, whether nothing more comes of it, and points."""
    best_checkpoint: int | None

    @property
    def has_ended(self) -> bool:
        """Whether the job has, unless somebody resumes it."""
        return self.status in TERMINAL


def facts(found: Known) -> Facts:
    """What to tell of a job."""
    job = found.job
    over = job.status in ("Testing", "Success")
    return Facts(
        job_id=job.id,
        name=job.name,
        description=job.description or "",
        status=job.status,
        began=job.created_at.timestamp(),
        training_is_over=over,
        parameters=_parameters(job),
        labels=_labels(found),
        training=tuple(training_points(job)),
        checkpoints=tuple(
            (row.number, job.status == "Success" or row.results_artifact is not None, tuple(checkpoint_points(row)))
            for row in found.checkpoints
        ),
        best_checkpoint=job.best_checkpoint,
    )


def training_points(job: TrainingJob) -> Iterator[Point]:
    """The curves of training by step."""
    for point in sorted(job.training_loss, key=lambda point: point["step"]):
        for name, value in values_of(point):
            yield Point(f"train/{name}", value, point["step"], point["timestamp"])


def values_of(point: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The names and values of a point of the loss curve, but for step and time: `loss`, `rewards/similarity`."""
    for name, value in point.items():
        if isinstance(value, dict):
            yield from values_of(value, f"{prefix}{name}/")
        elif value is not None and name not in ("timestamp", "step"):
            yield f"{prefix}{name}", float(value)


def checkpoint_points(row: Checkpoint) -> Iterator[Point]:
    """A checkpoint's losses, mean scores and metrics, as far as they are known."""
    values = {
        "loss/train": row.train_loss,
        "loss/test": row.test_loss,
        **{f"score/{name}": score for name, score in (row.scores or {}).items()},
        **{f"metric/{name}": value for name, value in (row.report or {}).get("metrics", {}).items()},
    }
    for name, value in values.items():
        if value is not None:
            yield Point(f"checkpoint/{name}", float(value), row.number, row.created_at.timestamp())


def _parameters(job: TrainingJob) -> dict[str, Any]:
    """Those that are settled: what is `auto` comes when the run has chosen it."""
    given = {
        "base_model": job.base_model,
        "task_type": job.task_type,
        "training_technique": job.training_technique,
        "starts_from_job": job.base_fine_tuned_model,
        "starts_from_checkpoint": job.base_fine_tuned_model_checkpoint,
        "train_dataset_id": job.train_dataset_id,
        "train_dataset": job.train_dataset.name,
        "test_dataset_id": job.test_dataset_id,
        "test_dataset": job.test_dataset and job.test_dataset.name,
        "train_test_split_ratio": job.train_test_split_ratio,
        "test_functions": ", ".join(job.test_functions) or None,
        **{f"reward/{name}": weight for name, weight in (job.reward_functions or {}).items()},
        **{f"rebalance/{name}": number for name, number in (job.rebalance_data or {}).items()},
    }
    settled = {name: value for name, value in job.hyper_parameters.items() if value != AUTO}
    return {name: value for name, value in (given | settled).items() if value is not None}


def _labels(found: Known) -> dict[str, str]:
    job, project = found.job, found.project
    store = settings().artifacts or str(settings().home / "artifacts")
    return {
        "emissary.job_id": job.id,
        "emissary.url": f"{settings().api_url}/v1/projects/{project.id}/training-jobs/{job.id}",
        "emissary.project_id": project.id,
        "emissary.project": project.name,
        "emissary.organization": found.organization.name,
        **{f"emissary.checkpoint.{row.number}": f"{store.rstrip('/')}/{row.artifact}" for row in found.checkpoints},
    }
