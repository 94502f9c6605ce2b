"""train_grpo: prepare → train on rewards → test every checkpoint → pick the best → push it."""

from prefect import flow

from emissary.schemas.grpo_jobs import GrpoJobCreate
from tasks.base_model import base_model_files
from tasks.finishing import finish
from tasks.grpo_job import train_on_rewards
from tasks.preparing import prepare, training_and_test_rows, warn_of_rows
from tasks.pushing import push_to_hub
from tasks.registering import training_job
from tasks.run_state import enter
from tasks.testing import pick_best, test_checkpoints


@flow(name="train_grpo")
async def train_grpo(
    training_job_id: str | None = None, project_id: str | None = None, request: GrpoJobCreate | None = None
) -> int | None:
    """Train a base model with LoRA on rewards and test every checkpoint; returns the number of the best one.

    Args:
        training_job_id: An existing job, as the API passes it. Leave empty to register a job from this form.
        project_id: The project of the new job.
        request: The new job: the same fields as POST /v1/projects/{project_id}/training-jobs/grpo.
    """
    job = await training_job(training_job_id, project_id, request)
    train_key = await prepare(job.train_dataset_id)
    test_key = await prepare(job.test_dataset_id) if job.test_dataset_id else None
    train_rows, test_rows = await training_and_test_rows(job, train_key, test_key)
    await warn_of_rows(job, train_rows, test_rows)
    model_dir = await base_model_files(job.base_model)
    await train_on_rewards(job, model_dir, train_rows)
    if test_rows:
        enter("Testing")
        await test_checkpoints(job, model_dir, test_rows)
    best = await pick_best(job)
    await push_to_hub(job)
    await finish(job)
    return best
