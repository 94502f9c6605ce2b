"""The main job by the command alone: project, data, training, deployment, chat; and keys."""

import json
import os
import signal
import subprocess
import zipfile
from pathlib import Path

import httpx
import pytest

from emissary.cli.output import show_one
from emissary.cli.pipelines import _flat
from emissary.client import Client
from emissary.store.tables import Engine
from emissary.up import Platform
from tests.api.refusals import MODEL
from tests.catalogue import in_catalogue
from tests.command_line import COMMAND, answer, emissary, environment, fine
from tests.jobs import ROWS, TINY, ended, jsonl, until
from tests.web_server import web_server

HERE = {"EMISSARY_PROJECT": "by-command"}


@pytest.fixture(scope="module")
def project(platform: Platform) -> str:
    return str(answer(platform, "projects", "create", "by-command")["id"])


@pytest.fixture(scope="module")
def job(platform: Platform, project: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a job that was created and followed to its end."""
    file = tmp_path_factory.mktemp("data") / "colours.jsonl"
    file.write_bytes(jsonl(ROWS))
    fine(platform, "datasets", "upload", str(file), **HERE)
    options = [word for name, value in (TINY | {"num_train_epochs": 1}).items() for word in ("-p", f"{name}={value}")]
    made = answer(
        platform, "jobs", "create", "--name", "colours", "--base-model", MODEL, "--train-dataset", "colours",
        "--test-split", "25", "--test-function", "exact_match_shared", *options, **HERE,
    )  # fmt: skip
    assert made["status"] == "Pending"
    watched = answer(platform, "jobs", "watch", "colours", **HERE)
    assert watched["status"] == "Success"
    assert watched["hyper_parameters"]["lora_r"] == TINY["lora_r"]
    return "colours"


@pytest.fixture(scope="module")
def deployment(platform: Platform, client: Client, project: str, job: str) -> str:
    made = answer(
        platform, "deployments", "create", "--job", job, "--checkpoint", "best", "--name", "by-command", **HERE
    )
    path = f"/v1/projects/{project}/deployments/{made['id']}"
    found = until(lambda: client.get(path), ended)
    assert found["status"] == "Deployed", found["error"]
    return "by-command"


def test_tables_show_what_was_made(platform: Platform, job: str) -> None:
    assert "Success" in fine(platform, "jobs", "list", **HERE)
    shown = fine(platform, "jobs", "show", job, **HERE)
    assert "training loss" in shown
    assert MODEL in shown
    assert "colours" in fine(platform, "datasets", "list", **HERE)
    assert "colours" in fine(platform, "projects", "show", "by-command")


def test_checkpoints_are_shown_and_saved(platform: Platform, job: str, tmp_path: Path) -> None:
    listed = fine(platform, "checkpoints", "list", job, **HERE)
    assert "exact match shared" in listed
    assert "│ base " in listed
    assert "worst rows by exact match shared" in fine(platform, "checkpoints", "show", job, "best", **HERE)
    assert answer(platform, "checkpoints", "show", job, "best", **HERE)["checkpoint"] == 1
    assert emissary(platform, "checkpoints", "show", job, "7", **HERE).returncode == 3
    archive = tmp_path / "adapter.zip"
    fine(platform, "checkpoints", "download", job, "1", "-o", str(archive), **HERE)
    assert "adapter_config.json" in zipfile.ZipFile(archive).namelist()
    curves = tmp_path / "curves.zip"
    fine(platform, "jobs", "tensorboard", job, "-o", str(curves), **HERE)
    (name,) = zipfile.ZipFile(curves).namelist()
    assert name.startswith("events.out.tfevents.")


def test_job_is_created_from_an_earlier_one(platform: Platform, job: str) -> None:
    made = answer(platform, "jobs", "create", "--from", job, "--train-dataset", "colours", "--name", "further", **HERE)
    fine(platform, "jobs", "cancel", "further", **HERE)
    assert (made["base_fine_tuned_model"], made["base_fine_tuned_model_checkpoint"]) == (job, 1)
    unknown = emissary(platform, "jobs", "create", "--from", "no-such", "--train-dataset", "colours", **HERE)
    assert unknown.returncode == 3


def test_pipeline_is_made_from_a_file_paused_and_deleted(platform: Platform, job: str, tmp_path: Path) -> None:
    file = tmp_path / "nightly.json"
    assert emissary(platform, "pipelines", "create", str(file), **HERE).returncode == 2
    trained = {"base_model": MODEL, "test_functions": ["exact_match_shared"], "parameters": TINY}
    file.write_text(json.dumps({"name": "nightly", "train": trained, "train_test_split_ratio": 25}))
    made = answer(platform, "pipelines", "create", str(file), **HERE)
    assert "nightly" in fine(platform, "pipelines", "list", **HERE)
    fine(platform, "pipelines", "pause", "nightly", **HERE)
    assert answer(platform, "pipelines", "show", made["id"], **HERE)["paused"]
    fine(platform, "pipelines", "unpause", "nightly", **HERE)
    assert emissary(platform, "pipelines", "run", "nightly", "--dataset", "no-such", **HERE).returncode == 3
    assert answer(platform, "pipelines", "runs", "nightly", **HERE) == []
    template = "{{ payload.dataset_id }}"
    hook = answer(platform, "webhooks", "create", "nightly", "labelling", "--dataset", template, **HERE)
    assert hook["parameters"] == {"datasets": [template], "objects": None}
    assert hook["id"] in fine(platform, "webhooks", "list", "nightly", **HERE)
    assert "secret" not in answer(platform, "webhooks", "show", "nightly", "labelling", **HERE)
    rotated = answer(platform, "webhooks", "rotate", "nightly", "labelling", "--overlap-seconds", "60", **HERE)
    assert rotated["secret"] != hook["secret"]
    assert answer(platform, "webhooks", "deliveries", "nightly", "labelling", **HERE) == []
    fine(platform, "webhooks", "delete", "nightly", "labelling", **HERE)
    assert emissary(platform, "webhooks", "show", "nightly", "labelling", **HERE).returncode == 3
    assert emissary(platform, "pipelines", "approve", "nightly", "pr-nobody", **HERE).returncode == 3
    assert emissary(platform, "pipelines", "reject", "nightly", "pr-nobody", "--reason", "x", **HERE).returncode == 3
    fine(platform, "pipelines", "delete", "nightly", **HERE)
    assert emissary(platform, "pipelines", "show", "nightly", **HERE).returncode == 3


def test_pipeline_is_changed_from_a_file_and_its_run_shown_and_cancelled(platform: Platform, tmp_path: Path) -> None:
    here = {"EMISSARY_PROJECT": "by-file"}
    answer(platform, "projects", "create", "by-file")
    file, rows = tmp_path / "weekly.json", tmp_path / "rows.jsonl"
    missing = emissary(platform, "pipelines", "create", str(file), **here)
    assert (missing.returncode, "weekly.json cannot be read: No such file" in missing.stderr) == (2, True)
    file.write_text("{")
    assert "cannot be read as JSON" in emissary(platform, "pipelines", "create", str(file), **here).stderr
    rows.write_bytes(jsonl(ROWS))
    fine(platform, "datasets", "upload", str(rows), **here)
    trained = {"base_model": MODEL, "test_functions": ["exact_match_shared"], "parameters": TINY}
    wanted = {"name": "weekly", "train": trained, "train_test_split_ratio": 25}
    file.write_text(json.dumps(wanted))
    answer(platform, "pipelines", "create", str(file), **here)
    assert "it has no schedule" in emissary(platform, "pipelines", "unpause", "weekly", **here).stderr
    file.write_text(json.dumps(wanted | {"schedule": {"cron": "0 3 * * 1"}}))
    changed = answer(platform, "pipelines", "update", "weekly", str(file), **here)
    assert changed["schedule"]["cron"] == "0 3 * * 1"
    assert "is run by its schedule again" in emissary(platform, "pipelines", "unpause", "weekly", **here).stderr
    run = answer(platform, "pipelines", "run", "weekly", **here)["id"]
    assert answer(platform, "pipelines", "show-run", "weekly", run, **here)["decision"] is None
    fine(platform, "pipelines", "cancel-run", "weekly", run, **here)
    assert "Cancelled" in fine(platform, "pipelines", "show-run", "weekly", run, **here)
    assert emissary(platform, "pipelines", "cancel-run", "weekly", run, **here).returncode == 1
    assert emissary(platform, "pipelines", "show-run", "weekly", "pr-nobody", **here).returncode == 3
    fine(platform, "projects", "delete", "by-file")


def test_decision_of_a_run_is_shown_rule_by_rule(capsys: pytest.CaptureFixture[str]) -> None:
    rule = {"rule": "confidence", "of": None, "wanted": 0.95, "found": 0.5, "passed": False}
    show_one(_flat({"id": "pr-1", "decision": {"promoted": False, "rules": [rule], "test_rows": 80}}), as_json=False)
    shown = capsys.readouterr().out
    assert "{" not in shown
    for words in (("test rows", "80"), ("promoted", "no"), ("confidence", "0.95", "0.5", "no")):
        assert any(all(word in line for word in words) for line in shown.splitlines()), shown


def test_chat_streams_what_it_answers_whole(platform: Platform, deployment: str) -> None:
    ask = ("chat", deployment, "Say red.", "--temperature", "0", "--max-tokens", "5")
    whole = answer(platform, *ask)["choices"][0]["message"]["content"]
    assert fine(platform, *ask).rstrip("\n") == whole.rstrip("\n")


def test_interrupted_chat_leaves_nothing_generating(platform: Platform, client: Client, deployment: str) -> None:
    # Several may hold the base model; the one that answers to its name is the oldest that runs by timeout.
    engine = [
        row
        for row in client.get("/v1/engines?base_model=SmolLM2-135M-Instruct&task_type=text-generation")
        if row["status"] == "Active"
        and client.get(f"/v1/engines/{row['id']}")["resource_management_config"]["management_type"] != "schedule"
    ][-1]
    endpoint = in_catalogue(lambda session: session.get_one(Engine, engine["id"])).endpoint
    chatting = subprocess.Popen(
        [*COMMAND, "chat", engine["base_model"], "Tell a long story.", "--max-tokens", "4000"],
        env=environment(platform),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with chatting:
        assert chatting.stdout is not None
        assert os.read(chatting.stdout.fileno(), 1)
        chatting.send_signal(signal.SIGINT)
        _, errors = chatting.communicate(timeout=60)
    assert chatting.returncode == 130
    assert b"Traceback" not in errors
    health = f"{endpoint}/health"
    until(lambda: httpx.get(health, trust_env=False).json()["in_flight"], lambda number: number == 0, seconds=30)


def test_engine_ends_and_comes_back(platform: Platform, client: Client, deployment: str, project: str) -> None:
    shown = answer(platform, "deployments", "show", deployment, **HERE)
    engine, path = shown["engine_id"], f"/v1/projects/{project}/deployments/{shown['id']}"
    assert deployment in fine(platform, "engines", "show", engine)
    fine(platform, "engines", "deactivate", engine)
    until(lambda: client.get(path)["status"], lambda status: status == "Deactivated")
    fine(platform, "deployments", "reactivate", deployment, **HERE)
    until(lambda: client.get(path)["status"], lambda status: status == "Deployed")
    fine(platform, "deployments", "delete", deployment, **HERE)
    assert client.get(path)["status"] == "Terminated"


def test_key_works_from_its_creation_to_its_revocation(platform: Platform) -> None:
    made = answer(platform, "keys", "create", "laptop", "--user", "grace", "--role", "read-only")
    listed = fine(platform, "keys", "list", EMISSARY_API_KEY=platform.api_key)
    assert made["id"] in listed
    assert made["key"] not in listed
    assert emissary(platform, "keys", "list", EMISSARY_API_KEY=made["key"]).returncode == 1
    fine(platform, "projects", "list", EMISSARY_API_KEY=made["key"])
    fine(platform, "keys", "delete", made["id"])
    assert emissary(platform, "projects", "list", EMISSARY_API_KEY=made["key"]).returncode == 1


def test_first_key_of_an_organization_is_made_without_the_api(platform: Platform) -> None:
    options = ("--organization", "lab", "--user", "head", "--role", "admin")
    made = answer(platform, "keys", "create", "first", *options, EMISSARY_URL="http://127.0.0.1:9")
    assert Client(platform.api_url, made["key"]).get("/v1/projects") == []
    assert [key["user"] for key in Client(platform.api_url, made["key"]).get("/v1/keys")] == ["head"]


def test_subscription_is_made_tested_and_deleted(platform: Platform, project: str) -> None:
    with web_server() as web:
        web.answers["/hook"] = (503, {}, b"not now")
        options = ("--url", f"{web.url}/hook", "--event", "training_job.failed")
        made = answer(platform, "subscriptions", "create", "pager", *options, **HERE)
        assert made["secret"].startswith("whsec_")
        assert made["events"] == ["training_job.failed"]
        sent = answer(platform, "subscriptions", "test", made["id"], **HERE)
        assert sent["event"] == "ping"
        row = until(
            lambda: answer(platform, "subscriptions", "deliveries", "pager", "--status", "Pending", **HERE)[0],
            lambda row: row["answer"] is not None,
        )
        assert row["answer"] == "HTTP 503: not now"
        assert emissary(platform, "subscriptions", "redeliver", "pager", row["id"], **HERE).returncode == 1
        fine(platform, "subscriptions", "pause", "pager", **HERE)
        assert "pager" in fine(platform, "subscriptions", "list", **HERE)
        fine(platform, "subscriptions", "delete", "pager", **HERE)


def test_project_is_deleted_by_name(platform: Platform, project: str, job: str) -> None:
    fine(platform, "projects", "delete", "by-command")
    assert emissary(platform, "projects", "show", project).returncode == 3
