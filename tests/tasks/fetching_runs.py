"""Runs of a pipeline that fetch their data, in a catalogue of the test's own."""

import asyncio
from typing import Any

from prefect.logging import disable_run_logger
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.schemas.pipelines import PipelineCreate
from emissary.store import pipelines
from emissary.store.database import dispose
from emissary.store.pipeline_tables import Pipeline, PipelineRun
from emissary.store.tables import Dataset, Project
from emissary.store.users import ensure_user
from tasks.fetching import fetch
from tests.catalogue import in_catalogue

TRAIN = {"base_model": "SmolLM2-135M-Instruct", "test_functions": ["exact_match_shared"]}


class Runs:
    """Runs of one pipeline in a project of its own."""

    def __init__(self, name: str, gather: dict[str, Any], **train: Any) -> None:
        self.name, self.count = name, 0
        wanted = PipelineCreate(name=name, gather=gather, train=TRAIN | train, train_test_split_ratio=50)

        async def fill(session: AsyncSession) -> None:
            user = await ensure_user(session, "somebody")
            session.add(Project(id=f"ms-{name}", organization_id=user.organization_id, name=name, created_by=user.id))
            await session.flush()
            self.pipeline = Pipeline(
                id=f"pl-{name}", project_id=f"ms-{name}", name=name, paused=False,
                config=wanted.model_dump(mode="json"), created_by=user.id,
            )  # fmt: skip
            session.add(self.pipeline)

        self.wanted = wanted
        in_catalogue(fill)

    def begin(self) -> PipelineRun:
        self.count += 1
        run = PipelineRun(
            id=f"pr-{self.name}-{self.count:06}", project_id=f"ms-{self.name}", pipeline_id=self.pipeline.id,
            trigger="request", status="Running", created_by=self.pipeline.created_by,
        )  # fmt: skip

        async def add(session: AsyncSession) -> None:
            session.add(run)

        in_catalogue(add)
        return run

    def fetch(self, run: PipelineRun) -> bool:
        async def work() -> bool:
            try:
                return await fetch(run, self.pipeline, self.wanted, self.wanted.gather)
            finally:
                await dispose()

        with disable_run_logger():
            return asyncio.run(work())

    def change(self, **fields: Any) -> None:
        """As a PUT of the pipeline with other fields does."""
        self.wanted = PipelineCreate.model_validate(self.wanted.model_dump() | fields)

        async def write(session: AsyncSession) -> Pipeline:
            project = await session.get_one(Project, f"ms-{self.name}")
            return await pipelines.replace(session, project, self.pipeline.id, self.wanted, self.pipeline.created_by)

        self.pipeline = in_catalogue(write)

    def gathered(self, run: PipelineRun) -> list[str] | None:
        """Ids of the datasets that the run uses."""
        found = in_catalogue(lambda session: session.get_one(PipelineRun, run.id)).gathered
        return None if found is None else [entry["id"] for entry in found]

    def decide(self, run: PipelineRun, outcome: str = "NotPromoted") -> None:
        async def write(session: AsyncSession) -> None:
            (await session.get_one(PipelineRun, run.id)).outcome = outcome

        in_catalogue(write)

    def datasets(self) -> list[Dataset]:
        async def look(session: AsyncSession) -> list[Dataset]:
            query = select(Dataset).where(Dataset.project_id == f"ms-{self.name}")
            return list(await session.scalars(query.order_by(Dataset.created_at)))

        return in_catalogue(look)
