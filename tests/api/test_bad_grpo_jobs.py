"""GRPO jobs that are refused: in which words, and that nothing is left behind."""

import json
import math
from typing import Any

import pytest

from emissary.client import Client
from tests.api.refusals import MODEL, refused

EXACT, SIMILAR = "exact_match_shared", "test_similarity_shared"

JOBS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "weights below 1": ({"reward": {EXACT: 0.5, SIMILAR: 0.4}}, ["reward: the weights sum to 0.9, not 1"]),
    "weights above 1": ({"reward": {EXACT: 0.5, SIMILAR: 0.500002}}, ["reward: the weights sum to 1.000002, not 1"]),
    "weight below 0": ({"reward": {EXACT: 1.0, SIMILAR: -0.1}}, ["reward", SIMILAR, "0"]),
    "weight NaN": ({"reward": {EXACT: math.nan}}, ["reward", EXACT]),
    "weight infinite": ({"reward": {EXACT: math.inf}}, ["reward", EXACT]),
    "weight true": ({"reward": {EXACT: True}}, ["reward", EXACT]),
    "weight as text": ({"reward": {EXACT: "1"}}, ["reward", EXACT]),
    "function that is not listed": ({"test_functions": [EXACT]}, ["reward", SIMILAR, "test_functions"]),
    "an error as reward": (
        {"test_functions": [EXACT, "regression_mae_shared"], "reward": {EXACT: 0.5, "regression_mae_shared": 0.5}},
        ["reward", "'regression_mae_shared' is an error"],
    ),
    "unprintable function": ({"reward": {"a\x1b[31m": 1.0}}, ["reward", "test_functions"]),
    "no weights": ({"reward": {}}, ["reward"]),
    "no reward": ({"reward": None}, ["reward"]),
    "weights as a list": ({"reward": [0.5, 0.5]}, ["reward"]),
    "no functions": ({"test_functions": []}, ["test_functions"]),
    "unknown function": (
        {"test_functions": ["no_such"], "reward": {"no_such": 1.0}},
        ["test_functions[0] is 'no_such'", EXACT],
    ),
    "another task": ({"task_type": "embedding"}, ["task_type", "GRPO", "embedding"]),
    "unknown dataset": ({"train_dataset_id": "ds-unknown"}, ["train_dataset_id", "ds-unknown"]),
}


def create(client: Client, project: str, dataset: str, changed: dict[str, Any]) -> Any:
    """Create a good job but for `changed`, which may hold NaN."""
    body = {
        "base_model": MODEL,
        "train_dataset_id": dataset,
        "test_functions": [EXACT, SIMILAR],
        "reward": {EXACT: 0.5, SIMILAR: 0.5},
    }
    headers = {"Content-Type": "application/json"}
    content = json.dumps(body | changed)
    return client.call("POST", f"/v1/projects/{project}/training-jobs/grpo", content=content, headers=headers)


@pytest.mark.parametrize(("changed", "words"), JOBS.values(), ids=JOBS)
def test_bad_grpo_job_is_refused_naming_the_field(
    client: Client, project: str, dataset: str, changed: dict[str, Any], words: list[str]
) -> None:
    with refused(client, project, *words):
        create(client, project, dataset, changed)


PARAMETERS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "generations beside the batch": (
        {"num_generations": 3},
        ["parameters.num_generations: 3 does not divide the 4 completions of a step", "2, 4 would"],
    ),
    "batch beside the generations": (
        {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2},
        ["parameters.num_generations: 4", "per_device_train_batch_size 3", "2, 3, 6 would"],
    ),
    "batch of one": (
        {"per_device_train_batch_size": 1},
        ["parameters.num_generations", "raise per_device_train_batch_size"],
    ),
    "one generation": (
        {"num_generations": 1, "gradient_accumulation_steps": 2},
        ["parameters.num_generations: 1 makes no groups to compare of the 8 completions", "2, 4, 8 would"],
    ),
    "no generation": ({"num_generations": 0}, ["parameters.num_generations: 0 is not a whole number from 2 to 256"]),
    "more prompts a step than rows": (
        {"per_device_train_batch_size": 64},
        ["train_dataset_id", "16 prompts", "4 rows", "per_device_train_batch_size"],
    ),
    "no room for a prompt": (
        {"max_completion_length": 1024},
        ["parameters.max_completion_length: 1024 leaves no room", "max_length, 1024"],
    ),
    "no completion": ({"max_completion_length": 0}, ["parameters.max_completion_length: 0"]),
    "longer than the context": ({"max_length": 100_000}, ["parameters.max_length", "8192"]),
    "cold": ({"temperature": 0}, ["parameters.temperature: 0 is not a number above 0"]),
    "KL below 0": ({"beta": -0.1}, ["parameters.beta"]),
    "unknown loss": ({"loss_type": "ppo"}, ["parameters.loss_type", "grpo, dapo, dr_grpo"]),
    "of SFT only": ({"dynamic_loss": True}, ["parameters.dynamic_loss", "unknown"]),
    "misspelt": ({"num_generation": 4}, ["did you mean num_generations?"]),
}


@pytest.mark.parametrize(("parameters", "words"), PARAMETERS.values(), ids=PARAMETERS)
def test_bad_hyperparameter_of_grpo_is_refused_by_name(
    client: Client, project: str, dataset: str, parameters: dict[str, Any], words: list[str]
) -> None:
    with refused(client, project, *words):
        create(client, project, dataset, {"parameters": parameters})


ROWS_LEFT: dict[str, tuple[dict[str, Any], list[str]]] = {
    "held out": ({"train_test_split_ratio": 50}, ["takes 3 prompts", "has 4 rows", "leave 2", "train on more of them"]),
    "left out": (
        {"parameters": {"downsample_size": 50}},
        ["train_dataset_id: a step takes 3 prompts", "4 rows, of which train_test_split_ratio and downsample_size"],
    ),
}


@pytest.mark.parametrize(("changed", "words"), ROWS_LEFT.values(), ids=ROWS_LEFT)
def test_a_step_that_takes_more_prompts_than_rows_are_trained_on_is_refused(
    client: Client, project: str, dataset: str, changed: dict[str, Any], words: list[str]
) -> None:
    three_prompts = {"per_device_train_batch_size": 12}
    with refused(client, project, *words):
        create(client, project, dataset, changed | {"parameters": three_prompts | changed.get("parameters", {})})


def test_weights_sum_to_1_within_a_millionth_and_a_function_may_have_none(
    client: Client, project: str, dataset: str
) -> None:
    job = create(client, project, dataset, {"reward": {SIMILAR: 0.9999995}})
    path = f"/v1/projects/{project}/training-jobs/{job['id']}"
    client.post(f"{path}/cancel")
    assert (job["training_technique"], job["status"], job["reward"]) == ("GRPO", "Pending", {SIMILAR: 0.9999995})
    detail = client.get(path)
    assert detail["hyper_parameters"] == client.get(f"/v1/models/{MODEL}")["grpo_parameter_template"]
    assert detail["hyper_parameters"]["num_train_epochs"] == 15
    assert detail["training_metrics"] == {}
    client.call("DELETE", path)
