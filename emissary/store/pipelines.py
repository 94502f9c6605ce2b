"""Queries of pipelines, and the checks that one can run as it is."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, func, select, true
from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput, NotFound
from emissary.ids import new_id
from emissary.schemas.grpo_jobs import GrpoJobCreate
from emissary.schemas.pipelines import PipelineCreate, PipelineTraining
from emissary.schemas.sources import DatasetsSource, S3Source, TrafficSource
from emissary.store import (
    deployments,
    grpo_jobs,
    hub_pushes,
    leases,
    leftovers,
    testing_functions,
    traffic,
    training_jobs,
)
from emissary.store.pages import Page, fetch
from emissary.store.pipeline_tables import Pipeline, PipelineRun
from emissary.store.tables import GONE, Dataset, Deployment, Leftover, Project, TrainingJob

LIVE = ("Pending", "Running")
"""Status of runs that have not ended."""
DECIDED = ("Promoted", "NotPromoted", "RolledBack")
"""Outcomes of runs that came to a decision."""

_AMPLE_ROWS = 10**9


async def create(session: AsyncSession, project: Project, wanted: PipelineCreate, user_id: str) -> Pipeline:
    """A new pipeline. Raises InvalidInput as `check`, and where the project has one of that name."""
    await check(session, project, wanted, user_id)
    pipeline = Pipeline(id=new_id("pl"), project_id=project.id, created_by=user_id)
    _fill(pipeline, wanted)
    session.add(pipeline)
    await _flush(session, wanted)
    return pipeline


async def replace(
    session: AsyncSession, project: Project, pipeline_id: str, wanted: PipelineCreate, user_id: str
) -> Pipeline:
    """The pipeline with these fields instead, from its next run on. Raises NotFound; InvalidInput as `create`."""
    pipeline = await get(session, pipeline_id, project.id)
    await check(session, project, wanted, user_id)
    if _made_of_data(config(pipeline)) != _made_of_data(wanted):
        pipeline.changed_at = func.now()
    _fill(pipeline, wanted)
    await _flush(session, wanted)
    await session.refresh(pipeline)
    return pipeline


async def pause(session: AsyncSession, project: Project, pipeline_id: str, paused: bool) -> Pipeline:
    """Suspend the pipeline's schedule, or have it go on. Raises NotFound."""
    pipeline = await get(session, pipeline_id, project.id)
    _fill(pipeline, config(pipeline).model_copy(update={"paused": paused}))
    await session.flush()
    return pipeline


def config(pipeline: Pipeline) -> PipelineCreate:
    """What the pipeline is to do."""
    return PipelineCreate.model_validate(pipeline.config)


def _made_of_data(wanted: PipelineCreate) -> dict[str, Any]:
    """What a change of makes a run with the data of an earlier one come to something else."""
    return wanted.model_dump(mode="json", exclude={"name", "description", "schedule", "triggers", "paused", "watch"})


def had_before(pipeline: Pipeline) -> ColumnElement[bool]:
    """Runs of the pipeline whose data is not new any more: they came to a decision, and by what it is to do now."""
    since = true() if pipeline.changed_at is None else PipelineRun.created_at > pipeline.changed_at
    return and_(PipelineRun.pipeline_id == pipeline.id, PipelineRun.outcome.in_(DECIDED), since)


def _fill(pipeline: Pipeline, wanted: PipelineCreate) -> None:
    pipeline.name, pipeline.paused, pipeline.config = wanted.name, wanted.paused, wanted.model_dump(mode="json")


async def _flush(session: AsyncSession, wanted: PipelineCreate) -> None:
    try:
        await session.flush()
    except IntegrityError as error:
        if "pipelines_project_name" not in str(error.orig):
            raise
        raise InvalidInput(f"name: there is a pipeline {wanted.name!r} already; choose another name.") from error


