"""Pipelines that are refused at their creation, each in a sentence that names the field, and nothing is kept."""

from collections.abc import Callable
from typing import Any

import pytest

from emissary.client import ApiError, Client
from tests.api.refusals import GOOD as ROWS
from tests.api.refusals import MODEL, refused, upload
from tests.web_server import web_server

FUNCTION = "exact_match_shared"
TRAIN = {"base_model": MODEL, "test_functions": [FUNCTION]}
GOOD: dict[str, Any] = {"name": "refused", "train_test_split_ratio": 50, "train": TRAIN}
HOURS, SIXTY = (",".join(map(str, range(most))) for most in (24, 60))
SCHEDULES: dict[str, tuple[dict[str, Any], str]] = {
    "cron of a day that never comes": ({"cron": "0 0 30 2 *"}, "schedule.cron:"),
    "cron of four fields": ({"cron": "0 0 * *"}, "schedule.cron:"),
    "cron with a word": ({"cron": "@daily"}, "schedule.cron:"),
    "cron of minute 60": ({"cron": "60 * * * *"}, "schedule.cron:"),
    "cron of six fields": ({"cron": "0 0 0 * * *"}, "schedule.cron:"),
    "cron of a day that never comes, or a weekday": ({"cron": "0 0 31 2 1"}, "schedule.cron:"),
    "cron of a day that never comes, or any weekday": ({"cron": "0 0 31 2 1-7"}, "schedule.cron:"),
    "cron of the first, or a fifth Monday of it": ({"cron": "0 0 1 * 1#5"}, "schedule.cron:"),
    "cron of a last Friday": ({"cron": "0 0 * * 5L"}, "schedule.cron:"),
    "cron of a last weekday": ({"cron": "0 0 LW * *"}, "schedule.cron:"),
    "the machine's timezone": ({"cron": "0 3 * * *", "timezone": "localtime"}, "schedule.timezone:"),
    "unknown timezone": ({"cron": "0 3 * * *", "timezone": "Mars/Olympus"}, "schedule.timezone:"),
    "interval below a minute": ({"interval_seconds": 59}, "schedule.interval_seconds:"),
    "interval that is a word": ({"interval_seconds": "3600"}, "schedule.interval_seconds:"),
    "rule of a day that never comes": ({"rrule": "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"}, "schedule.rrule:"),
    "rule that is over": ({"rrule": "FREQ=DAILY;UNTIL=20210101T000000"}, "schedule.rrule:"),
    "rule that counts": ({"rrule": "FREQ=DAILY;COUNT=3"}, "schedule.rrule:"),
    "rule that stands still": ({"rrule": "FREQ=DAILY;INTERVAL=0"}, "schedule.rrule:"),
    "rule of every second": ({"rrule": "FREQ=SECONDLY"}, "schedule.rrule:"),
    "rule of every second in other words": (
        {"rrule": f"FREQ=DAILY;BYHOUR={HOURS};BYMINUTE={SIXTY};BYSECOND={SIXTY}"},
        "schedule.rrule:",
    ),
    "rule of every minute": ({"rrule": f"FREQ=DAILY;BYHOUR={HOURS};BYMINUTE={SIXTY}"}, "schedule.rrule:"),
    "rule of an unknown part": ({"rrule": "FREQ=DAILY;BYMOON=1"}, "schedule.rrule:"),
    "rule of two lines": ({"rrule": "DTSTART:20200101T000000\nRRULE:FREQ=DAILY"}, "schedule.rrule:"),
    "no time at all": ({"timezone": "UTC"}, "schedule:"),
    "two kinds": ({"cron": "0 3 * * *", "interval_seconds": 3600}, "schedule:"),
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    **{name: ({"schedule": schedule}, field) for name, (schedule, field) in SCHEDULES.items()},
    "no name": ({"name": None}, "name:"),
    "no training": ({"train": None}, "train:"),
    "unknown base model": ({"train": TRAIN | {"base_model": "nobody"}}, "train.base_model:"),
    "unknown hyperparameter": ({"train": TRAIN | {"parameters": {"speed": 1}}}, "train.parameters"),
    "owner on the hub who is not allowed": (
        {"train": TRAIN | {"push_to_hub": {"repo": "acme/triage"}}},
        "train.push_to_hub.repo:",
    ),
    "no testing function": ({"train": TRAIN | {"test_functions": []}}, "train.test_functions:"),
    "unknown testing function": ({"train": TRAIN | {"test_functions": ["nobody"]}}, "train.test_functions"),
    "task type that no data fits": ({"train": TRAIN | {"task_type": "regression"}}, "gather:"),
    "reward that is no test": ({"train": TRAIN | {"reward": {"chrf_shared": 1.0}}}, "train.reward:"),
    "weights below one": ({"train": TRAIN | {"reward": {FUNCTION: 0.5}}}, "train.reward:"),
    "gate on another function": ({"gate": {"minimum_score": {"chrf_shared": 0.5}}}, "gate.minimum_score:"),
    "gate on a function that there is not": (
        {"gate": {"minimum_score": {"nobody": 0.5}}},
        "gate.minimum_score: there is no testing function 'nobody'",
    ),
    "gate of classes without classes": ({"gate": {"class_tolerance": 0.1}}, "gate.class_tolerance:"),
    "certainty": ({"gate": {"confidence": 1.0}}, "gate.confidence:"),
    "improvement that is a word": ({"gate": {"minimum_improvement": "0.1"}}, "gate.minimum_improvement:"),
    "approval that is a word": ({"gate": {"approval": "yes"}}, "gate.approval:"),
    "approval without time": ({"gate": {"approval": True, "approval_hours": 0}}, "gate.approval_hours:"),
    "watch that lasts for ever": ({"watch": {"watch_seconds": 86401}}, "watch.watch_seconds:"),
    "latency below what was": ({"watch": {"max_latency_ratio": 0.5}}, "watch.max_latency_ratio:"),
    "no test rows": ({"train_test_split_ratio": None}, "test_dataset_id:"),
    "unknown test dataset": (
        {"train_test_split_ratio": None, "test_dataset_id": "ds-nobody"},
        "test_dataset_id:",
    ),
    "unknown dataset": ({"gather": {"datasets": ["ds-nobody"]}}, "gather.datasets:"),
    "no datasets": ({"gather": {"datasets": []}}, "gather.datasets"),
    "unknown source": ({"gather": {"source": "fax"}}, "gather.source:"),
    "s3 without a connection": ({"gather": {"source": "s3", "uri": "s3://lake/tickets"}}, "gather.uri:"),
    "s3 that is no prefix": ({"gather": {"source": "s3", "uri": "s3://lake/a/../b"}}, "gather.uri:"),
    "private address": ({"gather": {"source": "url", "url": "http://127.0.0.1:9/a.jsonl"}}, "gather.url:"),
    "name of a private address": ({"gather": {"source": "url", "url": "http://localhost:9/a"}}, "gather.url:"),
    "file of the machine": ({"gather": {"source": "url", "url": "file:///etc/passwd"}}, "gather.url:"),
    "password in an address": ({"gather": {"source": "url", "url": "https://u:p@example.com/a"}}, "gather.url:"),
    "no address": ({"gather": {"source": "url"}}, "gather.url:"),
    "folder for the hub": ({"gather": {"source": "hub", "dataset": "../data"}}, "gather.dataset:"),
    "sql without a connection": (
        {"gather": {"source": "sql", "connection": "warehouse", "query": "SELECT 1 AS prompt"}},
        "gather.connection:",
    ),
    "two statements": (
        {"gather": {"source": "sql", "connection": "warehouse", "query": "SELECT 1; DROP TABLE a"}},
        "gather.query:",
    ),
    "merge that is a word": ({"gather": {"source": "s3", "uri": "s3://lake/a", "merge": "yes"}}, "gather.merge:"),
    "unknown deployment": ({"deployment_id": "dp-nobody"}, "deployment_id:"),
    "pause that is a word": ({"paused": "no"}, "paused:"),
}


