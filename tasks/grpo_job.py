"""The training step of a GRPO job."""

from functools import partial
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from emissary.store import testing_functions
from emissary.store.tables import TrainingJob
from tasks.catalogue import in_catalogue
from tasks.grpo_training import train_grpo
from tasks.sft_rows import Conversation
from tasks.starting import starting_adapter
from tasks.training import run_trainer


@task(task_run_name="train", cache_policy=NO_CACHE)
async def train_on_rewards(job: TrainingJob, model_dir: Path, rows: list[Conversation]) -> None:
    """Train the job's adapter on its reward, listing each checkpoint when it is published; goes on where it was
    killed.
    """
    functions = await in_catalogue(testing_functions.of_job, job)
    weights = job.reward_functions or {}
    await run_trainer(
        job,
        partial(
            train_grpo,
            model_dir=model_dir,
            adapter_dir=await starting_adapter(job),
            train_rows=rows,
            functions=functions,
            weights=weights,
            on_warning=get_run_logger().warning,
        ),
    )