async def get(session: AsyncSession, pipeline_id: str, project_id: str | None = None) -> Pipeline:
    """The pipeline, of `project_id` where given. Raises NotFound."""
    pipeline = await session.get(Pipeline, pipeline_id)
    if pipeline is None or (project_id is not None and pipeline.project_id != project_id):
        raise NotFound(
            f"There is no pipeline {pipeline_id!r}" + (f" in project {project_id!r}." if project_id else ".")
        )
    return pipeline


async def locked(session: AsyncSession, pipeline_id: str) -> Pipeline:
    """The pipeline; until the transaction ends nobody else changes or deletes it, or begins a run. Raises NotFound."""
    pipeline = await session.get(Pipeline, pipeline_id, with_for_update={"key_share": True})
    if pipeline is None:
        raise NotFound(f"There is no pipeline {pipeline_id!r}.")
    return pipeline


async def list_all(session: AsyncSession, project_id: str, wanted: Page) -> Sequence[Pipeline]:
    """The project's pipelines, the newest first."""
    query = select(Pipeline).where(Pipeline.project_id == project_id)
    return [row for (row,) in await fetch(session, query, Pipeline, wanted)]


async def delete(session: AsyncSession, project: Project, pipeline_id: str) -> Sequence[Leftover]:
    """Forget the pipeline and its runs; what these trained stays. Returns what they leave outside the catalogue.

    Raises NotFound, and InvalidInput while a run has not ended.
    """
    pipeline = await get(session, pipeline_id, project.id)
    await session.execute(select(Pipeline.id).where(Pipeline.id == pipeline.id).with_for_update())
    runs = (await session.scalars(select(PipelineRun).where(PipelineRun.pipeline_id == pipeline.id))).all()
    if live := [run.id for run in runs if run.status in LIVE]:
        raise InvalidInput(f"The run {live[0]} of the pipeline has not ended; cancel it first.")
    left = [leftovers.of_pipeline_run(run.id) for run in runs]
    await leases.forget(session, [run.id for run in runs])
    await session.execute(sql_delete(PipelineRun).where(PipelineRun.pipeline_id == pipeline.id))
    await session.delete(pipeline)
    await leftovers.add(session, left)
    return left


async def check(session: AsyncSession, project: Project, wanted: PipelineCreate, user_id: str) -> None:
    """Raises InvalidInput, naming the field, for anything that a run with the datasets there are now would fail for;
    where its data is fetched from elsewhere, whatever that is.
    """
    source = wanted.gather
    if isinstance(source, TrafficSource):
        await traffic.check_source(session, source, project.id, wanted.train.task_type)
    if isinstance(source, DatasetsSource):
        train = _together(await gathered(session, project.id, wanted))
    elif isinstance(source, TrafficSource) and source.datasets:
        train = _together(await named(session, project.id, wanted, source.datasets, "gather.datasets"))
    else:
        train = await _stand_in(session, project.id, wanted)
    if (wanted.test_dataset_id is None) == (wanted.train_test_split_ratio is None):
        raise InvalidInput("test_dataset_id: give it or train_test_split_ratio, for the gate compares on test rows.")
    job = await composed(session, project, wanted, train, user_id)
    await _check_gate(session, project, wanted)
    if wanted.triggers.on_dataset and not (
        isinstance(wanted.gather, DatasetsSource) and isinstance(wanted.gather.datasets, str)
    ):
        raise InvalidInput(
            "triggers.on_dataset: a new dataset is not among what is gathered; give gather.datasets newest or all."
        )
    if wanted.deployment_id is not None:
        await champion(session, project.id, wanted.deployment_id, job)


