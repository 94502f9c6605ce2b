"""The main job on the whole platform: real database, Prefect, training, testing, engine; a tiny dataset."""

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from peft import PeftModel
from PIL import Image
from transformers import AutoModelForCausalLM

from emissary.client import ApiError, Client
from emissary.up import Platform
from tests.jobs import ROWS, TINY, ended, until, upload


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "main-job"})["id"])


@pytest.fixture(scope="module")
def job(client: Client, project: str) -> dict[str, Any]:
    """A finished training job with two checkpoints and two testing functions."""
    body = {
        "name": "colours",
        "base_model": "SmolLM2-135M-Instruct",
        "train_dataset_id": upload(client, project, ROWS),
        "test_dataset_id": upload(client, project, ROWS[:3], "colours-test"),
        "test_functions": ["exact_match_shared", "test_similarity_shared"],
        "parameters": TINY,
    }
    path = f"/v1/projects/{project}/training-jobs"
    created = client.post(path, body)
    assert created["status"] == "Pending"
    found = until(lambda: client.get(f"{path}/{created['id']}"), ended)
    assert found["status"] == "Success", found["error"]
    return dict(found)


def test_job_reports_loss_progress_and_best_checkpoint(job: dict[str, Any]) -> None:
    assert job["progress"] == 100
    assert job["training_loss"]
    assert job["best_checkpoint"] in (1, 2)
    assert job["hyper_parameters"]["num_train_epochs"] == 2


def test_checkpoints_have_scores_and_working_links(
    client: Client, project: str, job: dict[str, Any], base_model_dir: Path, tmp_path: Path
) -> None:
    checkpoints = client.get(f"/v1/projects/{project}/training-jobs/{job['id']}/checkpoints")
    assert [row["checkpoint"] for row in checkpoints] == [1, 2]
    results = checkpoints[0]["test_results"]
    table = list(csv.DictReader(io.StringIO(httpx.get(results["general_test_result"], trust_env=False).text)))
    assert [row["expected_output"] for row in table] == ["red", "green", "blue"]
    mean = sum(float(row["test_similarity_shared"]) for row in table) / 3
    assert float(results["aggregated_test_result"]["test_similarity_shared"]) == pytest.approx(mean, rel=1e-4)
    summary = results["test_summary"]["test_similarity_shared"]
    assert summary["mean"] == pytest.approx(mean)
    assert summary["low"] <= mean <= summary["high"]
    assert summary["difference"]["mean"] == pytest.approx(mean - summary["base"]["mean"])
    worst = min(table, key=lambda row: float(row["test_similarity_shared"]))
    assert (summary["worst"][0]["row"], summary["worst"][0]["output"]) == (table.index(worst) + 1, worst["output"])
    assert results["metrics"]["exact_match"] == float(results["aggregated_test_result"]["exact_match_shared"])
    assert 0 <= results["metrics"]["chrf"] <= 1
    assert list(checkpoints[0]["plots"]) == ["score_histogram"]
    plot = httpx.get(checkpoints[0]["plots"]["score_histogram"], trust_env=False)
    assert plot.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(plot.content)).format == "PNG"
    archive = httpx.get(checkpoints[0]["model_download_url"], trust_env=False)
    zipfile.ZipFile(io.BytesIO(archive.content)).extractall(tmp_path)
    assert not list(tmp_path.rglob("*.png"))
    base = AutoModelForCausalLM.from_pretrained(base_model_dir)
    assert PeftModel.from_pretrained(base, tmp_path).peft_config["default"].r == 2


def test_prefect_shows_checkpoints_answers_progress_and_the_way_to_the_api(
    client: Client, platform: Platform, project: str, job: dict[str, Any]
) -> None:
    wanted = {"artifacts": {"flow_run_id": {"any_": [job["flow_run_id"]]}}, "sort": "CREATED_DESC"}
    found = httpx.post(f"{platform.prefect_url}/api/artifacts/filter", json=wanted, trust_env=False).json()
    key = job["id"].lower().replace("_", "-")
    last = {artifact["key"].removesuffix(f"-{key}"): artifact["data"] for artifact in reversed(found)}
    assert {"api", "progress", "loss", "checkpoints", "answers"} <= set(last)
    rows = json.loads(last["checkpoints"])
    assert [row["checkpoint"] for row in rows] == ["base", 1, 2]
    assert all("[" in row["test_similarity_shared"] for row in rows)
    assert [artifact["data"] for artifact in found if artifact["type"] == "progress"] == [100]
    assert f"{platform.api_url}/v1/projects/{project}/training-jobs/{job['id']}" in last["api"]
    answers, best = json.loads(last["answers"]), f"checkpoint {job['best_checkpoint']}"
    results = client.get(f"/v1/projects/{project}/training-jobs/{job['id']}/checkpoints")
    scores = [row[f"test_similarity_shared, {best}"] for row in answers]
    summary = results[job["best_checkpoint"] - 1]["test_results"]["test_summary"]["test_similarity_shared"]
    assert sum(scores) / len(scores) == pytest.approx(summary["mean"])
    assert all(row["base model"] != row[best] for row in answers)


def test_link_that_was_tampered_with_is_refused(client: Client, project: str, job: dict[str, Any]) -> None:
    link = client.get(f"/v1/projects/{project}/training-jobs/{job['id']}/checkpoints")[0]["model_download_url"]
    assert httpx.get(link[:-3] + "xyz", trust_env=False).status_code == 404


