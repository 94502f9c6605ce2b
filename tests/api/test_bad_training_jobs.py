"""Training jobs that are refused: in which words, and that nothing is left behind."""

import json
import math
from typing import Any

import pytest

from emissary.client import Client
from tests.api.refusals import GOOD, MODEL, bad_name, refused, upload

JOBS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown base model": ({"base_model": "SmolLM3"}, ["base_model", "SmolLM3"]),
    "base model of another task": ({"base_model": "all-MiniLM-L6-v2"}, ["task_type", "embedding", "text-generation"]),
    "dataset of another task": ({"task_type": "embedding"}, ["train_dataset_id", "does not fit embedding"]),
    "unknown task": ({"task_type": "poetry"}, ["task_type"]),
    "unknown dataset": ({"train_dataset_id": "ds-unknown"}, ["train_dataset_id", "ds-unknown"]),
    "unknown test dataset": ({"test_dataset_id": "ds-unknown"}, ["test_dataset_id", "ds-unknown"]),
    "unknown testing function": ({"test_functions": ["exact_match_shared", "no_such"]}, ["test_functions", "no_such"]),
    "function twice": ({"test_functions": ["exact_match_shared"] * 2}, ["test_functions"]),
    "split 0": ({"train_test_split_ratio": 0}, ["train_test_split_ratio", "1"]),
    "split 100": ({"train_test_split_ratio": 100}, ["train_test_split_ratio", "99"]),
    "split below 0": ({"train_test_split_ratio": -20}, ["train_test_split_ratio"]),
    "split text": ({"train_test_split_ratio": "x"}, ["train_test_split_ratio"]),
    "split number as text": ({"train_test_split_ratio": "20"}, ["train_test_split_ratio"]),
    "split NaN": ({"train_test_split_ratio": math.nan}, ["train_test_split_ratio"]),
    "split true": ({"train_test_split_ratio": True}, ["train_test_split_ratio"]),
    "base model of wrong type": ({"base_model": 5}, ["base_model"]),
    "no base model": ({"base_model": None}, ["base_model"]),
    "dataset of wrong type": ({"train_dataset_id": ["ds-1"]}, ["train_dataset_id"]),
    "functions of wrong type": ({"test_functions": "exact_match_shared"}, ["test_functions"]),
    "function of wrong type": ({"test_functions": [5]}, ["test_functions.0"]),
    "parameters of wrong type": ({"parameters": [1]}, ["parameters"]),
    "description of wrong type": ({"description": 5}, ["description"]),
    "name of wrong type": ({"name": 5}, ["name"]),
    "NUL in dataset": ({"train_dataset_id": "ds-\x00"}, ["train_dataset_id"]),
    "NUL in description": ({"description": "a\x00b"}, ["description"]),
    "NUL in testing function": ({"test_functions": ["a\x00b"]}, ["test_functions"]),
    "NUL in base model": ({"base_model": "a\x00b"}, ["base_model"]),
    "owner on the hub who is not allowed": (
        {"push_to_hub": {"repo": "acme/triage"}},
        ["push_to_hub.repo", "'acme'", "EMISSARY_SOURCES"],
    ),
    "no repository of the hub": ({"push_to_hub": {"repo": "https://hub/acme/triage"}}, ["push_to_hub.repo"]),
    "half a surrogate pair": ({"description": "\ud800"}, ["description"]),
}


def job_body(dataset: str, changed: dict[str, Any]) -> str:
    """A good request but for `changed`, as JSON text (which here may hold NaN)."""
    return json.dumps({"base_model": MODEL, "train_dataset_id": dataset} | changed)


def create_job(client: Client, project: str, content: str | bytes) -> None:
    headers = {"Content-Type": "application/json"}
    client.call("POST", f"/v1/projects/{project}/training-jobs", content=content, headers=headers)


@pytest.mark.parametrize(("changed", "words"), JOBS.values(), ids=JOBS)
def test_bad_training_job_is_refused_naming_the_field(
    client: Client, project: str, dataset: str, changed: dict[str, Any], words: list[str]
) -> None:
    with refused(client, project, *words):
        create_job(client, project, job_body(dataset, changed))