async def gathered(
    session: AsyncSession, project_id: str, wanted: PipelineCreate, requested: Sequence[str] | None = None
) -> Sequence[Dataset]:
    """The datasets that a run uses now, the oldest first: those `requested`, or else those that the pipeline names;
    none where its data is fetched from elsewhere.

    Raises InvalidInput where there is none to name, or one that is named is not there or does not fit.
    """
    chosen = wanted.gather.datasets if isinstance(wanted.gather, DatasetsSource) else None
    ids = requested or (chosen if isinstance(chosen, list) else None)
    if ids is not None:
        return await named(session, project_id, wanted, ids, "datasets" if requested else "gather.datasets")
    if chosen is None:
        return []
    made = select(PipelineRun.train_dataset_id).where(PipelineRun.merged, PipelineRun.train_dataset_id.is_not(None))
    query = select(Dataset).where(Dataset.project_id == project_id).order_by(Dataset.created_at, Dataset.id)
    found = await session.scalars(query.where(Dataset.id.not_in(made), Dataset.id != (wanted.test_dataset_id or "")))
    fitting = [row for row in found if not misfit(row, wanted.train.task_type)]
    if not fitting:
        raise InvalidInput(
            f"gather: the project {project_id!r} has no dataset for {wanted.train.task_type} beside the test dataset; "
            "upload one first."
        )
    return fitting[-1:] if chosen == "newest" else fitting


async def named(
    session: AsyncSession, project_id: str, wanted: PipelineCreate, ids: Sequence[str], field: str
) -> Sequence[Dataset]:
    """The datasets of these ids, the oldest first. Raises InvalidInput, naming the field, where one is not there, does
    not fit, or is the test dataset.
    """
    query = select(Dataset).where(Dataset.project_id == project_id, Dataset.id.in_(ids))
    rows = {row.id: row for row in await session.scalars(query.order_by(Dataset.created_at, Dataset.id))}
    for dataset_id in ids:
        if dataset_id not in rows:
            raise InvalidInput(f"{field}: there is no dataset {dataset_id!r} in project {project_id!r}.")
        if dataset_id == wanted.test_dataset_id:
            raise InvalidInput(f"{field}: {dataset_id!r} is the test dataset; training on it would tell nothing.")
        if reason := misfit(rows[dataset_id], wanted.train.task_type):
            raise InvalidInput(f"{field}: {reason}")
    return list(rows.values())


def object_keys(wanted: PipelineCreate, objects: Sequence[str]) -> list[str]:
    """The keys of objects that a run names by key or s3:// URI, each once. Raises InvalidInput where the pipeline's
    source is not s3, or one is not within its prefix.
    """
    source = wanted.gather
    if not isinstance(source, S3Source):
        raise InvalidInput(
            f"objects: the pipeline's source is {source.source}, which has no objects in S3; leave them out."
        )
    bucket = f"s3://{source.uri.removeprefix('s3://').partition('/')[0]}/"
    uris = {each: each if each.startswith("s3://") else f"{bucket}{each}" for each in objects}
    for each, uri in uris.items():
        if not (uri.startswith(bucket) and uri.startswith(source.uri)):
            raise InvalidInput(
                f"objects: {each!r} is not within {source.uri}, the pipeline's source; name one that is."
            )
    return list(dict.fromkeys(uri.removeprefix(bucket) for uri in uris.values()))


def misfit(dataset: Dataset, task_type: str) -> str | None:
    """Why the dataset cannot be used for the task type; None where it can."""
    if task_type in dataset.report["compatible_task_types"]:
        return None
    reason = dataset.report["misfits"].get(task_type, "")
    return f"the dataset {dataset.name!r} does not fit {task_type}. {reason}".rstrip()


def _together(rows: Sequence[Dataset]) -> Dataset:
    """The dataset that these make together, as far as their reports tell; not in the catalogue."""
    if len(rows) == 1:
        return rows[0]
    report = rows[-1].report | {"rows": sum(row.report["rows"] for row in rows)}
    if all("labels" in row.report for row in rows):
        kinds = {row.report["label_kind"] for row in rows}
        report["label_kind"] = kinds.pop() if len(kinds) == 1 else "multilabel"  # which is that nothing is known
        report["labels"] = sorted({label for row in rows for label in row.report["labels"]})
        counts: Counter[str] = Counter()
        for row in rows:
            counts.update(row.report["class_counts"])
        report["class_counts"] = dict(counts)
    return Dataset(id=rows[-1].id, project_id=rows[-1].project_id, name=rows[-1].name, report=report)


