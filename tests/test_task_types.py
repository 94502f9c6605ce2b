"""Classification, regression and embedding on the whole platform, from upload to call; a tiny dataset each."""

import csv
import io
import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from openai import OpenAI
from PIL import Image

from emissary.client import ApiError, Client
from emissary.up import Platform
from tests.jobs import ended, until, upload
from tests.tasks.pooled_run import ENCODER, TOPICS, encoder_dir, peft_outputs

# Each task type is trained, deployed and called on the whole platform.
pytestmark = pytest.mark.acceptance

TOPIC_ROWS = [
    {"prompt": text, "completion": {name: int(name == topic) for name in TOPICS}}
    for topic, texts in TOPICS.items()
    for text in texts
]
PAIR_ROWS = [
    {"itemA": {"text": first}, "itemB": {"text": second}, "similarity": 1 if one == other else -0.5}
    for one, left in TOPICS.items()
    for other, right in TOPICS.items()
    for first, second in zip(left[:2], right[2:], strict=True)
]
QUICK = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 4,
    "max_length": 32,
    "lora_r": 4,
    "learning_rate": 3e-3,
}


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "task-types"})["id"])


def train(client: Client, project: str, task_type: str, rows: list[dict[str, Any]], **body: Any) -> dict[str, Any]:
    """A finished job on the small encoder, tested on the rows that it is trained on."""
    encoder_dir()
    path = f"/v1/projects/{project}/training-jobs"
    dataset = upload(client, project, rows, task_type)
    request = {
        "name": f"a-{task_type}",
        "task_type": task_type,
        "base_model": ENCODER,
        "train_dataset_id": dataset,
        "test_dataset_id": dataset,
        "parameters": QUICK,
    }
    created = client.post(path, request | body)
    found = until(lambda: client.get(f"{path}/{created['id']}"), ended, seconds=300)
    assert found["status"] == "Success", found["error"]
    return dict(found)


def deploy(client: Client, project: str, job_id: str, checkpoint: int | str, name: str) -> dict[str, Any]:
    path = f"/v1/projects/{project}/deployments"
    made = client.post(path, {"training_job_id": job_id, "checkpoint": checkpoint, "name": name})
    found = until(lambda: client.get(f"{path}/{made['id']}"), ended, seconds=300)
    assert found["status"] == "Deployed", found["error"]
    return dict(found)


