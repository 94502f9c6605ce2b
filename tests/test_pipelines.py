"""Pipelines on the whole platform: what is better is deployed, what is worse is refused, nothing new trains nothing."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emissary.client import Client
from emissary.settings import PROJECT_ROOT
from emissary.up import Platform
from tests.engine_life import adapters, prefect, process_of, row
from tests.jobs import ended, until, upload
from tests.pipelines import SHORT, TEST, TRAINING, config, other, rows, run
from tests.tasks.pooled_run import ENCODER, encoder_dir
from tests.web_server import web_server

# Several trainings and an engine.
pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    encoder_dir()
    return str(client.post("/v1/projects", {"name": "pipelines"})["id"])


@pytest.fixture(scope="module")
def golden(client: Client, project: str) -> str:
    return upload(client, project, rows(TEST), "golden")


@pytest.fixture(scope="module")
def first_data(client: Client, project: str, golden: str) -> str:
    return upload(client, project, rows(TRAINING), "first")


@pytest.fixture(scope="module")
def champion(client: Client, project: str, golden: str, first_data: str) -> dict[str, Any]:
    """A deployment of a checkpoint that has learnt next to nothing."""
    path = f"/v1/projects/{project}"
    body = {
        "base_model": ENCODER,
        "task_type": "classification",
        "train_dataset_id": first_data,
        "test_dataset_id": golden,
        "test_functions": ["exact_match_shared"],
        "parameters": SHORT,
    }
    job = client.post(f"{path}/training-jobs", body)
    found = until(lambda: client.get(f"{path}/training-jobs/{job['id']}"), ended)
    assert found["status"] == "Success", found["error"]
    made = client.post(f"{path}/deployments", {"training_job_id": job["id"], "checkpoint": "best", "name": "live"})
    deployed = until(lambda: client.get(f"{path}/deployments/{made['id']}"), ended)
    assert deployed["status"] == "Deployed", deployed["error"]
    return dict(deployed)


@contextmanager
def subscribed(client: Client, project: str, *events: str) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Gives what a subscriber was told, in the order of arrival, once nothing is on its way any more."""
    with web_server() as web:
        web.answers["/hook"] = (204, {}, b"")
        path = f"/v1/projects/{project}/subscriptions"
        made = client.post(path, {"name": "subscriber", "url": f"{web.url}/hook", "events": events})

        def told() -> list[dict[str, Any]]:
            deliveries = f"{path}/{made['id']}/deliveries"
            until(lambda: client.get(f"{deliveries}?status=Pending"), lambda rows: not rows)
            assert len(client.get(deliveries)) == len(web.posted)
            return [json.loads(body) for body in web.posted]

        yield told
        client.delete(f"{path}/{made['id']}")


@pytest.fixture(scope="module")
def pipeline(client: Client, project: str, golden: str, champion: dict[str, Any]) -> str:
    body = config(golden, champion["id"])
    return str(client.post(f"/v1/projects/{project}/pipelines", body)["id"])


