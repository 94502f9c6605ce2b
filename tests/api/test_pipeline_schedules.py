"""Schedules of pipelines that Prefect's scheduler can bear, and stored ones whose time has passed."""

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.api import pipeline_schedules
from emissary.errors import InvalidInput
from emissary.schemas.pipeline_schedules import PipelineSchedule
from emissary.store import pipelines
from tests.api.backends import Backends
from tests.api.refusals import GOOD, MODEL

TRAIN = {"base_model": MODEL, "test_functions": ["exact_match_shared"]}
HOURS, SIXTY = (",".join(map(str, range(most))) for most in (24, 60))
EVERY_SECOND = f"FREQ=DAILY;BYHOUR={HOURS};BYMINUTE={SIXTY};BYSECOND={SIXTY}"


def check(**schedule: Any) -> None:
    asyncio.run(pipeline_schedules.check(PipelineSchedule(**schedule)))


@pytest.mark.parametrize(
    "schedule",
    [
        {"cron": "*/5 9-17 * * MON-FRI", "timezone": "Europe/Berlin"},
        {"cron": "0 0 29 2 *"},
        {"cron": "0 0 L * *"},
        {"cron": "0 0 * * 1#5"},
        {"interval_seconds": 60},
        {"rrule": f"FREQ=DAILY;BYHOUR={HOURS};BYMINUTE=30;BYSECOND=0"},
        {"rrule": "RRULE:FREQ=YEARLY;INTERVAL=2;BYMONTH=2;BYMONTHDAY=29"},
        {"rrule": "FREQ=MONTHLY;BYDAY=1MO;UNTIL=29990101T000000"},
    ],
    ids=str,
)
def test_schedule_that_fires_is_taken(schedule: dict[str, Any]) -> None:
    check(**schedule)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"cron": "0 0 * * 5L"}, r"^schedule\.cron: Prefect does not take '0 0 \* \* 5L' \(Invalid cron string: .*\)"),
        ({"cron": "0 0 LW * *"}, r"^schedule\.cron: Prefect does not take '0 0 LW \* \*'"),
        ({"cron": "0 0 31 2 1"}, r"^schedule\.cron: '0 0 31 2 1' has no date for Prefect"),
        ({"rrule": EVERY_SECOND}, r"^schedule\.rrule: BYSECOND has several"),
        ({"rrule": f"FREQ=DAILY;BYHOUR={HOURS};BYMINUTE=0,30"}, r"^schedule\.rrule: .* make 48 times of a day"),
        # The anchor is a Wednesday.
        ({"rrule": "FREQ=DAILY;INTERVAL=7;BYDAY=TH"}, r"^schedule\.rrule: it has no occurrence"),
        ({"rrule": "FREQ=DAILY;UNTIL=20210101T000000"}, r"^schedule\.rrule: it has no occurrence"),
    ],
    ids=str,
)
def test_schedule_that_prefect_cannot_bear_is_refused_at_once(schedule: dict[str, Any], words: str) -> None:
    begun = time.process_time()
    with pytest.raises(InvalidInput, match=words) as raised:
        check(**schedule)
    assert time.process_time() - begun < 2
    assert "pydantic" not in str(raised.value)


@pytest.fixture
def project(backends: Backends) -> str:
    """The path of a project with a dataset."""
    path = f"/v1/projects/{backends.request('POST', '/v1/projects', json={'name': 'scheduled'}).json()['id']}"
    upload(backends, path)
    return path


def upload(backends: Backends, project: str) -> None:
    answer = backends.request("POST", f"{project}/datasets", files={"file": ("rows.jsonl", GOOD * 4)})
    assert answer.status_code == 201, answer.text


def made(backends: Backends, project: str, **fields: Any) -> str:
    """The id of a new pipeline."""
    body = {"name": "scheduled", "train": TRAIN, "train_test_split_ratio": 50, "triggers": {"on_dataset": True}}
    answer = backends.request("POST", f"{project}/pipelines", json=body | fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def store(backends: Backends, pipeline_id: str, **fields: Any) -> None:
    """Have the pipeline's row say something else, as time or an older version does."""

    async def write(session: AsyncSession) -> None:
        row = await pipelines.get(session, pipeline_id)
        row.config = row.config | fields

    backends.catalogue(write)


def wanted(backends: Backends) -> list[str | None]:
    return [schedule.slug for schedule in backends.run(pipeline_schedules.wanted())]


def test_pipeline_whose_rule_is_over_is_read_paused_run_and_triggered(backends: Backends, project: str) -> None:
    pipeline = made(backends, project, schedule={"rrule": "FREQ=DAILY;BYHOUR=3;UNTIL=29990101T000000"})
    over = {"rrule": "FREQ=DAILY;BYHOUR=3;UNTIL=20210101T000000"}
    store(backends, pipeline, schedule=over)
    path = f"{project}/pipelines/{pipeline}"
    found = backends.request("GET", path)
    assert (found.status_code, found.json()["schedule"]["rrule"]) == (200, over["rrule"])
    for suspended in ("pause", "unpause"):
        assert backends.request("POST", f"{path}/{suspended}").status_code == 204
    upload(backends, project)
    (triggered,) = backends.request("GET", f"{path}/runs").json()
    assert triggered["trigger"] == "dataset"
    assert backends.request("POST", f"{path}/runs").status_code == 201
    assert pipeline in wanted(backends)


@pytest.mark.parametrize(
    "stored", [{"schedule": {"cron": "0 0 31 2 1"}}, {"schedule": {"rrule": EVERY_SECOND}}, {"train": None}], ids=str
)
def test_stored_schedule_that_cannot_be_used_leaves_those_of_others_as_they_are(
    backends: Backends, project: str, caplog: pytest.LogCaptureFixture, stored: dict[str, Any]
) -> None:
    daily = {"cron": "0 3 * * *"}
    broken, other = made(backends, project, schedule=daily), made(backends, project, name="other", schedule=daily)
    assert {broken, other} <= set(wanted(backends))
    store(backends, broken, **stored)
    found = wanted(backends)
    assert other in found
    assert broken not in found
    assert [record for record in caplog.records if broken in record.getMessage()]
    backends.request("DELETE", f"{project}/pipelines/{broken}")