PARAMETERS: list[tuple[str, Any]] = [
    ("num_train_epochs", -1),
    ("num_train_epochs", 0),
    ("num_train_epochs", 1.5),
    ("num_train_epochs", True),
    ("num_train_epochs", None),
    ("learning_rate", math.nan),
    ("learning_rate", math.inf),
    ("learning_rate", "0.0001"),
    ("learning_rate", 0),
    ("learning_rate", [0.1]),
    ("per_device_train_batch_size", 10**30),
    ("downsample_size", 0),
    ("lr_scheduler_type", "wavy"),
    ("max_length", 100_000),
    ("lora_rank", 8),
    ("../lora_r", 8),
    ("lora\x00r", 8),
]


@pytest.mark.parametrize(("name", "value"), PARAMETERS, ids=[f"{name!r}={value}" for name, value in PARAMETERS])
def test_bad_hyperparameter_is_refused_by_name(
    client: Client, project: str, dataset: str, name: str, value: Any
) -> None:
    with refused(client, project, "parameters", name if name.isprintable() else repr(name)):
        create_job(client, project, job_body(dataset, {"parameters": {name: value}}))


@bad_name
def test_bad_name_of_a_job_is_refused(client: Client, project: str, dataset: str, name: str) -> None:
    with refused(client, project, "name"):
        create_job(client, project, job_body(dataset, {"name": name}))


MALFORMED = {
    "not JSON": (b'{"base_model": ', ["not valid JSON", "line 1"]),
    "nothing": (b"", ["body"]),
    "null": (b"null", ["body"]),
    "a list": (b"[1]", ["body"]),
    "text": (b'"a"', ["body"]),
    "not UTF-8": (b'{"name": "\xff"}', ["body"]),
    "too deep": (b"[" * 100_000, ["body"]),
    "too many digits": (b'{"name": ' + b"1" * 10_000 + b"}", ["body"]),
}


