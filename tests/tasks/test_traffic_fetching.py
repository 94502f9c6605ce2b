"""A run's data from captured traffic: what was reviewed since the last decision, and what is trained on beside it."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import InvalidInput
from emissary.store import traffic
from emissary.store.artifacts import artifact_store
from emissary.store.database import dispose, transaction
from emissary.store.tables import Dataset, Deployment, Engine, Project, TrafficEntry
from tests.catalogue import in_catalogue
from tests.own_home import own_catalogue
from tests.tasks.fetching_runs import Runs


@pytest.fixture(scope="module", autouse=True)
def catalogue() -> Iterator[None]:
    with own_catalogue(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.fetching.require_lease", lambda: None)  # no flow run has one here
        yield


class Captured(Runs):
    """Runs of a pipeline that gathers the traffic of a deployment for regression."""

    def __init__(self, name: str, **gather: Any) -> None:
        source = {"source": "traffic", "deployment_id": f"dp-{name}"} | gather
        super().__init__(name, source, task_type="regression", base_model="all-MiniLM-L6-v2")
        self.deployment = Deployment(
            id=f"dp-{name}", project_id=f"ms-{name}", name=name, base_model="all-MiniLM-L6-v2", checkpoint=1,
            task_type="regression", engine_id=f"engine-{name}", status="Deployed", created_by=self.pipeline.created_by,
        )  # fmt: skip

        async def fill(session: AsyncSession) -> None:
            owner = (await session.get_one(Project, f"ms-{name}")).organization_id
            self.deployment.organization_id = owner
            engine = Engine(
                id=f"engine-{name}", organization_id=owner, name=name, base_model="all-MiniLM-L6-v2",
                task_type="regression", resource_management_config={}, status="Inactive",
                created_by=self.pipeline.created_by,
            )  # fmt: skip
            session.add(engine)
            await session.flush()
            session.add(self.deployment)

        in_catalogue(fill)

    def answer(self, text: str, number: float) -> str:
        """Id of the entry of an answer."""
        entry = TrafficEntry(
            id=f"te-{self.name}-{text}", deployment_id=self.deployment.id, answer_id=text, position=0,
            input={"prompt": text}, output=number, expires_at=datetime.now(UTC) + timedelta(days=1),
        )  # fmt: skip

        async def add(session: AsyncSession) -> None:
            session.add(entry)

        in_catalogue(add)
        return entry.id

    def correct(self, entry: str, number: float) -> None:
        in_catalogue(lambda session: traffic.correct(session, self.deployment, entry, number, self.pipeline.created_by))

    def accept(self, entry: str) -> None:
        in_catalogue(lambda session: traffic.accept(session, self.deployment, entry, self.pipeline.created_by))

    def fetched(self) -> dict[str, float] | None:
        """The rows that a new run, which comes to a decision, fetches; None where nothing is new to it."""
        run = self.begin()
        if not self.fetch(run):
            return None
        *_, newest = self.gathered(run) or []
        self.decide(run)
        return rows(newest)


def rows(dataset_id: str) -> dict[str, float]:
    artifact = in_catalogue(lambda session: session.get_one(Dataset, dataset_id)).artifact
    folder: Path = artifact_store().folder(artifact)
    found = [json.loads(line) for line in (folder / "original.jsonl").read_text().splitlines()]
    return {row["prompt"]: row["completion"] for row in found}


def test_only_what_was_reviewed_since_the_last_decision_is_new() -> None:
    runs = Captured("reviews")
    first, second, third = (runs.answer(text, 1) for text in ("a", "b", "c"))
    assert runs.fetched() is None
    runs.correct(first, 5)
    runs.accept(second)
    failed = runs.begin()
    assert runs.fetch(failed)  # and comes to no decision
    assert runs.fetched() == {"a": 5, "b": 1}
    assert runs.fetched() is None
    runs.correct(third, 7)
    runs.answer("d", 1)
    assert runs.fetched() == {"c": 7}
    runs.correct(first, 6)  # it was not right yet
    assert runs.fetched() == {"a": 6}
    runs.accept(first)
    runs.correct(first, 6)
    assert runs.fetched() is None  # by its content
    (name,) = {row.name for row in runs.datasets() if row.id == runs.gathered(failed)[0]}  # type: ignore[index]
    assert name == "reviews-review-new"


@pytest.mark.parametrize(
    ("only", "wanted"),
    [("corrected", {"a": 5}), ("reviewed", {"a": 5, "b": 1}), ("all", {"a": 5, "b": 1, "c": 1})],
)
def test_pipeline_says_what_of_it_counts(only: str, wanted: dict[str, float]) -> None:
    runs = Captured(f"only-{only}", only=only)
    runs.correct(runs.answer("a", 1), 5)
    runs.accept(runs.answer("b", 1))
    runs.answer("c", 1)
    assert runs.fetched() == wanted


def test_other_choice_finds_what_the_one_before_left_out() -> None:
    runs = Captured("widened", only="corrected")
    runs.accept(runs.answer("a", 1))
    runs.correct(runs.answer("b", 1), 5)
    assert runs.fetched() == {"b": 5}
    source = runs.wanted.gather.model_copy(update={"only": "reviewed"})
    runs.wanted = runs.wanted.model_copy(update={"gather": source})
    assert runs.fetched() == {"a": 1, "b": 5}


def test_merging_adds_what_was_gathered_before_and_named_datasets_are_beside_it_each_time() -> None:
    plain = Captured("beside")
    entry = plain.answer("a", 1)
    plain.accept(entry)
    assert plain.fetched() == {"a": 1}
    (base,) = (row.id for row in plain.datasets())

    named = plain.wanted.gather.model_copy(update={"datasets": [base], "merge": True})
    plain.wanted = plain.wanted.model_copy(update={"gather": named})
    plain.correct(plain.answer("b", 1), 2)
    plain.fetch(second := plain.begin())
    plain.decide(second)
    plain.correct(plain.answer("c", 1), 3)
    plain.fetch(third := plain.begin())
    assert plain.gathered(second) == [base, plain.datasets()[1].id]
    assert [rows(found) for found in plain.gathered(third) or []] == [{"a": 1}, {"b": 2}, {"c": 3}]


def test_run_fails_and_says_so_where_the_deployment_or_a_named_dataset_is_gone() -> None:
    runs = Captured("gone", datasets=["ds-gone"])
    runs.accept(runs.answer("a", 1))
    with pytest.raises(InvalidInput, match=r"^gather\.datasets: there is no dataset 'ds-gone'"):
        runs.fetched()
    runs.wanted = runs.wanted.model_copy(update={"gather": runs.wanted.gather.model_copy(update={"datasets": None})})

    async def end(session: AsyncSession) -> None:
        (await session.get_one(Deployment, runs.deployment.id)).status = "Terminated"

    in_catalogue(end)
    with pytest.raises(InvalidInput, match=r"^gather\.deployment_id: 'gone' is Terminated"):
        runs.fetched()
    assert runs.datasets() == []


def test_review_that_is_not_committed_yet_is_not_passed_over() -> None:
    """A run waits for reviews that have begun, so none has an older revision than the run's and comes later."""
    runs = Captured("waiting")
    slow, quick = (runs.answer(text, 1) for text in ("slow", "quick"))
    user = runs.pipeline.created_by

    async def settled() -> int:
        async with transaction() as session:
            return await traffic.settled(session, runs.wanted.gather, "ms-waiting", "regression")

    async def reviewed_meanwhile() -> tuple[int, int]:
        async with transaction() as session:
            older = (await traffic.accept(session, runs.deployment, slow, user)).revision
            async with transaction() as other:
                newer = (await traffic.accept(other, runs.deployment, quick, user)).revision
            assert older < newer
            waiting = asyncio.create_task(settled())
            done, _ = await asyncio.wait({waiting}, timeout=0.5)
            assert not done
        found = await waiting
        await dispose()
        return found, newer

    found, newest = asyncio.run(reviewed_meanwhile())
    assert found == newest
    assert runs.fetched() == {"slow": 1, "quick": 1}
