"""Runs of pipelines on the whole platform: what they gather, how they end when told to or killed, when they begin."""

import os
import signal
from typing import Any

import pytest

from emissary.client import Client
from emissary.up import Platform
from tests.engine_life import prefect, process_of
from tests.jobs import ended, jsonl, profiled, until, upload
from tests.pipelines import QUICK, SHORT, TEST, TRAINING, config, other, rows, run
from tests.tasks.pooled_run import encoder_dir
from tests.web_server import web_server

# Several trainings.
pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    encoder_dir()
    return str(client.post("/v1/projects", {"name": "pipeline-runs"})["id"])


@pytest.fixture(scope="module")
def golden(client: Client, project: str) -> str:
    return upload(client, project, rows(TEST), "golden")


@pytest.fixture(scope="module")
def first_data(client: Client, project: str, golden: str) -> str:
    return upload(client, project, rows(TRAINING), "first")


def test_datasets_are_merged_each_row_once_and_test_rows_among_them_are_listed(client: Client) -> None:
    project = str(client.post("/v1/projects", {"name": "merging-pipelines"})["id"])
    golden = upload(client, project, rows(TEST), "golden")
    first = upload(client, project, rows(TRAINING[:4]), "first")
    second = upload(client, project, rows(TRAINING[2:]), "second")
    short = config(golden, None)["train"] | {"parameters": SHORT}
    path = other(client, project, **config(golden, None, gather={"datasets": "all"}, gate={}, train=short))
    merged = run(client, path)
    assert (merged["outcome"], merged["datasets"]) == ("Promoted", [first, second]), merged
    assert (merged["decision"]["champion"], merged["decision"]["rules"]) == (None, [])
    dataset = client.get(f"/v1/projects/{project}/datasets/{merged['train_dataset_id']}")
    assert dataset["profile"]["rows"] == len(TRAINING)
    assert dataset["name"].startswith("nightly-")
    assert run(client, path)["reason"] == "No new data."  # what it merged itself is nothing new

    upload(client, project, rows([*TRAINING[:1], *TEST[1:3]]), "leaking")
    leaked = run(client, path)
    assert (leaked["status"], leaked["outcome"], leaked["training_job_id"]) == ("Failed", "Failed", None)
    assert "2 of the 6 rows" in leaked["reason"]
    assert "row 2, 3." in leaked["reason"]
    assert run(client, path, datasets=[first])["reason"] == "No new data."


def test_data_from_the_web_is_fetched_merged_skipped_and_missed(client: Client) -> None:
    project = str(client.post("/v1/projects", {"name": "web-pipelines"})["id"])
    golden = upload(client, project, rows(TEST), "golden")
    short = config(golden, None)["train"] | {"parameters": SHORT}
    with web_server() as web:
        source = {"source": "url", "url": web.put("/rows.jsonl", jsonl(rows(TRAINING[:6]))), "merge": True}
        path = other(client, project, **config(golden, None, gather=source, gate={}, train=short))
        first = run(client, path)
        assert (first["outcome"], first["datasets"]) == ("Promoted", [first["train_dataset_id"]]), first
        assert run(client, path)["reason"] == "No new data."
        web.put("/rows.jsonl", jsonl(rows(TRAINING[4:])))
        second = run(client, path)
        assert second["outcome"] == "Promoted", second
        assert second["datasets"][0] == first["train_dataset_id"]
        datasets = f"/v1/projects/{project}/datasets"
        assert profiled(client, f"{datasets}/{second['datasets'][1]}")["profile"]["rows"] == len(TRAINING) - 4
        assert profiled(client, f"{datasets}/{second['train_dataset_id']}")["profile"]["rows"] == len(TRAINING)
        assert len(client.get(datasets)) == 4  # the golden one, two fetched, one merged of these
        del web.answers["/rows.jsonl"]
        jobs = len(client.get(f"/v1/projects/{project}/training-jobs"))
        gone = run(client, path)
        assert (gone["status"], gone["outcome"], gone["training_job_id"]) == ("Failed", "Failed", None)
        assert "gather.url: " in gone["reason"]
        assert "is not there (404); put it back" in gone["reason"]
        assert len(client.get(f"/v1/projects/{project}/training-jobs")) == jobs


@pytest.mark.usefixtures("first_data")
def test_cancelled_run_cancels_its_job_and_failed_job_fails_its_run(client: Client, project: str, golden: str) -> None:
    long = config(golden, None)["train"] | {"parameters": QUICK | {"num_train_epochs": 100}}
    path = other(client, project, **config(golden, None, name="cancelled", train=long))
    for cancel_job in (False, True):
        made = client.post(f"{path}/runs")
        started = until(
            lambda made=made: client.get(f"{path}/runs/{made['id']}"), lambda found: found["training_job_id"]
        )
        job = f"/v1/projects/{project}/training-jobs/{started['training_job_id']}"
        until(lambda job=job: client.get(job), lambda found: found["status"] == "Running")
        client.post(f"{job if cancel_job else f'{path}/runs/' + made['id']}/cancel")
        ended_run = until(lambda made=made: client.get(f"{path}/runs/{made['id']}"), ended)
        assert until(lambda job=job: client.get(job), ended)["status"] == "Cancelled"
        if cancel_job:
            assert (ended_run["status"], ended_run["outcome"]) == ("Failed", "Failed")
            assert ended_run["reason"] == f"The training job {started['training_job_id']} is Cancelled."
        else:
            assert (ended_run["status"], ended_run["outcome"]) == ("Cancelled", None)
    client.call("DELETE", path)


