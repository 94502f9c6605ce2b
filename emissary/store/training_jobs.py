"""Queries of training jobs and their checkpoints."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer, joinedload
from sqlalchemy.sql.expression import cast, func, null

from emissary.data.rebalancing import one_class_left, row_counts
from emissary.data.rows import MAX_LABELS
from emissary.errors import InvalidInput, NotFound
from emissary.ids import new_id
from emissary.schemas.parameters import AUTO, TEST_LOSS
from emissary.schemas.training_jobs import TrainingJobCreate
from emissary.store import hub_pushes, job_events, leases, starts, testing_functions
from emissary.store.pages import Page, fetch
from emissary.store.tables import GONE, Checkpoint, Dataset, Deployment, JobEvent, Project, TrainingJob
from emissary.store.tables import TERMINAL as TERMINAL
from emissary.testing_function_files import require_fit

_DATASETS = (TrainingJob.train_dataset, TrainingJob.test_dataset)
_WITH_DATASETS = tuple(joinedload(dataset) for dataset in _DATASETS)


async def create(session: AsyncSession, project: Project, wanted: TrainingJobCreate, user_id: str) -> TrainingJob:
    """A new job by SFT, Pending. Raises InvalidInput as `composed`."""
    return await keep(session, await composed(session, project, wanted, user_id))


async def keep(session: AsyncSession, job: TrainingJob) -> TrainingJob:
    """`job`, of `composed`, in the catalogue, waiting for its run."""
    session.add(job)
    await session.flush()
    await job_events.record_queued(session, job.id)
    return job


async def composed(
    session: AsyncSession,
    project: Project,
    wanted: TrainingJobCreate,
    user_id: str,
    reward: dict[str, float] | None = None,
    train: Dataset | None = None,
) -> TrainingJob:
    """The job that `wanted` asks for, which is not in the catalogue yet; with a `reward` (testing function to weight)
    by GRPO, else by SFT. `train` is the dataset to train on where that is not in the catalogue.

    Raises InvalidInput for anything it could not be run with, naming the field.
    """
    technique: starts.Technique = "SFT" if reward is None else "GRPO"
    start = await starts.resolve(session, project, wanted, technique)
    if start.parent is not None:
        wanted = wanted.model_copy(update={"task_type": start.parent.task_type})
    train = train or await _dataset(session, project, "train_dataset_id", wanted.train_dataset_id, wanted.task_type)
    test = None
    if wanted.test_dataset_id is not None:
        test = await _dataset(session, project, "test_dataset_id", wanted.test_dataset_id, wanted.task_type)
        if wanted.train_test_split_ratio is not None:
            raise InvalidInput("train_test_split_ratio: give it or test_dataset_id, not both.")
    if wanted.train_test_split_ratio is not None and train.report["rows"] < 2:
        raise InvalidInput("train_test_split_ratio: a dataset of one row cannot be split; upload more rows.")
    if wanted.task_type == "classification":
        _check_classes(train, test)
        start.check_labels(train)
    if wanted.task_type == "embedding" and wanted.parameters.get("dynamic_loss"):
        raise InvalidInput("parameters.dynamic_loss: there is none for the task type embedding; leave it out.")
    if wanted.rebalance_data is not None:
        _check_rebalancing(wanted, wanted.rebalance_data, train)
    await testing_functions.resolve(session, project.organization_id, wanted.test_functions)
    require_fit(wanted.test_functions, wanted.task_type)
    if len(set(wanted.test_functions)) != len(wanted.test_functions):
        raise InvalidInput("test_functions: a function is named twice; name each once.")
    parameters = start.parameters(wanted.parameters, technique)
    _check_early_stopping(parameters, wanted)
    if wanted.push_to_hub is not None:
        await hub_pushes.check(session, project, wanted.push_to_hub)
    job_id = new_id("tr")
    return TrainingJob(
        id=job_id,
        project_id=project.id,
        name=wanted.name or f"training-{job_id[3:9]}",
        description=wanted.description,
        training_technique=technique,
        task_type=wanted.task_type,
        base_model_option=wanted.base_model_option,
        base_model=start.entry.name,
        parent_id=start.parent and start.parent.id,
        base_fine_tuned_model=start.parent and start.parent.name,
        base_fine_tuned_model_checkpoint=start.checkpoint,
        train_dataset=train,
        test_dataset=test,
        train_test_split_ratio=wanted.train_test_split_ratio,
        test_functions=wanted.test_functions,
        reward_functions=reward,
        rebalance_data=wanted.rebalance_data,
        hyper_parameters=parameters,
        timeout_seconds=wanted.timeout_seconds,
        push_to_hub=wanted.push_to_hub and wanted.push_to_hub.model_dump(),
        status="Pending",
        created_by=user_id,
    )


async def _dataset(session: AsyncSession, project: Project, field: str, dataset_id: str, task_type: str) -> Dataset:
    dataset = await session.get(Dataset, dataset_id)
    if dataset is None or dataset.project_id != project.id:
        raise InvalidInput(f"{field}: there is no dataset {dataset_id!r} in project {project.id!r}.")
    if task_type not in dataset.report["compatible_task_types"]:
        reason = dataset.report["misfits"].get(task_type, "")
        raise InvalidInput(f"{field}: the dataset {dataset.name!r} does not fit {task_type}. {reason}".rstrip())
    return dataset


def _check_classes(train: Dataset, test: Dataset | None) -> None:
    """Raise InvalidInput for a training dataset of one class, or a test dataset whose labels it does not have."""
    for dataset in (train, test):
        if dataset is not None and "labels" not in dataset.report:
            raise InvalidInput(f"The dataset {dataset.name!r} was uploaded to an earlier version; upload it again.")
    kind, labels = train.report["label_kind"], train.report["labels"]
    if sum(count > 0 for count in train.report["class_counts"].values()) < 2:
        raise InvalidInput(
            f"train_dataset_id: all rows of the dataset {train.name!r} are of one class; add rows of another."
        )
    if len(labels) > MAX_LABELS:
        raise InvalidInput(
            f"train_dataset_id: the dataset {train.name!r} has {len(labels)} labels, and a classifier at most "
            f"{MAX_LABELS}; join rare ones."
        )
    if test is None:
        return
    unknown = sorted(set(test.report["labels"]) - set(labels))
    if unknown:
        raise InvalidInput(
            f"test_dataset_id: the dataset {test.name!r} has the label {unknown[0][:60]!r}"
            f"{_first_row(test, unknown[0])}, which {train.name!r} does not have; add rows of it there, or leave it "
            "out."
        )
    learnt, asked = train.report["class_counts"], test.report["class_counts"]
    if test.report["label_kind"] == "binary":  # of one label, whose name it may not share with others
        asked = {test.report["labels"][0]: asked["positive"]}
    unseen = [] if kind == "binary" else sorted(name for name in labels if asked.get(name) and not learnt[name])
    if unseen:
        raise InvalidInput(
            f"test_dataset_id: the dataset {test.name!r} has rows of the label {unseen[0][:60]!r}"
            f"{_first_row(test, unseen[0])}, of which {train.name!r} has none; add some there, or leave it out."
        )
    one_each = sum(asked.values()) == test.report["rows"] and test.report["label_kind"] != "multilabel"
    if kind == "multiclass" and not one_each:
        raise InvalidInput(
            f"test_dataset_id: every row of {train.name!r} has exactly one label, but not every row of {test.name!r}."
        )


def _first_row(dataset: Dataset, label: str) -> str:
    """Where it is in the file; nothing of a dataset uploaded to an earlier version."""
    line = dataset.report.get("label_lines", {}).get(label)
    return "" if line is None else f" (first in {dataset.report['number_means'].lower()} {line})"


def _check_early_stopping(parameters: Mapping[str, Any], wanted: TrainingJobCreate) -> None:
    """Raises InvalidInput where its metric is neither the test loss nor one of the job's testing functions, or there
    are no rows to measure it on. GRPO has none.
    """
    metric = parameters.get("early_stopping_metric", TEST_LOSS)
    if metric != TEST_LOSS and metric not in wanted.test_functions:
        raise InvalidInput(
            f"parameters.early_stopping_metric: {metric!r} is neither {TEST_LOSS} nor among test_functions; list it "
            "there too.",
            code="invalid_parameters",
        )
    tested = wanted.test_dataset_id is not None or wanted.train_test_split_ratio is not None
    if parameters.get("early_stopping_patience") and not tested:
        raise InvalidInput(
            "parameters.early_stopping_patience: it is measured on test rows; give test_dataset_id or "
            "train_test_split_ratio.",
            code="invalid_parameters",
        )


def _check_rebalancing(job: TrainingJobCreate, wanted: dict[str, float], train: Dataset) -> None:
    if job.task_type != "classification":
        raise InvalidInput("rebalance_data: it is for the task type classification only.")
    if train.report["label_kind"] == "multilabel":
        raise InvalidInput(
            f"rebalance_data: the rows of {train.name!r} have any number of labels, so they are in no one class."
        )
    there = train.report["class_counts"]
    counts = row_counts(wanted, there, train.report["rows"])
    if empty := [label for label, count in counts.items() if count and not there[label]]:
        raise InvalidInput(
            f"rebalance_data: no row of the dataset {train.name!r} is of the class {empty[0][:60]!r}; add some, or "
            "give it 0."
        )
    if sum(count > 0 for count in counts.values()) < 2:
        raise one_class_left(job.train_test_split_ratio, wanted, job.parameters.get("downsample_size"))


async def get(session: AsyncSession, training_job_id: str, project_id: str | None = None) -> TrainingJob:
    """The job with its datasets, of `project_id` where given. Raises NotFound."""
    job = await session.get(TrainingJob, training_job_id, options=_WITH_DATASETS)
    if job is None or (project_id is not None and job.project_id != project_id):
        raise NotFound(
            f"There is no training job {training_job_id!r}" + (f" in project {project_id!r}." if project_id else ".")
        )
    return job


async def list_all(session: AsyncSession, project_id: str, wanted: Page) -> Sequence[TrainingJob]:
    """The project's jobs with their datasets, the newest first, without what lists do not show."""
    datasets = (joinedload(dataset).load_only(Dataset.name) for dataset in _DATASETS)
    large = (TrainingJob.training_loss, TrainingJob.hyper_parameters, TrainingJob.description)
    left_out = (defer(column, raiseload=True) for column in large)
    query = select(TrainingJob).where(TrainingJob.project_id == project_id).options(*datasets, *left_out)
    return [row for (row,) in await fetch(session, query, TrainingJob, wanted)]


