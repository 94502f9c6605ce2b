"""Traffic of a deployment on the whole platform: captured, corrected by command and over the API, trained on."""

import json
from pathlib import Path
from typing import Any

import pytest

from emissary.client import Client
from emissary.up import Platform
from tests.command_line import answer, emissary, fine
from tests.jobs import ended, until, upload
from tests.pipelines import NAMES, QUICK, SHORT, TEST, TRAINING, rows
from tests.tasks.pooled_run import ENCODER, encoder_dir

# Two trainings and an engine.
pytestmark = pytest.mark.acceptance

JOB = {"base_model": ENCODER, "task_type": "classification", "test_functions": ["exact_match_shared"]}
HERE = {"EMISSARY_PROJECT": "traffic-pipelines"}


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    encoder_dir()
    made = client.post("/v1/projects", {"name": HERE["EMISSARY_PROJECT"]})
    return f"/v1/projects/{made['id']}"


@pytest.fixture(scope="module")
def golden(client: Client, project: str) -> str:
    return upload(client, project.rpartition("/")[2], rows(TEST), "golden")


@pytest.fixture(scope="module")
def live(platform: Platform, client: Client, project: str, golden: str) -> str:
    """The path of a deployment that captures, of a checkpoint that has learnt next to nothing."""
    first = upload(client, project.rpartition("/")[2], rows([(f"about {name}", name) for name in NAMES]), "first")
    barely = {"parameters": SHORT}
    job = client.post(f"{project}/training-jobs", JOB | barely | {"train_dataset_id": first, "test_dataset_id": golden})
    found = until(lambda: client.get(f"{project}/training-jobs/{job['id']}"), ended)
    assert found["status"] == "Success", found["error"]
    made = answer(
        platform, "deployments", "create", "--job", job["id"], "--checkpoint", "1", "--name", "captured",
        "--capture", "100", "--keep-days", "7", **HERE,
    )  # fmt: skip
    path = f"{project}/deployments/{made['id']}"
    deployed = until(lambda: client.get(path), ended)
    assert deployed["status"] == "Deployed", deployed["error"]
    assert deployed["capture"] == {"sample_percentage": 100.0, "keep_days": 7}
    return path


def run(client: Client, path: str) -> dict[str, Any]:
    """A run of the pipeline at `path`, once it has ended."""
    made = client.post(f"{path}/runs")
    return dict(until(lambda: client.get(f"{path}/runs/{made['id']}"), ended, seconds=240))


def content(client: Client, project: str, dataset: str) -> list[Any]:
    link = client.get(f"{project}/datasets/{dataset}")["dataset_download_url"]
    return [json.loads(line) for line in client.http.get(link).text.splitlines()]


def test_corrected_traffic_is_trained_on_and_what_it_makes_better_is_promoted(
    platform: Platform, client: Client, project: str, golden: str, live: str, tmp_path: Path
) -> None:
    body = {
        "name": "by-traffic",
        "gather": {"source": "traffic", "deployment_id": live.rpartition("/")[2]},
        "test_dataset_id": golden,
        "train": JOB | {"parameters": QUICK},
        "gate": {"minimum_score": {"exact_match_shared": 0.6}},
        "deployment_id": live.rpartition("/")[2],
    }
    pipeline = f"{project}/pipelines/{client.post(f'{project}/pipelines', body)['id']}"
    answers = {
        text: client.post("/v1/classification", {"model": "captured", "input": text})["id"] for text, _ in TRAINING
    }
    batch = client.post("/v1/classification", {"model": "captured", "input": ["hail", "a novel"]})["id"]
    found = until(lambda: client.get(f"{live}/traffic"), lambda entries: len(entries) == len(TRAINING) + 2, seconds=10)
    assert {row["answer_id"] for row in found} == {*answers.values(), batch}
    assert run(client, pipeline)["reason"] == "No new data."  # nobody has looked at any of it

    (first, topic), *others = TRAINING
    shown = answer(platform, "traffic", "correct", "captured", answers[first], topic, **HERE)
    assert shown["correction"] == {name: int(name == topic) for name in NAMES}
    assert emissary(platform, "traffic", "correct", "captured", answers[first], "music", **HERE).returncode == 1
    for text, right in others:
        client.call("PUT", f"{live}/traffic/{answers[text]}/correction", json={"output": right})
    assert "unreviewed" in fine(platform, "traffic", "list", "captured", "--state", "unreviewed", **HERE)
    file = tmp_path / "corrected.jsonl"
    fine(platform, "traffic", "download", "captured", "--only", "corrected", "-o", str(file), **HERE)
    assert [json.loads(line) for line in file.read_text().splitlines()] == rows(TRAINING)

    promoted = run(client, pipeline)
    assert (promoted["status"], promoted["outcome"]) == ("Success", "Promoted"), promoted
    assert content(client, project, promoted["train_dataset_id"]) == rows(TRAINING)
    decision = promoted["decision"]
    assert decision["challenger"]["scores"]["exact_match_shared"] > decision["champion"]["scores"]["exact_match_shared"]
    assert client.get(live)["training_id"] == promoted["training_job_id"]
    assert run(client, pipeline)["outcome"] == "Skipped"

    hail, novel = sorted((row for row in found if row["answer_id"] == batch), key=lambda row: row["position"])
    assert (hail["input"], novel["input"]) == ({"prompt": "hail"}, {"prompt": "a novel"})
    fine(platform, "traffic", "delete", "captured", novel["id"], **HERE)
    fine(platform, "traffic", "accept", "captured", hail["id"], **HERE)
    client.call("PUT", f"{live}/traffic/{hail['id']}/correction", json={"output": "weather"})
    merging = body | {"gather": body["gather"] | {"merge": True}}  # type: ignore[operator]
    client.call("PUT", pipeline, json=merging)
    second = run(client, pipeline)
    assert second["outcome"] in ("Promoted", "NotPromoted"), second
    assert content(client, project, second["train_dataset_id"]) == rows([*TRAINING, ("hail", "weather")])

    fine(platform, "traffic", "capture", "captured", "--off", **HERE)
    client.post("/v1/classification", {"model": "captured", "input": "rain"})
    assert len(client.get(f"{live}/traffic")) == len(TRAINING) + 1
    fine(platform, "traffic", "delete", "captured", "--all", **HERE)
    assert client.get(f"{live}/traffic") == []