@pytest.mark.usefixtures("first_data")
def test_killed_run_goes_on_with_the_job_that_it_made(
    platform: Platform, client: Client, project: str, golden: str
) -> None:
    path = other(client, project, **config(golden, None, name="killed", gate={}))
    made = client.post(f"{path}/runs")
    started = until(lambda: client.get(f"{path}/runs/{made['id']}"), lambda found: found["training_job_id"])
    os.kill(process_of(platform, started["flow_run_id"]), signal.SIGKILL)
    found = until(lambda: client.get(f"{path}/runs/{made['id']}"), ended)
    assert (found["status"], found["outcome"]) == ("Success", "Promoted"), found
    assert found["training_job_id"] == started["training_job_id"]
    jobs = client.get(f"/v1/projects/{project}/training-jobs")
    assert [job["status"] for job in jobs if job["name"] == "killed"] == ["Success"]


def schedules_of(platform: Platform, pipeline_id: str) -> list[tuple[Any, bool]]:
    """(cron line or interval, active) of the pipeline's schedules in Prefect."""
    with prefect(platform) as http:
        found = http.get("/deployments/name/retrain/retrain").json()["schedules"]
    return [
        (row["schedule"].get("cron") or row["schedule"].get("interval"), row["active"])
        for row in found
        if row["slug"] == pipeline_id
    ]


@pytest.mark.usefixtures("first_data")
def test_prefect_has_the_schedule_as_the_catalogue_has_it(
    platform: Platform, client: Client, project: str, golden: str
) -> None:
    body = config(golden, None, name="scheduled", schedule={"cron": "0 3 1 1 *", "timezone": "Europe/Berlin"})
    path = other(client, project, **body)
    pipeline_id = path.rpartition("/")[2]
    until(lambda: schedules_of(platform, pipeline_id), lambda found: found == [("0 3 1 1 *", True)])
    client.post(f"{path}/pause")
    until(lambda: schedules_of(platform, pipeline_id), lambda found: found == [("0 3 1 1 *", False)])
    client.post(f"{path}/unpause")
    client.call("PUT", path, json=body | {"schedule": {"interval_seconds": 86400}})
    until(lambda: schedules_of(platform, pipeline_id), lambda found: found == [(86400.0, True)])
    # Somebody removed it in Prefect.
    with prefect(platform) as http:
        deployment = http.get("/deployments/name/retrain/retrain").json()
        (there,) = [row["id"] for row in deployment["schedules"] if row["slug"] == pipeline_id]
        http.delete(f"/deployments/{deployment['id']}/schedules/{there}").raise_for_status()
    client.post(f"{path}/unpause")
    until(lambda: schedules_of(platform, pipeline_id), lambda found: found == [(86400.0, True)])
    client.call("DELETE", path)
    until(lambda: schedules_of(platform, pipeline_id), lambda found: found == [])


@pytest.mark.usefixtures("first_data")
def test_schedule_of_every_minute_fires_twice_and_ends_with_the_pause(
    platform: Platform, client: Client, project: str
) -> None:
    short = config("", None)["train"] | {"parameters": SHORT}
    every_minute = {"cron": "* * * * *"}
    body = config("", None, name="minutely", test_dataset_id=None, train_test_split_ratio=50, gate={}, train=short)
    path = other(client, project, **body, schedule=every_minute)
    fired = until(lambda: client.get(f"{path}/runs"), lambda found: len(found) >= 2 and all(map(ended, found)))
    assert [row["trigger"] for row in fired] == ["schedule"] * len(fired)
    assert fired[-1]["outcome"] == "Promoted", fired
    assert {row["outcome"] for row in fired[:-1]} == {"Skipped"}
    detail = client.get(f"{path}/runs/{fired[-1]['id']}")
    job = client.get(f"/v1/projects/{project}/training-jobs/{detail['training_job_id']}")
    for row in (detail, job):
        with prefect(platform) as http:
            flow_run = http.get(f"/flow_runs/{row['flow_run_id']}").json()
        assert flow_run["name"] == row["id"]
        assert {project, path.rpartition("/")[2], row["id"]} <= set(flow_run["tags"])
    client.post(f"{path}/pause")
    until(lambda: schedules_of(platform, path.rpartition("/")[2]), lambda found: found == [("* * * * *", False)])
    client.call("DELETE", path)
