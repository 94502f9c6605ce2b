"""The schema is upgraded from every revision there was, with rows in it, and nothing is lost."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import alembic.command
import alembic.config
import alembic.script
import pytest
from sqlalchemy import NullPool, create_engine, inspect, select
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.schema import MetaData

from emissary.settings import Settings
from emissary.store import (
    database,
    engines,
    job_events,
    pipeline_tables,  # noqa: F401 - else some tables are not looked at
    training_jobs,
)
from emissary.store.database import catalogue_server, catalogue_url, companion_database, migrate
from emissary.store.pages import Page
from emissary.store.tables import Base, Deployment, Engine, Leftover, TrainingJob
from tests.own_home import own_home

FLOW_RUN = UUID("0c9f6c1e-2f0c-4d5e-9a3b-7d1f5b0e8a42")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
JOB: dict[str, Any] = {
    "project_id": "ms-1", "name": "triage", "description": "first\nlast", "training_technique": "SFT",
    "task_type": "text-generation", "base_model_option": "pre-trained", "base_model": "SmolLM2-135M-Instruct",
    "train_dataset_id": "ds-1", "test_functions": ["exact_match_shared"], "hyper_parameters": {"lora_r": 2},
    "created_by": "user-1",
}  # fmt: skip
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("organizations", {"id": "org-1", "name": "ours"}),
    ("users", {"id": "user-1", "organization_id": "org-1", "name": "admin"}),
    ("api_keys", {"id": "key-1", "user_id": "user-1", "name": "first", "role": "member", "sha256": "a" * 64}),
    ("projects", {"id": "ms-1", "organization_id": "org-1", "name": "support", "created_by": "user-1"}),
    (
        "datasets",
        {
            "id": "ds-1", "project_id": "ms-1", "name": "tickets", "file_name": "tickets.jsonl",
            "artifact": "datasets/1", "bytes": 2**40, "sha256": "b" * 64,
            "report": {"rows": 3, "labels": ["é"]}, "upload_by": "user-1",
        },
    ),
    ("training_jobs", JOB | {"id": "tr-1", "status": "Success", "flow_run_id": FLOW_RUN, "best_checkpoint": 1}),
    ("training_jobs", JOB | {"id": "tr-2", "status": "Running", "crashes": 2, "training_loss": [{"step": 1}]}),
    ("training_jobs", JOB | {"id": "tr-3", "status": "Cancelled", "reward_functions": {"exact_match_shared": 1.0}}),
    ("checkpoints", {"training_job_id": "tr-1", "number": 1, "artifact": "checkpoints/1", "scores": {"f": 0.5}}),
    (
        "engines",
        {
            "id": "engine-1", "organization_id": "org-1", "name": "first", "base_model": "SmolLM2-135M-Instruct",
            "task_type": "text-generation", "status": "Inactive", "created_by": "user-1",
            "resource_management_config": {"management_type": "inactive_timeout", "management_config": {}},
        },
    ),
    *(
        (
            "deployments",
            {
                "id": f"dp-{number}", "organization_id": "org-1", "project_id": "ms-1", "name": "triage",
                "base_model": "SmolLM2-135M-Instruct", "task_type": "text-generation", "training_job_id": "tr-1",
                "checkpoint": 1, "engine_id": "engine-1", "status": status, "created_by": "user-1",
                "capture": {"sample_percentage": 50, "keep_days": 7}, "capture_lost": 3,
            },
        )
        for number, status in enumerate(("Deployed", "Terminated"))
    ),
    ("idempotent_answers", {"organization_id": "org-1", "key": "k", "request_sha256": "c", "status": 201, "body": {}}),
    (
        "testing_functions",
        {
            "id": "tf-1", "organization_id": "org-1", "name": "words", "content": "def words(): ...",
            "dependencies": ["humanize"], "created_by": "user-1",
        },
    ),
    ("job_events", {"id": 7, "training_job_id": "tr-1", "kind": "succeeded", "details": {"best": 1}}),
    (
        "uploads",
        {
            "id": "up-1", "project_id": "ms-1", "dataset_id": "ds-2", "name": "large", "file_name": "large.jsonl",
            "bytes": 2**33, "part_bytes": 2**26, "state": {"parts": []}, "created_by": "user-1",
        },
    ),
    (
        "pipelines",
        {
            "id": "pl-1", "project_id": "ms-1", "name": "nightly", "paused": True, "config": {"train": {}},
            "created_by": "user-1",
        },
    ),
    (
        "pipeline_runs",
        {
            "id": "pr-1", "project_id": "ms-1", "pipeline_id": "pl-1", "trigger": "schedule", "status": "Success",
            "gathered": [{"id": "ds-1", "sha256": "b" * 64}], "training_job_id": "tr-1", "outcome": "Promoted",
            "created_by": "user-1",
        },
    ),
    (
        "webhooks",
        {
            "id": "wh-1", "pipeline_id": "pl-1", "name": "labelling", "scheme": "standard", "version": 2,
            "parameters": {"datasets": ["{{ payload.id }}"]}, "created_by": "user-1",
        },
    ),
    (
        "webhook_deliveries",
        {"id": "wd-1", "webhook_id": "wh-1", "delivery_id": "é", "body_sha256": "c" * 64, "pipeline_run_id": "pr-1"},
    ),
    (
        "subscriptions",
        {
            "id": "sub-1", "project_id": "ms-1", "name": "pager", "block": "slack-webhook/ops", "version": 3,
            "events": ["training_job.failed"], "paused": False, "created_by": "user-1",
        },
    ),
    (
        "subscription_deliveries",
        {
            "id": "sd-1", "subscription_id": "sub-1", "event": "ping", "data": {"name": "é"}, "status": "Dead",
            "attempts": 13, "next_attempt_at": LONG_AGO, "give_up_at": LONG_AGO, "answer": "HTTP 500",
        },
    ),
    (
        "traffic_entries",
        {
            "id": "te-1", "deployment_id": "dp-0", "answer_id": "chatcmpl-1", "position": 0, "revision": 7,
            "input": {"messages": [{"role": "user", "content": "é"}]}, "output": "no", "correction": "yes",
            "state": "corrected", "reviewed_by": "user-1", "expires_at": datetime(2100, 1, 1, tzinfo=UTC),
        },
    ),
    ("tracked_jobs", {"training_job_id": "tr-1", "tracker": "mlflow", "status": "Success"}),
    ("leftovers", {"id": "ds-9", "artifacts": ["datasets/9"], "engine_id": None}),
    ("leases", {"id": "tr-2", "token": 3, "flow_run_id": FLOW_RUN, "holder": "host:1:2", "beats": 9}),
]  # fmt: skip
SCRIPTS = alembic.script.ScriptDirectory(str(database._MIGRATIONS))
REVISIONS = [script.revision for script in SCRIPTS.walk_revisions()][::-1]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with own_home(), catalogue_server(Settings()) as address:
        yield address


def fill(connection: Connection, schema: MetaData) -> dict[str, list[dict[str, Any]]]:
    """Insert of `ROWS` what the schema has room for; returns it."""
    filled: dict[str, list[dict[str, Any]]] = {}
    for name, row in ROWS:
        if name in schema.tables:
            table = schema.tables[name]
            known = {column: value for column, value in row.items() if column in table.columns}
            connection.execute(table.insert().values(known))
            filled.setdefault(name, []).append(known)
    return filled


@pytest.mark.parametrize("revision", REVISIONS)
def test_rows_of_a_revision_are_there_and_readable_after_the_upgrade(server: str, revision: str) -> None:
    address = companion_database(server, f"at_{revision}")
    config = alembic.config.Config()
    config.set_main_option("script_location", str(database._MIGRATIONS))
    config.attributes["url"] = catalogue_url(address)
    alembic.command.upgrade(config, revision)
    engine = create_engine(catalogue_url(address), poolclass=NullPool)
    schema = MetaData()
    with engine.begin() as connection:
        schema.reflect(connection)
        filled = fill(connection, schema)
    assert set(filled) == set(schema.tables) - {"alembic_version"}, "a table has no rows to be upgraded"
    migrate(address)
    for mapper in Base.registry.mappers:
        columns = {column["name"] for column in inspect(engine).get_columns(mapper.local_table.name)}  # type: ignore[attr-defined]
        assert columns == {column.name for column in mapper.local_table.columns}, mapper
    asyncio.run(_read(address, filled, "profile" in schema.tables["datasets"].columns))


async def _read(address: str, filled: dict[str, list[dict[str, Any]]], has_profiles: bool) -> None:
    engine = create_async_engine(catalogue_url(address), poolclass=NullPool)
    async with AsyncSession(engine) as session:
        for mapper in Base.registry.mappers:
            name = mapper.local_table.name  # type: ignore[attr-defined]
            found = {
                mapper.primary_key_from_instance(row)[0]: row for row in await session.scalars(select(mapper.class_))
            }
            for row in filled.get(name, []):
                key = row[mapper.primary_key[0].name]
                assert {column: getattr(found[key], column) for column in row} == row
        jobs = await training_jobs.list_all(session, "ms-1", Page())
        assert [job.train_dataset.name for job in jobs] == ["tickets"] * 3
        (project_org,) = {job.organization_id for job in await session.scalars(select(Engine))}
        assert [count for _, count in await engines.list_all(session, project_org, Page())] == [1]
        assert len(await training_jobs.checkpoints(session, "tr-1")) == 1
        assert len(await job_events.list_all(session, "tr-1")) == len(filled.get("job_events", []))
        if not has_profiles:
            removed = await session.get_one(Leftover, "prepared-ds-1")
            assert removed.artifacts == ["prepared/ds-1"]
        # Null would say that their runs are still to be ended.
        if "leases" not in filled:
            assert (await session.get_one(TrainingJob, "tr-3")).state_at is not None
            assert (await session.get_one(Deployment, "dp-1")).state_at is not None
    await engine.dispose()
