"""The training step of a GRPO job."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks.sandbox_replies import TestingFailed
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
    adapter_dir = await starting_adapter(job)
    log = get_run_logger()
    try:
        await run_trainer(job, await reward_trainer(job, model_dir, adapter_dir, rows, log.warning))
    except TestingFailed as error:
        if error.traceback:
            log.error("%s", error.traceback)
        raise


async def reward_trainer(
    job: TrainingJob,
    model_dir: Path,
    adapter_dir: Path | None,
    rows: list[Conversation],
    on_warning: Callable[[str], None],
) -> Callable[..., int]:
    """`train_grpo` for the job, but for what `run_trainer` gives it."""
    return partial(
        train_grpo,
        model_dir=model_dir,
        adapter_dir=adapter_dir,
        train_rows=rows,
        functions=await in_catalogue(testing_functions.of_job, job),
        weights=job.reward_functions or {},
        on_warning=on_warning,
    )