def results(client: Client, project: str, job: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """The best checkpoint, and its test results row by row."""
    checkpoints = client.get(f"/v1/projects/{project}/training-jobs/{job['id']}/checkpoints")
    (best,) = [row for row in checkpoints if row["is_best"]]
    link = best["test_results"]["general_test_result"]
    return best, list(csv.DictReader(io.StringIO(httpx.get(link, trust_env=False).text)))


def pictures(checkpoint: dict[str, Any]) -> set[str]:
    """Names of the plots; the link of each gives a PNG."""
    for link in checkpoint["plots"].values():
        Image.open(io.BytesIO(httpx.get(link, trust_env=False).content)).verify()
    return set(checkpoint["plots"])


@pytest.fixture(scope="module")
def topics(client: Client, project: str) -> dict[str, Any]:
    """A finished classification job that sees twice as many rows of food as of the others."""
    rebalanced = {"food": 8, "sport": 4, "weather": 4}
    functions = ["exact_match_shared", "sample_match_combined_metric_shared"]
    return train(client, project, "classification", TOPIC_ROWS, test_functions=functions, rebalance_data=rebalanced)


def test_classification_learns_and_is_tested_by_label_name(
    client: Client, project: str, topics: dict[str, Any], tmp_path: Path
) -> None:
    assert topics["task_type"] == "classification"
    assert topics["training_loss"][-1]["step"] == 3 * 16 / 4  # epochs, rows, rows a step
    best, table = results(client, project, topics)
    assert table[0]["input"] == TOPIC_ROWS[0]["prompt"]
    assert {row["expected_output"] for row in table} == set(TOPICS)
    right = sum(row["expected_output"] == row["output"] for row in table) / len(table)
    assert right > 0.9
    assert float(best["test_results"]["aggregated_test_result"]["exact_match_shared"]) == pytest.approx(right, abs=1e-3)
    summary = best["test_results"]["test_summary"]["exact_match_shared"]
    assert (summary["base"], summary["difference"]) == (None, None)  # the base model has no head
    metrics, classes = (best["test_results"][name] for name in ("metrics", "class_metrics"))
    assert metrics["accuracy"] == pytest.approx(right)
    assert {name: values["support"] for name, values in classes.items()} == dict.fromkeys(sorted(TOPICS), 4)
    for row in table:
        probabilities = json.loads(row["probabilities"])
        assert max(probabilities, key=probabilities.get) == row["output"]
        assert sum(probabilities.values()) == pytest.approx(1, abs=1e-4)
    assert pictures(best) == {"confusion_matrix", "precision_recall", "roc", "calibration"}
    archive = httpx.get(best["model_download_url"], trust_env=False)
    zipfile.ZipFile(io.BytesIO(archive.content)).extractall(tmp_path)
    scores = peft_outputs(encoder_dir(), tmp_path, [row["input"] for row in table], 3)
    assert [sorted(TOPICS)[int(row.argmax())] for row in scores] == [row["output"] for row in table]


def test_plots_are_pictures_of_the_run_in_prefect(platform: Platform, topics: dict[str, Any]) -> None:
    wanted = {"artifacts": {"flow_run_id": {"any_": [topics["flow_run_id"]]}, "type": {"any_": ["image"]}}}
    found = httpx.post(f"{platform.prefect_url}/api/artifacts/filter", json=wanted, trust_env=False).json()
    keys = Counter(artifact["key"].removesuffix(f"-{topics['id']}".lower()) for artifact in found)
    for plot in ("confusion-matrix", "precision-recall", "roc", "calibration"):
        assert keys[plot] == 3  # a version per checkpoint
    assert all(artifact["data"].startswith("data:image/png;base64,") for artifact in found)


def test_classifiers_share_an_engine_and_answer_scores_by_label(
    client: Client, project: str, topics: dict[str, Any]
) -> None:
    deployed = deploy(client, project, topics["id"], "best", "topics")
    assert deployed["metadata"] == {"labels": ["food", "sport", "weather"]}
    assert deploy(client, project, topics["id"], 1, "early-topics")["engine_id"] == deployed["engine_id"]
    texts = [TOPIC_ROWS[0]["prompt"], TOPIC_ROWS[5]["prompt"]]
    answer = client.post("/v1/classification", {"model": "topics", "input": texts, "data_format": "probs"})
    assert answer["model"] == "topics"
    assert [row["index"] for row in answer["data"]] == [0, 1]
    assert [max(row["probs"], key=row["probs"].get) for row in answer["data"]] == ["sport", "food"]
    assert sum(answer["data"][0]["probs"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0
    (single,) = client.post("/v1/classification", {"model": "topics", "input": texts[0]})["data"]
    assert max(single["logits"], key=single["logits"].get) == "sport"
    early = client.post("/v1/classification", {"model": "early-topics", "input": texts[0]})["data"][0]["logits"]
    assert early != pytest.approx(single["logits"], abs=1e-3)
    with pytest.raises(ApiError, match=r"input\[1\]: a text has \d+ tokens, but the model takes 256"):
        client.post("/v1/classification", {"model": "topics", "input": ["short", "word " * 400]})
    for path, body in (("/v1/embeddings", {"input": "a"}), ("/v1/completions", {"prompt": "a"})):
        with pytest.raises(ApiError, match="for classification; call it by POST /v1/classification") as error:
            client.post(path, body | {"model": "topics"})
        assert error.value.status == 400


NUMBER_ROWS = [
    {"prompt": text, "completion": price}
    for price, texts in zip((100, 300, 500), TOPICS.values(), strict=True)
    for text in texts
]


@pytest.mark.parametrize(
    ("task_type", "rows"),
    [("classification", TOPIC_ROWS), ("regression", NUMBER_ROWS), ("embedding", PAIR_ROWS)],
)
def test_chain_of_jobs_trains_one_adapter_on(
    client: Client, project: str, task_type: str, rows: list[dict[str, Any]]
) -> None:
    parameters = QUICK | {"num_train_epochs": 1, "logging_steps": 1, "learning_rate": 1e-3}
    first = train(client, project, task_type, rows, name=f"{task_type}-1", parameters=parameters)
    jobs = [first]
    for depth in (2, 3):
        start = {"base_model_option": "fine-tuned", "base_model": jobs[-1]["id"], "name": f"{task_type}-{depth}"}
        jobs.append(train(client, project, task_type, rows, parameters=parameters, **start))
    assert [job["base_fine_tuned_model"] for job in jobs[1:]] == [f"{task_type}-1", f"{task_type}-2"]
    losses = [np.mean([point["loss"] for point in job["training_loss"]]) for job in jobs]
    assert losses[2] < losses[1] < losses[0]
    served = [deploy(client, project, job["id"], "best", f"{job['name']}-best") for job in (jobs[0], jobs[2])]
    assert served[0]["engine_id"] == served[1]["engine_id"]
    other = "regression" if task_type == "embedding" else "embedding"
    with pytest.raises(ApiError, match=f"was trained for {task_type}, not {other}"):
        train(client, project, other, rows, base_model_option="fine-tuned", base_model=first["id"])


def test_base_model_of_a_classification_is_not_deployed(client: Client, project: str, topics: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="has not learnt any classification"):
        client.post(f"/v1/projects/{project}/deployments", {"training_job_id": topics["id"], "checkpoint": 0})


def test_regression_learns_and_answers_numbers_in_their_own_units(client: Client, project: str) -> None:
    prices = {"food": 100.0, "sport": 300.0, "weather": 500.0}
    rows = [{"prompt": text, "completion": prices[topic]} for topic, texts in TOPICS.items() for text in texts]
    functions = ["regression_mae_shared"]
    job = train(
        client, project, "regression", rows, parameters=QUICK | {"num_train_epochs": 8}, test_functions=functions
    )
    best, table = results(client, project, job)
    checkpoints = client.get(f"/v1/projects/{project}/training-jobs/{job['id']}/checkpoints")
    means = [float(row["test_results"]["aggregated_test_result"]["regression_mae_shared"]) for row in checkpoints]
    assert means[best["checkpoint"] - 1] == min(means)
    assert best["test_results"]["metrics"]["mae"] == pytest.approx(min(means), rel=1e-4)
    assert set(best["test_results"]["metrics"]) == {"mae", "rmse", "r2", "spearman"}
    assert pictures(best) == {"predicted_vs_true", "residuals"}
    assert [float(row["expected_output"]) for row in table] == [row["completion"] for row in rows]
    errors = [abs(float(row["expected_output"]) - float(row["output"])) for row in table]
    assert np.mean(errors) < 80  # always saying the mean is 133 off
    deployed = deploy(client, project, job["id"], "best", "prices")
    assert client.get(f"/v1/engines/{deployed['engine_id']}")["task_type"] == "regression"
    texts = [row["prompt"] for row in rows]
    answer = client.post("/v1/regression", {"model": "prices", "input": texts})
    assert [row["index"] for row in answer["data"]] == list(range(len(texts)))
    tested = [float(row["output"]) for row in table]
    assert [row["logits"] for row in answer["data"]] == pytest.approx(tested, abs=5)
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] > 0
    (single,) = client.post("/v1/regression", {"model": "prices", "input": texts[0]})["data"]
    assert single["logits"] == pytest.approx(tested[0], abs=5)
    (labelled,) = client.post("/v1/classification", {"model": "prices", "input": texts[0]})["data"]
    assert labelled["logits"] == {"value": pytest.approx(single["logits"], abs=0.01)}
    for path, body in (("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
                       ("/v1/embeddings", {"input": "a"})):  # fmt: skip
        with pytest.raises(ApiError, match="for regression; call it by POST /v1/") as error:
            client.post(path, body | {"model": "prices"})
        assert error.value.status == 400
    with pytest.raises(ApiError, match="has not learnt any regression"):
        client.post(f"/v1/projects/{project}/deployments", {"training_job_id": job["id"], "checkpoint": 0})


def test_embedding_learns_and_answers_openais_client_and_comparisons(
    client: Client, platform: Platform, project: str
) -> None:
    job = train(client, project, "embedding", PAIR_ROWS, test_functions=["cosine_closeness_shared"])
    best, table = results(client, project, job)
    summary = best["test_results"]["test_summary"]["cosine_closeness_shared"]
    # The base model compares texts already, if not as well.
    assert 0.4 < summary["base"]["mean"] < summary["mean"]
    assert summary["difference"]["low"] > 0
    assert best["test_results"]["metrics"]["threshold_accuracy"] > 0.8
    assert pictures(best) == {"similarity_histogram"}
    errors = [abs(float(row["expected_output"]) - float(row["output"])) for row in table]
    assert np.mean(errors) < 0.4
    deploy(client, project, job["id"], "best", "close-topics")
    deploy(client, project, job["id"], 0, "as-it-was")
    openai = OpenAI(base_url=f"{platform.api_url}/v1", api_key=platform.api_key)
    texts = ["she scored a late goal", "the team won the cup", "bake the bread for an hour"]
    vectors = {}
    for model in ("close-topics", "as-it-was", ENCODER):
        # Without encoding_format the client asks for base64.
        encoded = openai.embeddings.create(model=model, input=texts)
        plain = openai.embeddings.create(model=model, input=texts, encoding_format="float")
        vectors[model] = np.array([row.embedding for row in encoded.data])
        assert vectors[model] == pytest.approx(np.array([row.embedding for row in plain.data]), abs=1e-6)
        assert encoded.model == model
        assert encoded.usage.total_tokens > 0
    assert np.linalg.norm(vectors[ENCODER], axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors["as-it-was"] == pytest.approx(vectors[ENCODER], abs=1e-5)
    same, other = (vectors["close-topics"][0] @ vectors["close-topics"][i] for i in (1, 2))
    assert same - other > 0.5 + (vectors[ENCODER][0] @ (vectors[ENCODER][1] - vectors[ENCODER][2]))
    body = {"model": "close-topics", "input": texts[0], "target": texts[1], "manhattan": True}
    compared = client.post("/v1/embeddings", body)["response"]
    assert set(compared) == {"input_embedding", "target_embedding", "cosine_score", "manhattan_distance"}
    assert compared["cosine_score"] == pytest.approx(same, abs=1e-4)
    distance = np.abs(vectors["close-topics"][0] - vectors["close-topics"][1]).sum()
    assert compared["manhattan_distance"] == pytest.approx(distance, abs=1e-3)