def sent(client: Client, path: str, hook: dict[str, Any], dataset: str) -> dict[str, Any]:
    """The ended run of what README.md's own commands send to the webhook."""
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"^```sh\n(url=.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    for example, value in (("https://emissary.example.com/v1/webhooks/wh-…", hook["url"]), ("whsec_…", hook["secret"])):
        commands = commands.replace(example, value)
    script = ["bash", "-euo", "pipefail", "-c", commands.replace("ds-…", dataset)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run_id = json.loads(done.stdout)["pipeline_run_id"]
    return dict(until(lambda: client.get(f"{path}/runs/{run_id}"), ended, seconds=240))


def ask(client: Client, model: str) -> list[str]:
    """The labels that the model gives the test texts."""
    answers = [
        client.post("/v1/classification", {"model": model, "input": text, "data_format": "probs"})["data"][0]
        for text, _ in TEST
    ]
    return [max(answer["probs"], key=answer["probs"].get) for answer in answers]


def test_better_checkpoint_is_promoted_by_webhook_then_nothing_is_new_then_a_worse_one_is_refused(
    platform: Platform, client: Client, project: str, first_data: str, pipeline: str, champion: dict[str, Any]
) -> None:
    outcomes = [f"pipeline_run.{outcome}" for outcome in ("promoted", "not_promoted", "skipped", "failed")]
    with subscribed(client, project, "deployment.updated", *outcomes) as told:
        runs = _promoted_skipped_and_refused(platform, client, project, first_data, pipeline, champion)
        updated, *others = told()
    assert (updated["type"], updated["data"]["id"]) == ("deployment.updated", champion["id"])
    assert [(event["type"], event["data"]["id"]) for event in others] == [
        ("pipeline_run.promoted", runs[0]["id"]),
        ("pipeline_run.skipped", runs[1]["id"]),
        ("pipeline_run.not_promoted", runs[2]["id"]),
    ]
    assert others[2]["data"]["reason"] == runs[2]["reason"]
    assert others[2]["data"]["decision"] == runs[2]["decision"]


def _promoted_skipped_and_refused(
    platform: Platform, client: Client, project: str, first_data: str, pipeline: str, champion: dict[str, Any]
) -> list[dict[str, Any]]:
    path = f"/v1/projects/{project}/pipelines/{pipeline}"
    hook = client.post(
        f"{path}/webhooks", {"name": "labelling", "parameters": {"datasets": ["{{ payload.dataset_id }}"]}}
    )
    deployment = f"/v1/projects/{project}/deployments/{champion['id']}"
    before = ask(client, "live")
    promoted = sent(client, path, hook, first_data)
    assert (promoted["status"], promoted["outcome"]) == ("Success", "Promoted"), promoted
    assert (promoted["trigger"], promoted["trigger_id"]) == ("webhook", hook["id"])
    decision = promoted["decision"]
    assert decision["champion"]["training_job_id"] == champion["training_id"]
    assert decision["challenger"]["scores"]["exact_match_shared"] > decision["champion"]["scores"]["exact_match_shared"]
    assert {rule["rule"] for rule in decision["rules"]} == {
        "minimum_score",
        "minimum_improvement",
        "class_tolerance",
        "confidence",
    }
    serves = client.get(deployment)
    assert (serves["id"], serves["status"]) == (champion["id"], "Deployed")
    assert serves["training_id"] == promoted["training_job_id"] == decision["challenger"]["training_job_id"]
    assert serves["checkpoint"] == decision["challenger"]["checkpoint"]
    answers = ask(client, "live")
    right = sum(answer == topic for answer, (_, topic) in zip(answers, TEST, strict=True)) / len(TEST)
    assert right == pytest.approx(decision["challenger"]["scores"]["exact_match_shared"])
    assert answers != before
    assert adapters(champion["engine_id"]) == [champion["id"]]

    jobs = len(client.get(f"/v1/projects/{project}/training-jobs"))
    skipped = run(client, path)
    assert (skipped["status"], skipped["outcome"], skipped["reason"]) == ("Success", "Skipped", "No new data.")
    assert len(client.get(f"/v1/projects/{project}/training-jobs")) == jobs
    state = prefect(platform).get(f"/flow_runs/{skipped['flow_run_id']}").json()["state"]
    assert (state["type"], state["name"]) == ("COMPLETED", "Skipped")

    refused = sent(client, path, hook, upload(client, project, rows(TRAINING, turn=1), "shuffled"))
    assert (refused["status"], refused["outcome"]) == ("Success", "NotPromoted"), refused
    assert "minimum_improvement of exact_match_shared is -" in refused["reason"]
    assert refused["decision"]["champion"]["training_job_id"] == promoted["training_job_id"]
    assert client.get(deployment)["training_id"] == promoted["training_job_id"]
    assert ask(client, "live") == answers
    job = client.get(f"/v1/projects/{project}/training-jobs/{refused['training_job_id']}")
    decided = {"id": refused["id"], "outcome": "NotPromoted", "decision": refused["decision"]}
    assert job["pipeline_run"] == decided | {"pipeline_id": pipeline}
    markdown = prefect(platform).post(
        "/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [refused["flow_run_id"]]}}}
    )
    found = {artifact["key"].partition("-")[0]: str(artifact["data"]) for artifact in markdown.json()}
    assert "# Not promoted" in found["decision"]
    api = f"{platform.api_url}/v1/projects/{project}"
    run_link = f"{api}/pipelines/{pipeline}/runs/{refused['id']}"
    assert run_link in found["api"]
    assert f"({run_link})" in found["decision"]
    assert f"({api}/training-jobs/{job['id']})" in found["decision"]
    return [promoted, skipped, refused]


def test_checkpoint_that_cannot_be_loaded_leaves_the_champion_in_place(
    client: Client, project: str, golden: str, champion: dict[str, Any]
) -> None:
    deployment = f"/v1/projects/{project}/deployments/{champion['id']}"
    before, answers = client.get(deployment), ask(client, "live")
    body = config(golden, champion["id"], name="damaged", gate={"minimum_improvement": -1})
    path = other(client, project, **body)
    made = client.post(f"{path}/runs")
    started = until(lambda: client.get(f"{path}/runs/{made['id']}"), lambda found: found["training_job_id"])
    job = until(lambda: client.get(f"/v1/projects/{project}/training-jobs/{started['training_job_id']}"), ended)
    # The champion is still being scored.
    store = Path(os.environ["EMISSARY_HOME"]) / "artifacts/training-jobs" / job["id"] / "checkpoints"
    (store / str(job["best_checkpoint"]) / "adapter_model.safetensors").write_bytes(b"damaged")
    found = until(lambda: client.get(f"{path}/runs/{made['id']}"), ended)
    assert (found["status"], found["outcome"], found["decision"]["promoted"]) == ("Failed", "Failed", True), found
    assert "could not be put in place" in found["reason"]
    assert f"'live' serves checkpoint {before['checkpoint']} of {before['training_id']}." in found["reason"]
    assert client.get(deployment) == before
    assert ask(client, "live") == answers


def test_engine_that_dies_before_it_has_the_new_checkpoint_gets_it_when_it_is_back(
    platform: Platform, client: Client, project: str, golden: str, champion: dict[str, Any]
) -> None:
    deployment = f"/v1/projects/{project}/deployments/{champion['id']}"
    short = config(golden, None)["train"] | {"parameters": SHORT}
    body = config(golden, champion["id"], name="dying", gate={"minimum_improvement": -1}, train=short)
    upload(client, project, rows(TRAINING[::-1]), "dying")
    path = other(client, project, **body)
    made = client.post(f"{path}/runs")
    started = until(lambda: client.get(f"{path}/runs/{made['id']}"), lambda found: found["training_job_id"])
    until(lambda: client.get(f"/v1/projects/{project}/training-jobs/{started['training_job_id']}"), ended)
    _, flow_run = row(champion["engine_id"])
    assert flow_run is not None
    engine = process_of(platform, flow_run)
    os.kill(engine, signal.SIGSTOP)  # so the run finds it Active, and asks it
    until(lambda: client.get(f"{path}/runs/{made['id']}"), lambda found: found["decision"])
    os.kill(engine, signal.SIGKILL)
    found = until(lambda: client.get(f"{path}/runs/{made['id']}"), ended)
    assert (found["status"], found["outcome"]) == ("Success", "Promoted"), found
    assert client.get(deployment)["training_id"] == found["training_job_id"]
    assert len(ask(client, "live")) == len(TEST)


def test_person_decides_in_prefect_or_over_the_api_while_no_process_waits(
    platform: Platform, client: Client, project: str, golden: str, champion: dict[str, Any]
) -> None:
    deployment = f"/v1/projects/{project}/deployments/{champion['id']}"
    short = config(golden, None)["train"] | {"parameters": SHORT}
    gate = {"minimum_improvement": -1, "approval": True}
    for name, turn in (("asking", 0), ("rejecting", 1)):
        upload(client, project, rows(TRAINING[turn:]), name)
        before = client.get(deployment)
        path = other(client, project, **config(golden, champion["id"], name=name, gate=gate, train=short))
        made = client.post(f"{path}/runs")
        waiting = until(
            lambda path=path, made=made: client.get(f"{path}/runs/{made['id']}"),
            lambda found: (found["approval"] and found["status"] == "Pending") or ended(found),
        )
        assert waiting["outcome"] is None, waiting
        assert "waits for a person's approval" in waiting["reason"]
        with prefect(platform) as http:
            flow_run = f"/flow_runs/{waiting['flow_run_id']}"
            found = http.get(flow_run).json()
            assert found["state"]["name"] == "Suspended"
            process = int(found["infrastructure_pid"].split(":")[1])
            until(lambda process=process: Path(f"/proc/{process}").exists(), lambda exists: not exists, seconds=20)
            if name == "asking":
                wrong = http.post(f"{flow_run}/resume", json={"run_input": {"approve": "perhaps"}}).json()
                assert wrong["status"] == "REJECT", wrong
                given = http.post(f"{flow_run}/resume", json={"run_input": {"approve": True, "reason": "Fine."}})
                assert given.json()["status"] == "ACCEPT", given.json()
            else:
                client.post(f"{path}/runs/{made['id']}/reject", {"reason": "Not today."})
        last = until(lambda path=path, made=made: client.get(f"{path}/runs/{made['id']}"), ended)
        serves = client.get(deployment)
        if name == "asking":
            assert (last["status"], last["outcome"]) == ("Success", "Promoted"), last
            assert (last["approval"]["approved"], last["approval"]["reason"]) == (True, "Fine.")
            assert serves["training_id"] == last["training_job_id"]
        else:
            assert (last["status"], last["outcome"]) == ("Success", "NotPromoted"), last
            assert last["reason"] == "It passed the gate, and was not approved. Not today."
            assert serves == before
        client.call("DELETE", path)


def test_promotion_that_makes_answers_slow_is_rolled_back_though_the_run_is_killed_while_it_watches(
    platform: Platform, client: Client, project: str, golden: str, champion: dict[str, Any]
) -> None:
    deployment = f"/v1/projects/{project}/deployments/{champion['id']}"
    short = config(golden, None)["train"] | {"parameters": SHORT}
    watch = {"watch_seconds": 120, "min_requests": 10, "max_latency_ratio": 3}
    gate = {"minimum_improvement": -1}
    upload(client, project, rows(TRAINING[:-1]), "watched")
    before = client.get(deployment)
    answers = ask(client, "live")
    for _ in range(10):
        client.post("/v1/classification", {"model": "live", "input": "rain"})
    path = other(client, project, **config(golden, champion["id"], name="watched", gate=gate, train=short, watch=watch))
    made = client.post(f"{path}/runs")

    def promoted(found: dict[str, Any]) -> bool:
        return bool(found["promotion"] and found["promotion"]["deployed"]) or ended(found)

    watching = until(lambda: client.get(f"{path}/runs/{made['id']}"), promoted)
    assert watching["status"] == "Running", watching
    assert client.get(deployment)["training_id"] == watching["training_job_id"]
    os.kill(process_of(platform, watching["flow_run_id"]), signal.SIGKILL)
    for _ in range(12):
        client.post("/v1/classification", {"model": "live", "input": ["snow and rain " * 8] * 64})
    last = until(lambda: client.get(f"{path}/runs/{made['id']}"), ended)
    assert (last["status"], last["outcome"]) == ("Success", "RolledBack"), last
    assert "the median answer took" in last["reason"]
    assert last["promotion"]["watch_until"] == watching["promotion"]["watch_until"]
    assert last["promotion"]["before"]["requests"] >= 10
    assert last["promotion"]["after"]["requests"] >= 10
    assert client.get(deployment) == before | {"updated_at": client.get(deployment).get("updated_at")}
    assert ask(client, "live") == answers
    assert run(client, path)["reason"] == "No new data."

    upload(client, project, rows(TRAINING[1:]), "unwatched")
    quiet = config(golden, champion["id"], name="watched", gate=gate, train=short, watch={"watch_seconds": 2})
    client.call("PUT", path, json=quiet)
    kept = run(client, path)
    assert (kept["outcome"], kept["promotion"]["rolled_back"]) == ("Promoted", None), kept
    assert kept["reason"].endswith("It was watched for 2 s, in which no request came; it is kept.")