async def settle_parameters(
    session: AsyncSession, training_job_id: str, chosen: Mapping[str, Any], why: str
) -> dict[str, Any]:
    """Put `chosen` in place of hyperparameters that are `auto`, and of a longer max_length, and tell why; returns all
    hyperparameters. Those that an earlier run has chosen stay.
    """
    job = await session.get_one(TrainingJob, training_job_id, with_for_update=True)
    before = job.hyper_parameters
    if any(before[name] == AUTO for name in chosen) or chosen.get("max_length", math.inf) < before["max_length"]:
        job.hyper_parameters = {**job.hyper_parameters, **chosen}
        await job_events.record(session, training_job_id, "chosen", **chosen, reason=why)
    return job.hyper_parameters


async def record_loss(session: AsyncSession, training_job_id: str, point: dict[str, Any]) -> None:
    """Append one point to the job's `training_loss`; a step that is logged again after a resume counts once."""
    known = TrainingJob.training_loss.contains([{"step": point["step"]}])
    await session.execute(
        update(TrainingJob)
        .where(TrainingJob.id == training_job_id, ~known)
        .values(training_loss=TrainingJob.training_loss + cast([point], JSONB))
    )


async def record_progress(session: AsyncSession, training_job_id: str, percent: int) -> None:
    """Set the job's progress; it never goes back."""
    await session.execute(
        update(TrainingJob)
        .where(TrainingJob.id == training_job_id)
        .values(progress=func.greatest(TrainingJob.progress, percent))
    )