def made(client: Client, project: str) -> list[str]:
    return [row["id"] for row in client.get(f"/v1/projects/{project}/pipelines")]


@pytest.fixture(scope="module")
def filled(client: Client) -> str:
    """A project of its own: what is gathered is all that others upload."""
    return str(client.post("/v1/projects", {"name": "bad-pipelines"})["id"])


@pytest.fixture(scope="module", autouse=True)
def dataset(client: Client, filled: str) -> str:
    return str(upload(client, filled, ROWS * 4)["id"])


@pytest.mark.parametrize(("changed", "field"), REFUSED.values(), ids=REFUSED)
def test_pipeline_is_refused(client: Client, filled: str, changed: dict[str, Any], field: str) -> None:
    before = made(client, filled)
    body = {name: value for name, value in (GOOD | changed).items() if value is not None}
    with refused(client, filled, field):
        client.post(f"/v1/projects/{filled}/pipelines", body)
    assert made(client, filled) == before


def test_project_without_data_is_told_to_upload_some(client: Client) -> None:
    empty = str(client.post("/v1/projects", {"name": "pipelines-without-data"})["id"])
    with refused(client, empty, "gather:", "upload one first"):
        client.post(f"/v1/projects/{empty}/pipelines", GOOD)


def test_pipeline_may_be_made_before_there_is_data_but_not_where_none_can_come(client: Client) -> None:
    empty = str(client.post("/v1/projects", {"name": "pipelines-of-the-web"})["id"])
    with web_server() as web:
        body = GOOD | {"gather": {"source": "url", "url": f"{web.url}/a.jsonl", "merge": True}}
        with refused(client, empty, "gather.url:", "is not there (404)"):
            client.post(f"/v1/projects/{empty}/pipelines", body)
        web.put("/a.jsonl", ROWS)
        pipeline = client.post(f"/v1/projects/{empty}/pipelines", body)
        assert pipeline["gather"] == body["gather"]
        classes = TRAIN | {"task_type": "classification", "base_model": "all-MiniLM-L6-v2"}
        with refused(client, empty, "gather:", "give test_dataset_id"):
            unknown = {"name": "classes", "train": classes | {"rebalance_data": {"a": 0.5, "b": 0.5}}}
            client.post(f"/v1/projects/{empty}/pipelines", body | unknown)
    with refused(client, empty, "gather.url:", "cannot be fetched", status=503):
        client.post(f"/v1/projects/{empty}/pipelines", body | {"name": "away"})
    client.call("DELETE", f"/v1/projects/{empty}/pipelines/{pipeline['id']}")


