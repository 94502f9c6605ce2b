"""GRPO training jobs, which are training jobs with a reward."""

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput
from emissary.job_size import row_numbers
from emissary.schemas.grpo_jobs import GrpoJobCreate
from emissary.store import training_jobs
from emissary.store.tables import Dataset, Project, TrainingJob
from emissary.testing_function_files import LOWER_IS_BETTER

WEIGHT_TOLERANCE = 1e-6


async def create(session: AsyncSession, project: Project, wanted: GrpoJobCreate, user_id: str) -> TrainingJob:
    """A new job, Pending. Raises InvalidInput as `composed`."""
    return await training_jobs.keep(session, await composed(session, project, wanted, user_id))


async def composed(
    session: AsyncSession, project: Project, wanted: GrpoJobCreate, user_id: str, train: Dataset | None = None
) -> TrainingJob:
    """The job that `wanted` asks for, which is not in the catalogue yet; `train` as in `training_jobs.composed`. Raises
    InvalidInput for anything it could not be run with, naming the field.
    """
    if wanted.task_type != "text-generation":
        raise InvalidInput(f"task_type: GRPO trains text-generation, not {wanted.task_type}.")
    _check_reward(wanted.reward, wanted.test_functions)
    job = await training_jobs.composed(session, project, wanted, user_id, wanted.reward, train)
    _check_sizes(job)
    return job


def _check_reward(reward: Mapping[str, float], functions: list[str]) -> None:
    for name in reward:
        if name not in functions:
            raise InvalidInput(f"reward: {name[:100]!r} is not among test_functions; list it there too.")
        if name in LOWER_IS_BETTER:
            raise InvalidInput(
                f"reward: {name!r} is an error, which training would raise; use a function that rewards."
            )
    total = sum(reward.values())
    if abs(total - 1) > WEIGHT_TOLERANCE:
        raise InvalidInput(f"reward: the weights sum to {total:.7g}, not 1.")


def _check_sizes(job: TrainingJob) -> None:
    """Raises InvalidInput where a step's completions cannot be groups of num_generations, or have no room."""
    parameters = job.hyper_parameters
    generations, batch = parameters["num_generations"], parameters["per_device_train_batch_size"]
    accumulated = parameters["gradient_accumulation_steps"]
    completions = batch * accumulated
    if generations < 2 or completions % generations:
        fitting = [str(number) for number in range(2, min(completions, 256) + 1) if completions % number == 0]
        fails_to = "makes no groups to compare of" if generations < 2 else "does not divide"
        raise InvalidInput(
            f"parameters.num_generations: {generations} {fails_to} the {completions} completions of a step "
            f"(per_device_train_batch_size {batch} × gradient_accumulation_steps {accumulated}); "
            + (f"{', '.join(fitting[:20])} would." if fitting else "raise per_device_train_batch_size."),
            code="invalid_parameters",
        )
    uploaded, (rows, _) = job.train_dataset.report["rows"], row_numbers(job)
    if rows < completions // generations:
        left = "" if rows == uploaded else f", of which train_test_split_ratio and downsample_size leave {rows}"
        raise InvalidInput(
            f"train_dataset_id: a step takes {completions // generations} prompts (per_device_train_batch_size × "
            f"gradient_accumulation_steps / num_generations), but the dataset has {uploaded} rows{left}; lower "
            f"per_device_train_batch_size{', train on more of them' if left else ''} or upload more rows."
        )
    if parameters["max_completion_length"] >= parameters["max_length"]:
        raise InvalidInput(
            f"parameters.max_completion_length: {parameters['max_completion_length']} leaves no room for a prompt "
            f"within max_length, {parameters['max_length']} tokens.",
            code="invalid_parameters",
        )
