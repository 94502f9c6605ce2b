"""Engines' schedules for Prefect, from a real catalogue."""

import pytest
from sqlalchemy import update

from emissary.api import engine_schedules
from emissary.store.tables import Engine
from tests.api.backends import Backends
from tests.api.refusals import MODEL
from tests.api.test_bad_schedules import GOOD


def test_stored_schedule_that_cannot_be_used_leaves_those_of_others_as_they_are(
    backends: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"management_type": "schedule", "management_config": GOOD}
    body = {"base_model": MODEL, "resource_management_config": config}
    broken, other = (backends.request("POST", "/v1/engines", json=body).json()["id"] for _ in range(2))
    changed = config | {"management_config": GOOD | {"timezone": "localtime"}}
    statement = update(Engine).where(Engine.id == broken).values(resource_management_config=changed)
    backends.catalogue(lambda session: session.execute(statement))
    for wanted in (engine_schedules.openings, engine_schedules.closings):
        found = [schedule.slug for schedule in backends.run(wanted())]
        assert other in found
        assert broken not in found
    assert broken in caplog.text
    fixed = update(Engine).where(Engine.id == broken).values(resource_management_config=config)
    backends.catalogue(lambda session: session.execute(fixed))
