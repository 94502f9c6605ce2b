"""What runs of pipelines fetched from elsewhere than the project's datasets."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.schemas.sources import HubSource, UrlSource
from emissary.store import pipeline_runs, pipelines
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Dataset, Json, Organization, Project


@dataclass(frozen=True)
class Before:
    """What a run that fetches has to know."""

    organization: str
    """Name of the run's organization."""
    origins: Sequence[Json]
    """Where the data of runs that came to a decision was from, the oldest first; of a file on the web and a dataset of
    the hub, which are fetched anew after a change, since the pipeline was changed.
    """
    contents: frozenset[str]
    """SHA-256 of everything that they used since the pipeline was changed."""


async def before(session: AsyncSession, run_id: str) -> Before | None:
    """What was fetched before this run, which from now on looks for what is new; None where it has fetched already."""
    run = await pipeline_runs.locked(session, run_id)
    if run.gathered is not None:
        return None
    run.looked = True
    pipeline = await pipelines.get(session, run.pipeline_id)
    had = await _entries(session, run.pipeline_id, pipelines.had_before(pipeline))
    fetched = had
    if not isinstance(pipelines.config(pipeline).gather, UrlSource | HubSource):
        fetched = await _entries(session, run.pipeline_id, PipelineRun.outcome.in_(pipelines.DECIDED))
    organization = select(Organization.name).join(Project).where(Project.id == run.project_id)
    return Before(
        organization=(await session.scalars(organization)).one(),
        origins=[origin for entry in fetched for origin in (entry.get("origin"), *entry.get("also", [])) if origin],
        contents=frozenset(entry["sha256"] for entry in had),
    )


async def with_content(session: AsyncSession, project_id: str, sha256: str) -> Dataset | None:
    """The project's newest dataset of this content."""
    query = select(Dataset).where(Dataset.project_id == project_id, Dataset.sha256 == sha256)
    return (await session.scalars(query.order_by(Dataset.created_at.desc()).limit(1))).first()


async def note(
    session: AsyncSession, run_id: str, dataset: Dataset, origin: Json, merge: bool, beside: Collection[str] = ()
) -> None:
    """Have the run use what it fetched, `dataset`, which comes into the catalogue with that; the datasets `beside` it;
    and with `merge` also what the pipeline fetched before and still fits.
    """
    run = await pipeline_runs.locked(session, run_id)
    if await session.get(Dataset, dataset.id) is None:
        session.add(dataset)
        await session.flush()
    others = set(beside)
    if merge:
        others |= {entry["id"] for entry in await _entries(session, run.pipeline_id) if "origin" in entry}
    wanted = pipelines.config(await pipelines.get(session, run.pipeline_id))
    query = select(Dataset).where(Dataset.id.in_(others - {dataset.id})).order_by(Dataset.created_at, Dataset.id)
    older = [row for row in await session.scalars(query) if not pipelines.misfit(row, wanted.train.task_type)]
    run.gathered = [
        *({"id": row.id, "sha256": row.sha256} for row in older),
        {"id": dataset.id, "sha256": dataset.sha256, "origin": origin},
    ]


async def note_known(session: AsyncSession, run_id: str, sha256: str, origin: Json) -> None:
    """Have the last run that used this content know that it is from `origin` too: it is not fetched there again."""
    run = await session.get_one(PipelineRun, run_id)
    query = select(PipelineRun).where(
        pipelines.had_before(await pipelines.get(session, run.pipeline_id)),
        PipelineRun.gathered.contains([{"sha256": sha256}]),
    )
    newest = query.order_by(PipelineRun.created_at.desc()).limit(1).with_for_update(key_share=True)
    used = (await session.scalars(newest)).first()
    if used is not None:
        used.gathered = [
            entry | {"also": [*entry.get("also", []), origin]} if entry["sha256"] == sha256 else entry
            for entry in used.gathered or []
        ]


async def _entries(session: AsyncSession, pipeline_id: str, *conditions: ColumnElement[bool]) -> list[Json]:
    """What the pipeline's runs gathered, the oldest first."""
    query = select(PipelineRun.gathered).where(PipelineRun.pipeline_id == pipeline_id, *conditions)
    found = await session.scalars(query.order_by(PipelineRun.created_at, PipelineRun.id))
    return [entry for entries in found for entry in entries or []]
