"""What holds for every command: help, exit codes, JSON, where messages go, what may reach the terminal."""

import json
import os
import pty
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from emissary.cli import platform as platform_commands
from emissary.client import Client
from emissary.up import Platform
from tests.api.refusals import MODEL
from tests.command_line import COMMAND, answer, emissary, environment, fine
from tests.jobs import ROWS, TINY, jsonl, until, upload


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    """The project that EMISSARY_PROJECT names."""
    return str(client.post("/v1/projects", {"name": "cli"})["id"])


RESOURCES = [
    "projects",
    "datasets",
    "jobs",
    "checkpoints",
    "engines",
    "deployments",
    "testing-functions",
    "models",
    "keys",
]


def test_help_names_every_resource_and_the_exit_codes(platform: Platform) -> None:
    shown = fine(platform, "--help")
    for word in (
        *RESOURCES,
        "traffic",
        "report",
        "chat",
        "up",
        "worker",
        "demo",
        "results",
        "2 wrong usage",
        "3 not found",
        "EMISSARY_URL",
        "EMISSARY_API_KEY",
    ):
        assert word in shown
    for resource in RESOURCES:
        assert "list" in fine(platform, resource, "--help")


def test_unknown_thing_ends_with_3_and_a_sentence_on_stderr(platform: Platform, project: str) -> None:
    for command in (
        ("jobs", "show", "nothing"),
        ("jobs", "logs", "nothing"),
        ("checkpoints", "list", "nothing"),
        ("datasets", "delete", "nothing"),
        ("deployments", "show", "nothing"),
        ("traffic", "list", "nothing"),
        ("engines", "deactivate", "nothing"),
        ("models", "show", "nothing"),
        ("testing-functions", "show", "nothing"),
        ("keys", "delete", "nothing"),
        ("projects", "show", "nothing"),
        ("jobs", "list", "--project", "nothing"),
        ("chat", "nothing", "Hello"),
    ):
        done = emissary(platform, *command)
        assert (done.returncode, done.stdout) == (3, ""), (command, done.stderr)
        assert "nothing" in done.stderr


def test_wrong_usage_ends_with_2(platform: Platform, project: str) -> None:
    for command in (
        ("nonsense",),
        ("jobs", "show"),
        ("datasets", "upload", "/no/such/file"),
        ("checkpoints", "show", "job", "first"),
        ("jobs", "create", "--base-model", MODEL),
        ("jobs", "create", "--train-dataset", "rows"),
        ("jobs", "create", "--train-dataset", "rows", "--from", "job", "--checkpoint", "last"),
        ("jobs", "create", "--train-dataset", "rows", "--base-model", MODEL, "--from", "job"),
        ("engines", "create", "--base-model", MODEL, "--start", "08:00"),
        ("keys", "create", "x", "--role", "king"),
        ("traffic", "delete", "nothing"),
    ):
        done = emissary(platform, *command)
        assert (done.returncode, done.stdout) == (2, ""), (command, done.stderr)
        assert done.stderr


def test_worker_must_be_told_where_the_platform_is(platform: Platform) -> None:
    done = emissary(platform, "worker")
    assert done.returncode == 1
    for name in ("PREFECT_API_URL", "EMISSARY_ARTIFACTS", "EMISSARY_SIGNING_KEY"):
        assert name in done.stderr
    assert emissary(platform, "worker", "--pool", "nowhere").returncode == 2