def test_test_dataset_is_not_gathered(client: Client, filled: str, dataset: str) -> None:
    body = GOOD | {"train_test_split_ratio": None, "test_dataset_id": dataset}
    with refused(client, filled, "gather.datasets:", "is the test dataset"):
        client.post(f"/v1/projects/{filled}/pipelines", body | {"gather": {"datasets": [dataset]}})


@pytest.fixture(scope="module")
def pipeline(client: Client) -> tuple[str, str]:
    """(path, id) of a pipeline in a project of its own."""
    project = str(client.post("/v1/projects", {"name": "changed-pipelines"})["id"])
    upload(client, project, b'{"prompt": "Say red.", "completion": "red"}\n{"prompt": "b", "completion": "c"}\n')
    path = f"/v1/projects/{project}/pipelines"
    return path, str(client.post(path, GOOD | {"schedule": {"cron": "0 3 * * *"}})["id"])


def test_name_is_unique_in_its_project(client: Client, pipeline: tuple[str, str]) -> None:
    path, _ = pipeline
    with pytest.raises(ApiError, match="name: there is a pipeline 'refused' already"):
        client.post(path, GOOD)


def test_bad_change_leaves_the_pipeline_as_it_was(client: Client, pipeline: tuple[str, str]) -> None:
    path, pipeline_id = pipeline
    before = client.get(f"{path}/{pipeline_id}")
    with pytest.raises(ApiError, match=r"schedule\.cron: "):
        client.call("PUT", f"{path}/{pipeline_id}", json=GOOD | {"schedule": {"cron": "never"}})
    with pytest.raises(ApiError, match=r"train\.base_model: "):
        client.call("PUT", f"{path}/{pipeline_id}", json=GOOD | {"train": TRAIN | {"base_model": "nobody"}})
    assert client.get(f"{path}/{pipeline_id}") == before


