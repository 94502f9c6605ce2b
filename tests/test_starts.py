"""Jobs that start elsewhere than from the catalogue, on the whole platform: trained, deployed and called."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from emissary.client import ApiError, Client
from emissary.up import Platform
from tests.api.refusals import MODEL
from tests.jobs import ROWS, TINY, ended, until, upload
from tests.test_crashes import kill_run
from tests.test_grpo_job import TINY as GRPO

# Several trainings, one of them killed, and two engines.
pytestmark = pytest.mark.acceptance

HUB = "some-owner/tiny-model"
ASK = {"messages": [{"role": "user", "content": "Say red."}], "temperature": 0, "max_tokens": 4}


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "starts"})["id"])


@pytest.fixture(scope="module")
def dataset(client: Client, project: str) -> str:
    return upload(client, project, ROWS)


def train(client: Client, project: str, dataset: str, **body: Any) -> dict[str, Any]:
    path = f"/v1/projects/{project}/training-jobs"
    request = {"train_dataset_id": dataset, "test_dataset_id": dataset, "test_functions": ["exact_match_shared"]}
    created = client.post(path, request | body)
    return dict(until(lambda: client.get(f"{path}/{created['id']}"), ended))


def deploy(client: Client, project: str, job_id: str, checkpoint: int | str, name: str) -> dict[str, Any]:
    path = f"/v1/projects/{project}/deployments"
    made = client.post(path, {"training_job_id": job_id, "checkpoint": checkpoint, "name": name})
    found = until(lambda: client.get(f"{path}/{made['id']}"), ended)
    assert found["status"] == "Deployed", found["error"]
    return dict(found)


def engine_of(client: Client, deployment: dict[str, Any]) -> dict[str, Any]:
    return dict(client.get(f"/v1/engines/{deployment['engine_id']}"))


def answer(client: Client, model: str) -> str:
    return str(client.post("/v1/chat/completions", ASK | {"model": model})["choices"][0]["message"]["content"])


SHAPE = {"learning_rate": 2e-3, "logging_steps": 1, "seed": 3}


@pytest.fixture(scope="module")
def first(client: Client, project: str, dataset: str) -> dict[str, Any]:
    """The finished job `first`, of two checkpoints."""
    found = train(client, project, dataset, name="first", base_model=MODEL, parameters=TINY | SHAPE)
    assert found["status"] == "Success", found["error"]
    return found


def test_fine_tuned_job_goes_on_from_its_parent_and_is_served_beside_it(
    client: Client, project: str, dataset: str, first: dict[str, Any]
) -> None:
    unshaped = {name: value for name, value in (TINY | SHAPE).items() if name != "lora_r"}
    second = train(
        client, project, dataset, name="second", base_model_option="fine-tuned", base_model="first", parameters=unshaped
    )
    assert second["status"] == "Success", second["error"]
    assert second["base_fine_tuned_model_checkpoint"] == first["best_checkpoint"]
    assert second["hyper_parameters"]["lora_r"] == TINY["lora_r"]
    losses = [[point["loss"] for point in job["training_loss"]] for job in (first, second)]
    assert losses[1][0] < losses[0][0]
    served = [deploy(client, project, job["id"], "best", f"{job['name']}-best") for job in (first, second)]
    assert served[0]["engine_id"] == served[1]["engine_id"]
    assert engine_of(client, served[1])["base_model"] == MODEL
    assert answer(client, "second-best")


def test_grpo_job_of_prefects_form_is_held_near_its_checkpoint_after_a_kill_too(
    client: Client, platform: Platform, project: str, dataset: str, first: dict[str, Any]
) -> None:
    prefect = httpx.Client(base_url=f"{platform.prefect_url}/api", trust_env=False)
    flow_deployment = prefect.get("/deployments/name/train_grpo/train_grpo").json()
    request = {
        "name": "rewarded",
        "base_model_option": "fine-tuned",
        "base_model": "first",
        "checkpoint": 2,
        "train_dataset_id": dataset,
        "test_functions": ["test_similarity_shared"],
        "reward": {"test_similarity_shared": 1.0},
        # So slow that the model stays where it is, and every distance is one of the reference.
        "parameters": GRPO | {"learning_rate": 1e-12, "beta": 0.1, "num_train_epochs": 3},
    }
    body = {"parameters": {"project_id": project, "request": request}}
    run = prefect.post(f"/deployments/{flow_deployment['id']}/create_flow_run", json=body).json()
    path = f"/v1/projects/{project}/training-jobs"
    (made,) = until(lambda: [job for job in client.get(path) if job["name"] == "rewarded"], bool)
    until(lambda: client.get(f"{path}/{made['id']}/checkpoints"), bool)
    kill_run(platform, run["id"], set())
    job = until(lambda: client.get(f"{path}/{made['id']}"), ended, seconds=300)
    assert job["status"] == "Success", job["error"]
    assert (job["base_fine_tuned_model"], job["base_fine_tuned_model_checkpoint"]) == ("first", 2)
    assert "resumed" in [event["kind"] for event in client.get(f"{path}/{made['id']}/events")]
    assert [point["kl"] for point in job["training_loss"]] == pytest.approx([0.0] * 12, abs=1e-4)


@pytest.fixture(scope="module")
def hub_model(client: Client, base_model_dir: Path) -> Path:
    """A model outside the catalogue in the platform's own folder of models."""
    folder = Path(os.environ["EMISSARY_HOME"]) / "models" / HUB
    tokenizer = AutoTokenizer.from_pretrained(base_model_dir)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=48, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_model_outside_the_catalogue_is_trained_deployed_and_called(
    client: Client, project: str, dataset: str, hub_model: Path
) -> None:
    job = train(
        client, project, dataset, name="hub", base_model="HF_MODEL", parameters=TINY | {"max_length": 1024},
        hf_model_link=f"https://huggingface.co/{HUB}",
    )  # fmt: skip
    assert job["status"] == "Success", job["error"]
    assert job["base_model"] == HUB
    tuned = deploy(client, project, job["id"], "best", "hub-best")
    assert tuned["base_model"] == engine_of(client, tuned)["base_model"] == HUB
    answer(client, "hub-best")
    base = deploy(client, project, HUB, 0, "hub-base")
    assert base["engine_id"] == tuned["engine_id"]
    answer(client, "hub-base")
    answer(client, HUB)
    # What config.json says, not what max_length asked for.
    long = ASK | {"model": HUB, "messages": [{"role": "user", "content": "word " * 60}]}
    with pytest.raises(ApiError, match="48"):
        client.post("/v1/chat/completions", long)
    on = {"base_model_option": "fine-tuned", "base_model": "hub", "name": "hub-on"}
    further = train(client, project, dataset, **on, parameters={"num_train_epochs": 1, "max_length": 48})
    assert (further["status"], further["base_model"]) == ("Success", HUB), further["error"]