def test_project_must_be_named(platform: Platform) -> None:
    values = environment(platform)
    del values["EMISSARY_PROJECT"]
    done = subprocess.run([*COMMAND, "jobs", "list"], env=values, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "EMISSARY_PROJECT" in done.stderr


def test_refusal_of_the_api_ends_with_1_and_its_sentence(platform: Platform, project: str) -> None:
    done = emissary(platform, "engines", "create", "--base-model", "GPT-7")
    assert (done.returncode, done.stdout) == (1, "")
    assert "GPT-7" in done.stderr


def test_platform_that_does_not_answer_and_key_that_is_none_end_with_1(platform: Platform) -> None:
    away = emissary(platform, "projects", "list", EMISSARY_URL="http://127.0.0.1:9")
    assert away.returncode == 1
    assert "emissary up" in away.stderr
    refused = emissary(platform, "projects", "list", EMISSARY_API_KEY="ek-wrong")
    assert refused.returncode == 1
    assert "unknown or revoked" in refused.stderr
    assert emissary(platform, "projects", "list", EMISSARY_API_KEY="kéy").returncode == 1


def test_client_makes_no_key_where_there_is_none(platform: Platform, tmp_path: Path) -> None:
    done = emissary(platform, "projects", "list", EMISSARY_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "EMISSARY_API_KEY" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_flags_win_over_the_environment(platform: Platform, project: str) -> None:
    flags = ("--url", platform.api_url, "--api-key", platform.api_key)
    shown = fine(platform, *flags, "projects", "list", EMISSARY_URL="http://127.0.0.1:9", EMISSARY_API_KEY="x")
    assert project in shown


def test_json_is_the_apis(platform: Platform, client: Client, project: str) -> None:
    assert answer(platform, "projects", "list") == client.get("/v1/projects")
    assert answer(platform, "projects", "show", "cli") == client.get(f"/v1/projects/{project}")
    assert answer(platform, "models", "show", MODEL) == client.get(f"/v1/models/{MODEL}")
    assert answer(platform, "testing-functions", "list") == client.get("/v1/testing-functions")


def test_name_of_several_things_is_refused_with_their_ids(platform: Platform, client: Client) -> None:
    ids = [client.post("/v1/projects", {"name": "twins"})["id"] for _ in range(2)]
    done = emissary(platform, "projects", "show", "twins")
    assert done.returncode == 2
    assert all(name in done.stderr for name in ids)
    assert ids[0] in fine(platform, "projects", "show", ids[0])


def test_nothing_that_the_server_says_acts_on_the_terminal(platform: Platform, client: Client, project: str) -> None:
    hostile = "\x1b]0;pwned\x07\x1b[31mred\x9b2J\u202e\r"
    body = {"base_model": MODEL, "train_dataset_id": upload(client, project, ROWS), "description": hostile}
    job = client.post(f"/v1/projects/{project}/training-jobs", body)
    client.post(f"/v1/projects/{project}/training-jobs/{job['id']}/cancel")
    for options in ((), ("--json",)):
        done = emissary(platform, "jobs", "show", job["id"], *options)
        assert not set("\x1b\x07\x9b\u202e\r") & set(done.stdout + done.stderr)
        assert "\\u001b[31mred\\u009b2J\\u202e" in done.stdout
    assert json.loads(done.stdout)["description"] == hostile


def test_interrupted_watch_ends_quietly_with_130_and_the_job_goes_on(
    platform: Platform, client: Client, project: str
) -> None:
    body = {"base_model": MODEL, "train_dataset_id": upload(client, project, ROWS), "name": "long"}
    path = f"/v1/projects/{project}/training-jobs"
    path += "/" + client.post(path, body | {"parameters": TINY | {"num_train_epochs": 100}})["id"]
    until(lambda: client.get(path)["status"], lambda status: status == "Running")
    terminal, side = pty.openpty()
    seen = bytearray()

    def read() -> None:
        with suppress(OSError):  # nobody writes any more
            while data := os.read(terminal, 1024):
                seen.extend(data)

    reading = threading.Thread(target=read)
    with subprocess.Popen(
        [*COMMAND, "jobs", "watch", "long"], env=environment(platform), stdout=subprocess.PIPE, stderr=side
    ) as watching:
        os.close(side)
        reading.start()
        until(lambda: bytes(seen), lambda shown: b"Running" in shown)  # the progress bar
        watching.send_signal(signal.SIGINT)
        output, _ = watching.communicate(timeout=60)
    reading.join()
    os.close(terminal)
    assert watching.returncode == 130
    assert output == b""
    assert b"Traceback" not in seen
    assert client.get(path)["status"] == "Running"
    done = emissary(platform, "jobs", "cancel", "long")
    assert done.returncode == 0
    assert client.get(path)["status"] == "Cancelled"
    assert emissary(platform, "jobs", "watch", "long").returncode == 1
    assert "goes on" in emissary(platform, "jobs", "resume", "long").stderr
    until(lambda: client.get(path)["status"], lambda status: status == "Running")
    refused = emissary(platform, "jobs", "resume", "long")
    assert refused.returncode == 1
    assert "is Running" in refused.stderr
    fine(platform, "jobs", "cancel", "long")


def test_file_is_uploaded_and_saved_again(platform: Platform, project: str, tmp_path: Path) -> None:
    file = tmp_path / "colours.jsonl"
    file.write_bytes(jsonl(ROWS))
    made = answer(platform, "datasets", "upload", str(file), "--name", "saved")
    copy = tmp_path / "copy.jsonl"
    fine(platform, "datasets", "download", "saved", "--output", str(copy))
    assert copy.read_bytes() == file.read_bytes()
    again = emissary(platform, "datasets", "download", "saved", "--output", str(copy))
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert answer(platform, "datasets", "show", "saved")["id"] == made["id"]
    fine(platform, "datasets", "delete", "saved")
    assert emissary(platform, "datasets", "show", "saved").returncode == 3


def test_worker_computes_the_same_bytes_whatever_its_caller_has_told_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, str] = {}
    monkeypatch.setattr(platform_commands.os, "execve", lambda _file, _command, environment: told.update(environment))
    values = {"MKL_CBWR": "OFF", "MKL_DYNAMIC": "TRUE", "GOMP_SPINCOUNT": "5", "PREFECT_API_URL": "http://there/api"}
    for name in ("EMISSARY_DATABASE_URL", "EMISSARY_ARTIFACTS", "EMISSARY_SIGNING_KEY"):
        monkeypatch.setenv(name, "there")
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    platform_commands.worker(None)
    assert (told["MKL_CBWR"], told["MKL_DYNAMIC"], told["GOMP_SPINCOUNT"]) == ("AUTO", "FALSE", "5")