def test_change_replaces_everything(client: Client, pipeline: tuple[str, str]) -> None:
    path, pipeline_id = pipeline
    wanted = GOOD | {"name": "changed", "gate": {"confidence": 0.9}, "schedule": {"interval_seconds": 3600}}
    client.call("PUT", f"{path}/{pipeline_id}", json=wanted)
    found = client.get(f"{path}/{pipeline_id}")
    assert (found["name"], found["gate"]["confidence"]) == ("changed", 0.9)
    assert found["schedule"] == {"cron": None, "interval_seconds": 3600, "rrule": None, "timezone": "UTC"}


REQUESTED: dict[str, Callable[[str], list[str]]] = {
    "unknown": lambda _: ["ds-nobody"],
    "empty": lambda _: [],
    "twice unknown": lambda known: [known, "ds-nobody"],
}


@pytest.mark.parametrize("requested", REQUESTED.values(), ids=REQUESTED)
def test_run_with_other_datasets_than_there_are_is_refused(
    client: Client, pipeline: tuple[str, str], dataset: str, requested: Callable[[str], list[str]]
) -> None:
    path, pipeline_id = pipeline
    with pytest.raises(ApiError, match="datasets"):
        client.post(f"{path}/{pipeline_id}/runs", {"datasets": requested(dataset)})
    assert client.get(f"{path}/{pipeline_id}/runs") == []


OBJECTS: dict[str, tuple[dict[str, Any], str]] = {
    "of a pipeline without a bucket": ({"objects": ["tickets/1.jsonl"]}, "objects: the pipeline's source is datasets"),
    "beside datasets": ({"objects": ["tickets/1.jsonl"], "datasets": [""]}, "datasets.0: "),
    "that is no list": ({"objects": "tickets/1.jsonl"}, "objects: "),
    "none": ({"objects": []}, "objects: "),
    "too many": ({"objects": ["a"] * 101}, "objects: "),
    "a number": ({"objects": [3]}, "objects.0: "),
    "without a name": ({"objects": ["a", "s3://lake/"]}, "objects.1: must be the key of an object"),
    "a bucket": ({"objects": ["s3://lake"]}, "objects.0: must be the key of an object"),
    "above the prefix": ({"objects": ["tickets/../secrets/1.jsonl"]}, "objects.0: must be the key of an object"),
    "with a control character": ({"objects": ["a\n"]}, "objects.0: must be the key of an object"),
}


@pytest.mark.parametrize(("body", "sentence"), OBJECTS.values(), ids=OBJECTS)
def test_run_with_objects_that_cannot_be_fetched_is_refused(
    client: Client, pipeline: tuple[str, str], body: dict[str, Any], sentence: str
) -> None:
    path, pipeline_id = pipeline
    with pytest.raises(ApiError) as raised:
        client.post(f"{path}/{pipeline_id}/runs", body)
    assert (raised.value.status, str(raised.value).startswith(sentence)) == (400, True), str(raised.value)
    assert client.get(f"{path}/{pipeline_id}/runs") == []