async def record_completion(session: AsyncSession, training_job_id: str) -> None:
    """Note that the job's run got something done, so that crashes are counted anew."""
    await session.execute(update(TrainingJob).where(TrainingJob.id == training_job_id).values(crashes=0))


async def record_checkpoint(session: AsyncSession, training_job_id: str, number: int, **values: Any) -> None:
    """List a complete checkpoint, or add what became known about it; columns as in `Checkpoint`."""
    await record_completion(session, training_job_id)
    row = insert(Checkpoint).values(training_job_id=training_job_id, number=number, **values)
    await session.execute(
        row.on_conflict_do_update(
            index_elements=["training_job_id", "number"], set_={**values, "updated_at": func.now()}
        )
    )


async def forget_results(session: AsyncSession, training_job_id: str, keep: str) -> None:
    """Have the job's checkpoints count as not tested, but for those whose results lie below the key `keep`."""
    await session.execute(
        update(Checkpoint)
        .where(Checkpoint.training_job_id == training_job_id, ~Checkpoint.results_artifact.startswith(f"{keep}/"))
        .values(results_artifact=None, scores=null(), report=null())
    )


async def record_best(session: AsyncSession, training_job_id: str, number: int) -> None:
    """Set the job's best checkpoint."""
    await session.execute(
        update(TrainingJob).where(TrainingJob.id == training_job_id).values(best_checkpoint=number, progress=100)
    )