@pytest.mark.parametrize(("content", "words"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_body_is_refused(client: Client, project: str, content: bytes, words: list[str]) -> None:
    with refused(client, project, *words):
        create_job(client, project, content)


def test_dataset_that_does_not_fit_the_task_is_refused_with_the_row(client: Client, project: str) -> None:
    numbers = upload(client, project, b'{"prompt": "a", "completion": 1}\n{"prompt": "b", "completion": 2}\n')["id"]
    with refused(client, project, "train_dataset_id", "does not fit text-generation", "Line 1", "'completion'"):
        create_job(client, project, job_body(numbers, {}))


def test_dataset_of_another_project_is_unknown_here(client: Client, project: str, dataset: str) -> None:
    other = client.post("/v1/projects", {"name": "other"})["id"]
    with refused(client, other, "train_dataset_id", dataset):
        create_job(client, other, job_body(dataset, {}))


def test_split_and_test_dataset_together_and_a_split_of_one_row_are_refused(
    client: Client, project: str, dataset: str
) -> None:
    with refused(client, project, "train_test_split_ratio", "test_dataset_id"):
        create_job(client, project, job_body(dataset, {"test_dataset_id": dataset, "train_test_split_ratio": 20}))
    single = upload(client, project, GOOD)["id"]
    with refused(client, project, "train_test_split_ratio", "one row"):
        create_job(client, project, job_body(single, {"train_test_split_ratio": 20}))


def classified(client: Client, project: str, *completions: dict[str, int]) -> str:
    """Id of a dataset for classification with these labels."""
    rows = [json.dumps({"prompt": f"text {number}", "completion": labels}) for number, labels in enumerate(completions)]
    return str(upload(client, project, "\n".join(rows).encode())["id"])


def test_function_that_cannot_score_the_task_is_refused(client: Client, project: str) -> None:
    topics = classified(client, project, {"food": 1, "sport": 0}, {"food": 0, "sport": 1})
    with refused(client, project, "test_functions[0]", "'regression_mae_shared'", "exact_match_shared"):
        changed = {"task_type": "classification", "test_functions": ["regression_mae_shared"]}
        create_job(client, project, job_body(topics, changed))


def test_classification_that_could_not_be_learnt_is_refused(client: Client, project: str) -> None:
    topics = classified(client, project, {"food": 1, "sport": 0}, {"food": 0, "sport": 1})
    of_one_class = classified(client, project, {"spam": 1}, {"spam": 1})
    with refused(client, project, "train_dataset_id", "of one class"):
        create_job(client, project, job_body(of_one_class, {"task_type": "classification"}))
    others = classified(client, project, {"food": 1, "news": 0}, {"food": 0, "news": 1})
    with refused(client, project, "test_dataset_id", "'news'", "first in line 2"):
        create_job(client, project, job_body(topics, {"task_type": "classification", "test_dataset_id": others}))
    several = classified(client, project, {"food": 1, "sport": 1})
    with refused(client, project, "test_dataset_id", "exactly one label"):
        create_job(client, project, job_body(topics, {"task_type": "classification", "test_dataset_id": several}))
    named_only = classified(client, project, {"food": 1, "news": 0}, {"sport": 1})
    news = classified(client, project, {"news": 1})
    with refused(client, project, "test_dataset_id", "'news'", "first in line 1", "has none"):
        create_job(client, project, job_body(named_only, {"task_type": "classification", "test_dataset_id": news}))
    numbers = upload(client, project, b'{"prompt": "a", "completion": 1}\n')["id"]
    with refused(client, project, "test_dataset_id", "does not fit classification", "Line 1"):
        create_job(client, project, job_body(topics, {"task_type": "classification", "test_dataset_id": numbers}))


def test_ten_thousand_labels_are_more_than_a_classifier_has(client: Client, project: str) -> None:
    labels = [{f"label {number}": 1} for number in range(10_000)]
    with refused(client, project, "Line 1001: 'label 1000'", "at most 1,000"):
        classified(client, project, *labels)
    # As text they may also be what is to be written.
    rows = [{"prompt": "text", "completion": json.dumps(label)} for label in labels]
    many = upload(client, project, "\n".join(map(json.dumps, rows)).encode())["id"]
    with refused(client, project, "train_dataset_id", "10000 labels", "at most 1000"):
        create_job(client, project, job_body(many, {"task_type": "classification"}))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"parameters": {"early_stopping_patience": 2}}, ["early_stopping_patience", "test_dataset_id"]),
        (
            {"parameters": {"early_stopping_metric": "exact_match_shared"}, "train_test_split_ratio": 20},
            ["early_stopping_metric", "'exact_match_shared'", "test_functions"],
        ),
        ({"parameters": {"early_stopping_metric": "a\x00b"}}, ["early_stopping_metric", "'a\\x00b'"]),
    ],
)
def test_early_stopping_that_could_not_be_measured_is_refused(
    client: Client, project: str, dataset: str, changed: dict[str, Any], words: list[str]
) -> None:
    with refused(client, project, *words):
        create_job(client, project, job_body(dataset, changed))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"food": 0.5, "sport": 0.4}, ["rebalance_data", "sum to 1"]),
        ({"food": 0.5, "news": 0.5}, ["rebalance_data", "'news'"]),
        ({"food": 1}, ["rebalance_data", "'sport' is missing"]),
        ({"food": "many", "sport": 1}, ["rebalance_data.food"]),
        ({"food": 1, "sport": 0}, ["All rows that are left to train on", "'sport': 0", "of one class"]),
        ({"food": 5, "sport": 0}, ["All rows that are left to train on", "'sport': 0", "of one class"]),
    ],
)
def test_rebalancing_that_cannot_be_is_refused(
    client: Client, project: str, wanted: dict[str, Any], words: list[str]
) -> None:
    topics = classified(client, project, {"food": 1, "sport": 0}, {"food": 0, "sport": 1})
    with refused(client, project, *words):
        create_job(client, project, job_body(topics, {"task_type": "classification", "rebalance_data": wanted}))


def test_rebalancing_and_dynamic_loss_are_refused_where_they_mean_nothing(
    client: Client, project: str, dataset: str
) -> None:
    with refused(client, project, "rebalance_data", "classification only"):
        create_job(client, project, job_body(dataset, {"rebalance_data": {"a": 1}}))
    several = classified(client, project, {"food": 1, "sport": 1}, {"food": 0, "sport": 1})
    with refused(client, project, "rebalance_data", "no one class"):
        create_job(client, project, job_body(several, {"task_type": "classification", "rebalance_data": {"food": 1}}))
    pair = b'{"itemA": {"text": "a"}, "itemB": {"text": "b"}, "similarity": 1}\n'
    pairs = upload(client, project, pair)["id"]
    body = {"task_type": "embedding", "base_model": "all-MiniLM-L6-v2", "parameters": {"dynamic_loss": True}}
    with refused(client, project, "parameters.dynamic_loss"):
        create_job(client, project, job_body(pairs, body))