def test_best_checkpoint_and_base_model_are_deployed_and_answer(
    client: Client, platform: Platform, project: str, job: dict[str, Any]
) -> None:
    path = f"/v1/projects/{project}/deployments"
    for checkpoint, name in (("best", "tuned"), (0, "plain")):
        made = client.post(path, {"training_job_id": job["id"], "checkpoint": checkpoint, "name": name})
        found = until(lambda made=made: client.get(f"{path}/{made['id']}"), ended)
        assert found["status"] == "Deployed", found["error"]
    engines = client.get("/v1/engines")
    assert [(engine["status"], engine["deployment_counts"]) for engine in engines] == [("Active", 2)]
    body = {"messages": [{"role": "user", "content": "Say red."}], "temperature": 0, "max_tokens": 5}
    whole = client.post("/v1/chat/completions", body | {"model": "tuned"})
    assert whole["model"] == "tuned"
    assert whole["usage"]["completion_tokens"] <= 5
    for model in ("plain", "SmolLM2-135M-Instruct"):
        assert client.post("/v1/completions", {"model": model, "prompt": "Hello", "max_tokens": 3})["choices"]
    headers = {"Authorization": f"Bearer {platform.api_key}"}
    streamed = httpx.post(
        f"{platform.api_url}/v1/chat/completions",
        json=body | {"model": "tuned", "stream": True},
        headers=headers,
        timeout=60,
        trust_env=False,
    )
    assert streamed.headers["content-type"].startswith("text/event-stream")
    chunks = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    client.call("DELETE", f"{path}/{found['id']}")
    with pytest.raises(ApiError) as error:
        client.post("/v1/completions", {"model": "plain", "prompt": "Hello"})
    assert error.value.status == 404


def test_deactivated_engine_comes_back_with_its_deployments(client: Client, project: str) -> None:
    (engine,) = client.get("/v1/engines")
    (tuned,) = [row for row in client.get(f"/v1/projects/{project}/deployments") if row["name"] == "tuned"]
    path = f"/v1/projects/{project}/deployments/{tuned['id']}"
    client.post(f"/v1/engines/{engine['id']}/deactivate")
    until(lambda: client.get(path)["status"], lambda status: status == "Deactivated")
    client.post(f"{path}/reactivate")
    until(lambda: client.get(path)["status"], lambda status: status == "Deployed")
    assert client.post("/v1/completions", {"model": "tuned", "prompt": "Hello", "max_tokens": 1})["choices"]


def slow_job(client: Client, project: str) -> str:
    """Path of a job that runs long enough to be interfered with."""
    body = {
        "base_model": "SmolLM2-135M-Instruct",
        "train_dataset_id": upload(client, project, ROWS),
        "parameters": TINY | {"num_train_epochs": 100},
    }
    path = f"/v1/projects/{project}/training-jobs"
    return f"{path}/{client.post(path, body)['id']}"


def test_cancel_in_prefect_shows_in_the_api_within_two_seconds(
    client: Client, platform: Platform, project: str
) -> None:
    path = slow_job(client, project)
    job = until(lambda: client.get(path), lambda job: job["status"] == "Running" and job["flow_run_id"])
    prefect = httpx.Client(base_url=f"{platform.prefect_url}/api", trust_env=False)
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    prefect.post(f"/flow_runs/{job['flow_run_id']}/set_state", json=state).raise_for_status()
    until(lambda: client.get(path)["status"], lambda status: status == "Cancelled", seconds=2)
    until(
        lambda: prefect.get(f"/flow_runs/{job['flow_run_id']}").json()["state"]["type"],
        lambda state: state == "CANCELLED",
        seconds=30,
    )


def test_cancel_by_the_api_stops_the_run_and_is_refused_a_second_time(client: Client, project: str) -> None:
    path = slow_job(client, project)
    until(lambda: client.get(path)["status"], lambda status: status == "Running")
    client.post(f"{path}/cancel")
    assert client.get(path)["status"] == "Cancelled"
    with pytest.raises(ApiError, match="has ended already"):
        client.post(f"{path}/cancel")


def test_run_started_from_prefects_form_registers_its_own_job(client: Client, platform: Platform, project: str) -> None:
    prefect = httpx.Client(base_url=f"{platform.prefect_url}/api", trust_env=False)
    flow_deployment = prefect.get("/deployments/name/train_sft/train_sft").json()
    request = {
        "name": "from-the-form",
        "base_model": "SmolLM2-135M-Instruct",
        "train_dataset_id": upload(client, project, ROWS[:2]),
        "parameters": TINY | {"num_train_epochs": 1},
    }
    body = {"parameters": {"project_id": project, "request": request}}
    run = prefect.post(f"/deployments/{flow_deployment['id']}/create_flow_run", json=body).json()

    def mine() -> list[dict[str, Any]]:
        jobs = client.get(f"/v1/projects/{project}/training-jobs")
        return [job for job in jobs if job["name"] == "from-the-form" and ended(job)]

    (job,) = until(mine, bool)
    detail = client.get(f"/v1/projects/{project}/training-jobs/{job['id']}")
    assert (detail["status"], detail["flow_run_id"]) == ("Success", run["id"])
    assert detail["best_checkpoint"] is None