async def checkpoints(
    session: AsyncSession, training_job_id: str, *, limit: int | None = None, after: int = 0
) -> Sequence[Checkpoint]:
    """The job's complete checkpoints in their order, at most `limit` of them, from behind number `after`."""
    query = select(Checkpoint).where(Checkpoint.training_job_id == training_job_id, Checkpoint.number > after)
    return (await session.scalars(query.order_by(Checkpoint.number).limit(limit))).all()


async def delete(session: AsyncSession, job: TrainingJob, *, force: bool) -> None:
    """Forget an ended job and its checkpoints. Raises InvalidInput while it runs, something of it is deployed, or a
    job that has not ended starts from it; without `force` also where an ended one did.
    """
    if job.status not in TERMINAL:
        raise InvalidInput(f"The training job {job.id} is {job.status}; cancel it first.")
    live = select(Deployment.id).where(Deployment.training_job_id == job.id, Deployment.status.not_in(GONE))
    deployment_id = (await session.scalars(live.limit(1))).first()
    if deployment_id is not None:
        raise InvalidInput(f"The deployment {deployment_id} serves the training job {job.id}; delete that first.")
    # From here on no new job can start from it.
    await session.execute(select(TrainingJob.id).where(TrainingJob.id == job.id).with_for_update())
    children = (await session.scalars(select(TrainingJob).where(TrainingJob.parent_id == job.id))).all()
    if needed := [child.id for child in children if child.status not in TERMINAL]:
        raise InvalidInput(
            f"The training job {needed[0]} starts from {job.id} and has not ended; wait for it, or cancel it first."
        )
    if children and not force:
        names = ", ".join(sorted(child.id for child in children))
        raise InvalidInput(
            f"From {job.id} started: {names}. They keep their own checkpoints, but cannot be resumed without it. "
            "To delete it all the same, add ?force=true (on the command line --force)."
        )
    await session.execute(update(TrainingJob).where(TrainingJob.parent_id == job.id).values(parent_id=None))
    await session.execute(update(Deployment).where(Deployment.training_job_id == job.id).values(training_job_id=None))
    await session.execute(sql_delete(Checkpoint).where(Checkpoint.training_job_id == job.id))
    await session.execute(sql_delete(JobEvent).where(JobEvent.training_job_id == job.id))
    await leases.forget(session, [job.id])
    await session.delete(job)
