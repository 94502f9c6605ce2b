"""A real classifier as the judge of text answers: tried, in testing, and as the reward of a GRPO job."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from emissary.client import ApiError, Client
from emissary.up import Platform
from tests.command_line import answer, emissary, fine
from tests.engine_life import row, runs_of, until_status
from tests.jobs import ROWS, ended, until, upload
from tests.keys import make_key
from tests.tasks.pooled_run import ENCODER, FOOD, SPORT, encoder_dir
from tests.test_grpo_job import TINY

# A classifier is trained and deployed first, and its engine started twice.
pytestmark = pytest.mark.acceptance

PATH = "/v1/testing-functions"
TOPICS = [
    {"prompt": text, "completion": {"sport": int(texts is SPORT), "food": int(texts is FOOD)}}
    for texts in (SPORT, FOOD)
    for text in texts
]
IDLE_SECONDS = 3601  # of no other test's engine
SECONDS = 300.0


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "judged-jobs"})["id"])


@pytest.fixture(scope="module")
def deployment(client: Client, project: str) -> dict[str, Any]:
    """A deployed classifier of sport and food."""
    encoder_dir()
    dataset = upload(client, project, TOPICS, "topics")
    job = client.post(
        f"/v1/projects/{project}/training-jobs",
        {
            "name": "topic", "task_type": "classification", "base_model": ENCODER, "train_dataset_id": dataset,
            "parameters": {
                "num_train_epochs": 4, "per_device_train_batch_size": 4, "max_length": 32, "lora_r": 4,
                "learning_rate": 3e-3,
            },
        },
    )  # fmt: skip
    until_status(client, f"/v1/projects/{project}/training-jobs/{job['id']}", "Success")
    path = f"/v1/projects/{project}/deployments"
    body = {"training_job_id": job["id"], "checkpoint": 4, "name": "topic", "inactive_timeout": IDLE_SECONDS}
    return until_status(client, f"{path}/{client.post(path, body)['id']}", "Deployed")


@pytest.fixture(scope="module")
def sporty(client: Client, deployment: dict[str, Any]) -> Iterator[str]:
    """The name of the judge that says how much of sport is in an answer."""
    judge = {"deployment_id": "topic", "label": "sport", "input": "{predicted_output}"}
    made = client.post(PATH, {"name": "sporty", "judge": judge})
    assert made["judge"] == judge | {"deployment_id": deployment["id"]}
    assert (made["dependencies"], made["higher_is_better"], "content" in made) == ([], True, False)
    assert client.get(f"{PATH}/sporty") == made
    assert made in client.get(PATH)
    yield "sporty"
    client.call("DELETE", f"{PATH}/sporty")


def trying(*answers: str) -> dict[str, Any]:
    return {"rows": [{"input_text": "a", "expected_output": "b", "predicted_output": answer} for answer in answers]}


def test_a_judge_is_tried_changed_and_is_of_its_organization(
    client: Client, platform: Platform, deployment: dict[str, Any], sporty: str
) -> None:
    sport, empty, long, food = client.post(f"{PATH}/{sporty}/try", trying(SPORT[0], "", "word " * 300, FOOD[0]))
    asked = client.post("/v1/classification", {"model": "topic", "input": [SPORT[0], FOOD[0]], "data_format": "probs"})
    expected = [item["probs"]["sport"] for item in asked["data"]]
    assert [sport["score"], food["score"]] == pytest.approx(expected, abs=1e-4)
    assert sport["score"] > 0.6 > 0.4 > food["score"]
    assert empty == {"score": None, "error": "the text that the judge would read is empty", "traceback": None,
                     "stdout": ""}  # fmt: skip
    assert "302 tokens, but the model takes 256" in long["error"]
    changed = client.call("PUT", f"{PATH}/{sporty}", json={"judge": {"deployment_id": "topic", "label": "food"}})
    assert changed["judge"]["label"] == "food"
    assert client.post(f"{PATH}/{sporty}/try", trying(FOOD[0]))[0]["score"] > 0.6
    with pytest.raises(ApiError, match=r"judge\.label: 'rude' is not one of the labels .*: food, sport\."):
        client.call("PUT", f"{PATH}/{sporty}", json={"judge": {"deployment_id": "topic", "label": "rude"}})
    client.call("PUT", f"{PATH}/{sporty}", json={"judge": {"deployment_id": "topic", "label": "sport"}})
    stranger = Client(platform.api_url, make_key("judged-strangers"))
    for name in ("topic", deployment["id"]):
        with pytest.raises(ApiError, match=f"there is no deployment '{name}'"):
            stranger.post(PATH, {"name": "ours", "judge": {"deployment_id": name, "label": "sport"}})


def test_a_judge_by_the_command(platform: Platform, deployment: dict[str, Any], tmp_path: Any) -> None:
    made = answer(platform, "testing-functions", "add-judge", "by_command", "--deployment", "topic", "--label", "food")
    assert made["judge"] == {"deployment_id": deployment["id"], "label": "food", "input": "{predicted_output}"}
    changes = ("--deployment", "topic", "--label", "sport", "--input", "{input_text}: {predicted_output}")
    fine(platform, "testing-functions", "update-judge", "by_command", *changes)
    shown = fine(platform, "testing-functions", "show", "by_command")
    assert deployment["id"] in shown
    assert "{input_text}: {predicted_output}" in shown
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f'{{"input_text": "a", "expected_output": "b", "predicted_output": "{SPORT[0]}"}}\n')
    (tried,) = answer(platform, "testing-functions", "try", "by_command", str(rows))
    assert tried["score"] > 0.5
    fine(platform, "testing-functions", "delete", "by_command")
    assert emissary(platform, "testing-functions", "add-judge", "by_command").returncode == 2


def test_grpo_is_rewarded_and_tested_by_a_judge_whose_engine_has_ended(
    client: Client, platform: Platform, project: str, deployment: dict[str, Any], sporty: str
) -> None:
    engine = f"/v1/engines/{deployment['engine_id']}"
    client.post(f"{engine}/deactivate")
    until_status(client, engine, "Inactive")
    starts = len(runs_of(platform, deployment["engine_id"]))
    path = f"/v1/projects/{project}/training-jobs"
    body = {
        "name": "sporty", "base_model": "SmolLM2-135M-Instruct", "train_dataset_id": upload(client, project, ROWS),
        "test_dataset_id": upload(client, project, ROWS[:3], "colours-test"), "test_functions": [sporty],
        "reward": {sporty: 1.0}, "parameters": TINY,
    }  # fmt: skip
    job = client.post(f"{path}/grpo", body)
    with pytest.raises(ApiError, match="uses the testing function 'sporty' and has not ended"):
        client.call("DELETE", f"{PATH}/{sporty}")
    job = until(lambda: client.get(f"{path}/{job['id']}"), ended, SECONDS)
    assert job["status"] == "Success", job["error"]
    for point in job["training_loss"]:
        assert point["reward"] == pytest.approx(point["rewards"][sporty], abs=1e-5)
        assert 0 < point["reward"] < 1
    assert any(point["reward_std"] > 0 for point in job["training_loss"])
    (best,) = [found for found in client.get(f"{path}/{job['id']}/checkpoints") if found["is_best"]]
    link = best["test_results"]["general_test_result"]
    table = list(csv.DictReader(io.StringIO(httpx.get(link, trust_env=False).text)))
    scored = client.post(f"{PATH}/{sporty}/try", trying(*(line["output"] for line in table)))
    assert [float(line[sporty]) for line in table] == pytest.approx([line["score"] for line in scored], abs=1e-4)
    assert len(runs_of(platform, deployment["engine_id"])) == starts + 1
    assert row(deployment["engine_id"])[0] is not None


def test_a_job_whose_judge_is_deleted_ends_with_what_to_do(
    client: Client, project: str, deployment: dict[str, Any], sporty: str
) -> None:
    path = f"/v1/projects/{project}/training-jobs"
    dataset = upload(client, project, ROWS)
    body = {"base_model": "SmolLM2-135M-Instruct", "train_dataset_id": dataset, "test_functions": [sporty],
            "reward": {sporty: 1.0}, "parameters": TINY | {"num_train_epochs": 50, "save_steps": 1000}}  # fmt: skip
    path = f"{path}/{client.post(f'{path}/grpo', body)['id']}"
    until(lambda: client.get(path), lambda job: len(job["training_loss"]) > 0 or ended(job), SECONDS)
    client.call("DELETE", f"/v1/projects/{project}/deployments/{deployment['id']}")
    job = until(lambda: client.get(path), ended, SECONDS)
    assert job["status"] == "Failed"
    assert f"The judge 'sporty' cannot ask its deployment {deployment['id']}: it is Terminated." in job["error"]
    assert "another deployment with PUT /v1/testing-functions/sporty, then resume the job" in job["error"]
    with pytest.raises(ApiError, match=r"test_functions\[0\]: the judge 'sporty' asks the deployment"):
        client.post(f"{path}/resume")
    (tried,) = [client.http.post(f"{PATH}/{sporty}/try", json=trying("a"))]
    assert (tried.status_code, tried.json()["code"]) == (400, "judge_gone")
    assert f"its deployment {deployment['id']}: it is gone; give it another with PUT" in tried.json()["error"]