def test_engine_of_a_model_outside_the_catalogue_serves_it_by_name(client: Client, hub_model: Path) -> None:
    made = client.post("/v1/engines", {"base_model": HUB})
    assert made["name"].startswith("tiny-model-engine")
    until(lambda: client.get(f"/v1/engines/{made['id']}"), lambda engine: engine["status"] == "Active")
    answer(client, HUB)
    client.delete(f"/v1/engines/{made['id']}")


def test_model_that_cannot_be_had_or_used_fails_with_the_reason(
    client: Client, project: str, dataset: str, base_model_dir: Path, hub_model: Path
) -> None:
    absent = train(client, project, dataset, base_model="HF_MODEL", hf_model_link="some-owner/absent")
    assert absent["status"] == "Failed"
    assert "EMISSARY_MODELS/some-owner/absent" in absent["error"]
    logs = f"/v1/projects/{project}/training-jobs/{absent['id']}/logs"
    lines = until(
        lambda: client.get(logs), lambda lines: any("Encountered exception" in each["message"] for each in lines)
    )
    assert any("EMISSARY_MODELS/some-owner/absent" in line["message"] for line in lines)
    assert not any("Traceback" in line["message"] for line in lines)
    other = hub_model.with_name("other")
    tokenizer = AutoTokenizer.from_pretrained(base_model_dir)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(other)
    tokenizer.save_pretrained(other)
    unfit = train(client, project, dataset, base_model="HF_MODEL", hf_model_link="some-owner/other")
    assert unfit["status"] == "Failed"
    assert "GPT2LMHeadModel is not supported" in unfit["error"]
