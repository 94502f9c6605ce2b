"""What an upload stores is in the catalogue, or is removed, also where the process that stores it dies in between."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from emissary.api import deleting
from emissary.store import leftovers
from emissary.store.artifacts import artifact_store
from emissary.store.database import transaction
from emissary.store.tables import Leftover
from tests.api.backends import Backends
from tests.api.refusals import GOOD


@pytest.fixture(scope="module")
def project(backends: Backends) -> str:
    return str(backends.request("POST", "/v1/projects", json={"name": "coming"}).json()["id"])


@pytest.fixture(autouse=True)
def no_notes_of_other_tests(backends: Backends) -> None:
    async def forget() -> None:
        async with transaction() as session:
            await session.execute(text("DELETE FROM leftovers"))

    backends.run(forget())


async def notes() -> list[Any]:
    async with transaction() as session:
        return [row for (row,) in await session.execute(text("SELECT id FROM leftovers WHERE id LIKE 'ds-%'"))]


async def stored() -> list[str]:
    return artifact_store().keys("datasets")


def upload(backends: Backends, project: str, content: bytes) -> Any:
    return backends.request("POST", f"/v1/projects/{project}/datasets", files={"file": ("rows.jsonl", content)})


@pytest.mark.parametrize(("content", "status"), [(GOOD * 4, 201), (b"{", 400)])
def test_upload_that_is_answered_leaves_no_note(backends: Backends, project: str, content: bytes, status: int) -> None:
    assert upload(backends, project, content).status_code == status
    assert backends.run(notes()) == []


def test_upload_whose_row_cannot_be_written_leaves_nothing(
    backends: Backends, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(backends, project, GOOD * 4)
    before = backends.run(stored())

    async def broken(*_: Any) -> Any:
        raise RuntimeError("the catalogue broke")

    monkeypatch.setattr("emissary.api.routes.datasets.pipeline_triggers.dataset_uploaded", broken)
    with pytest.raises(RuntimeError, match="the catalogue broke"):
        upload(backends, project, GOOD * 4)
    assert before
    assert backends.run(stored()) == before
    assert backends.run(notes()) == []


def test_what_a_dead_process_stored_goes_after_an_hour(backends: Backends, project: str) -> None:
    dataset = upload(backends, project, GOOD * 4).json()["id"]

    async def as_if_it_had_died() -> Leftover:
        coming = leftovers.of_coming_dataset(dataset)
        async with transaction() as session:
            await session.execute(text("DELETE FROM datasets WHERE id = :id"), {"id": dataset})
            await leftovers.add(session, [coming])
        return coming

    async def an_hour_later() -> None:
        async with transaction() as session:
            row = await session.get_one(Leftover, dataset)
            row.created_at = datetime.now(UTC) - timedelta(seconds=61)
        await deleting.clear_settled()

    backends.run(as_if_it_had_died())
    backends.run(deleting.clear_settled())
    assert f"datasets/{dataset}" in backends.run(stored())
    backends.run(an_hour_later())
    assert f"datasets/{dataset}" not in backends.run(stored())
    assert backends.run(notes()) == []