async def _stand_in(session: AsyncSession, project_id: str, wanted: PipelineCreate) -> Dataset:
    """In place of data that is not there yet, one with as many rows as anybody may want, of the test dataset's classes.

    Raises InvalidInput where more has to be known of the classes than nobody knows without a test dataset.
    """
    test = await session.get(Dataset, wanted.test_dataset_id) if wanted.test_dataset_id is not None else None
    if test is not None and test.project_id == project_id:
        report = dict(test.report)
    elif wanted.train.task_type == "classification" and (
        wanted.train.rebalance_data is not None or wanted.train.base_model_option == "fine-tuned"
    ):
        raise InvalidInput(
            "gather: the classes are not known before the first run, so rebalance_data and a fine-tuned base model "
            "cannot be checked; give test_dataset_id, whose classes count until then."
        )
    else:
        counts = {"a": 1, "b": 1}
        report = {"label_kind": "multiclass", "labels": list(counts), "class_counts": counts}
    return Dataset(id="ds-", project_id=project_id, name="the data to come", report=report | {"rows": _AMPLE_ROWS})


async def composed(
    session: AsyncSession, project: Project, wanted: PipelineCreate, train: Dataset, user_id: str
) -> TrainingJob:
    """The job that a run trains on this dataset, not in the catalogue yet. Raises InvalidInput as `training_jobs`
    and `grpo_jobs` do, naming the pipeline's field.
    """
    request = wanted.job(train.id)
    try:
        if wanted.train.push_to_hub is not None:
            await hub_pushes.check(session, project, wanted.train.push_to_hub)
        if isinstance(request, GrpoJobCreate):
            return await grpo_jobs.composed(session, project, request, user_id, train)
        return await training_jobs.composed(session, project, request, user_id, train=train)
    except InvalidInput as error:
        field = str(error).partition(":")[0].partition(".")[0].partition("[")[0]
        inside = "train." if field in PipelineTraining.model_fields else ""
        raise InvalidInput(f"{inside}{error}", error.code) from error


async def champion(session: AsyncSession, project_id: str, deployment_id: str, job: TrainingJob) -> Deployment:
    """The deployment that a checkpoint of `job` may replace the checkpoint of.

    Raises InvalidInput where it is not there or gone, or serves another base model or task type.
    """
    try:
        row = await deployments.get(session, deployment_id, project_id)
    except NotFound as error:
        raise InvalidInput(f"deployment_id: {error}") from error
    if row.status in GONE:
        raise InvalidInput(f"deployment_id: {row.name!r} is {row.status}; name one that is served.")
    if (row.base_model, row.task_type) != (job.base_model, job.task_type):
        raise InvalidInput(
            f"deployment_id: {row.name!r} serves {row.base_model} for {row.task_type}, which {job.base_model} for "
            f"{job.task_type} cannot replace in place; name another, or train that."
        )
    return row


async def _check_gate(session: AsyncSession, project: Project, wanted: PipelineCreate) -> None:
    tested = wanted.train.test_functions
    for name in wanted.gate.minimum_score:
        if name in tested:
            continue
        try:
            await testing_functions.find(session, project.organization_id, name)
        except NotFound as error:
            raise InvalidInput(
                f"gate.minimum_score: there is no testing function {name[:100]!r}; name some of those in "
                f"train.test_functions: {', '.join(tested)}."
            ) from error
        raise InvalidInput(f"gate.minimum_score: {name[:100]!r} is not among train.test_functions; list it there too.")
    if wanted.gate.class_tolerance is not None and wanted.train.task_type != "classification":
        raise InvalidInput(f"gate.class_tolerance: {wanted.train.task_type} has no classes; leave it out.")
