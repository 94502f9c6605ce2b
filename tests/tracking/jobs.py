"""A training job as the catalogue has it at some moment of its life."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from emissary.store.tables import Checkpoint, Dataset, Organization, Project, TrainingJob
from emissary.store.tracked_jobs import Known
from emissary.tracking.facts import Facts, facts

CREATED = datetime(2026, 1, 2, tzinfo=UTC)
TRAIN = Dataset(id="ds-1", name="tickets", report={"rows": 40})
TEST = Dataset(id="ds-2", name="tickets-test", report={"rows": 8})


def job_at(steps: int, status: str = "Running", checkpoints: int = 0, tested: int = 0, **changed: Any) -> Facts:
    """What is told of a job of two-step epochs: its first `steps` points, and checkpoints, of which some are tested."""
    points = [
        {"timestamp": 1000.0 + step, "step": step, "epoch": step / 2, "loss": 1 / step, "learning_rate": 0.001,
         "reward": step / 10, "rewards": {"exact_match_shared": step / 10}, "kl": None}
        for step in range(1, steps + 1)
    ]  # fmt: skip
    job = TrainingJob(
        **{
            "id": "tr-1", "name": "triage", "description": "first", "status": status, "created_at": CREATED,
            "training_technique": "GRPO", "task_type": "text-generation", "base_model": "SmolLM2-135M-Instruct",
            "train_dataset_id": "ds-1", "train_dataset": TRAIN, "test_dataset_id": "ds-2", "test_dataset": TEST,
            "test_functions": ["exact_match_shared"], "reward_functions": {"exact_match_shared": 1.0},
            "hyper_parameters": {"lora_r": 2, "learning_rate": "auto"}, "training_loss": points,
            "best_checkpoint": 2 if status == "Success" else None,
        }
        | changed
    )  # fmt: skip
    rows = [
        Checkpoint(
            number=number, artifact=f"training-jobs/tr-1/checkpoints/{number}", created_at=CREATED,
            train_loss=1 / number, test_loss=2 / number,
            scores={"exact_match_shared": number / 4} if number <= tested else None,
            report={"metrics": {"chrf": number / 8}} if number <= tested else None,
            results_artifact=f"results/{number}" if number <= tested else None,
        )
        for number in range(1, checkpoints + 1)
    ]  # fmt: skip
    project = Project(id="ms-1", name="support")
    return facts(Known(job, rows, project, Organization(id="org-1", name="ours")))


def renamed(job: Facts, job_id: str) -> Facts:
    """The same of another job."""
    return replace(job, job_id=job_id, labels=job.labels | {"emissary.job_id": job_id})


_SETTLED = {"hyper_parameters": {"lora_r": 2, "learning_rate": 0.01}}
MOMENTS = (
    job_at(0, "Pending"),
    job_at(3, checkpoints=1, **_SETTLED),
    job_at(3, checkpoints=1, **_SETTLED),
    job_at(4, "Testing", 2, 1, **_SETTLED),
    job_at(4, "Success", 2, 2, **_SETTLED),
    job_at(4, "Success", 2, 2, **_SETTLED),
)
"""A job's life, in which nothing new happened twice."""
