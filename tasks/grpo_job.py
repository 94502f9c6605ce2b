"""The training step of a GRPO job."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import anyio.from_thread
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from blocks.sandbox_replies import TestingFailed
from emissary.store import job_events, testing_functions
from emissary.store.tables import TrainingJob
from tasks import auto_parameters
from tasks.catalogue import in_catalogue
from tasks.grpo_training import train_grpo
from tasks.job_artifacts import show_completions
from tasks.reward_steps import OnWarning
from tasks.sampled_completions import Rows
from tasks.sft_rows import Conversation
from tasks.starting import starting_adapter
from tasks.training import run_trainer


@task(task_run_name="train", cache_policy=NO_CACHE)
async def train_on_rewards(job: TrainingJob, model_dir: Path, rows: list[Conversation]) -> None:
    """Train the job's adapter on its reward, listing each checkpoint when it is published; goes on where it was
    killed. The log has every warning about the rewards, and the first traceback of each function that fails; the job's
    events have the first warning of each kind.
    """
    log = get_run_logger()

    async def record_warning(about: str, message: str, tracebacks: Sequence[str]) -> None:
        log.warning(message)
        for traceback in tracebacks:
            log.warning("%s", traceback)
        await in_catalogue(job_events.record, job.id, "warning", {"about": about}, message=message)

    def on_warning(about: Literal["reward_failures", "equal_rewards"], message: str, tracebacks: Sequence[str]) -> None:
        anyio.from_thread.run(record_warning, about, message, tracebacks)

    def on_completions(table: Rows) -> None:
        anyio.from_thread.run_sync(show_completions, job, table)

    if changed := await in_catalogue(testing_functions.changed_rewards, job):
        named = ", ".join(changed)
        message = (
            f"Since this job began to train, what it is rewarded by was changed ({named}): earlier steps learnt from "
            "other rewards than those to come. Train anew to have one reward throughout."
        )
        await record_warning("changed_rewards", message, [])
    adapter_dir = await starting_adapter(job)
    await auto_parameters.settle(job, model_dir, rows, None)
    try:
        await run_trainer(job, await reward_trainer(job, model_dir, adapter_dir, rows, on_warning, on_completions))
    except TestingFailed as error:
        if error.traceback:
            log.error("%s", error.traceback)
        raise


async def reward_trainer(
    job: TrainingJob,
    model_dir: Path,
    adapter_dir: Path | None,
    rows: list[Conversation],
    on_warning: OnWarning,
    on_completions: Callable[[Rows], None],
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
        on_completions=on_completions,
    )
