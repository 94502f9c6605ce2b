"""The whole platform with its artifacts on a real S3 server."""

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from emissary.client import Client
from emissary.dataset_upload import upload_dataset
from emissary.settings import PROJECT_ROOT, settings
from tests.acceptance.conftest import S3Server
from tests.acceptance.s3_up import up_on_s3
from tests.conftest import free_port
from tests.jobs import ROWS, TINY, ended, jsonl, until, upload

pytestmark = pytest.mark.acceptance
MIB = 1024 * 1024
ROW = b'{"prompt": "a", "completion": "' + b"x" * (MIB // 2 - 34) + b'"}\n'


@pytest.fixture(scope="module")
def client(s3_server: S3Server, base_model_dir: Path) -> Iterator[Client]:
    """A client of `emissary up`, which was told of S3 by the environment alone."""
    with up_on_s3(s3_server, base_model_dir) as platform:
        yield platform.client


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    return str(client.post("/v1/projects", {"name": "on-s3"})["id"])


@pytest.fixture
def uploader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The settings of whoever uploads, on a machine of her own."""
    monkeypatch.setattr(settings(), "max_upload_mb", 1)
    monkeypatch.setattr(settings(), "home", tmp_path / "home")


def kept(s3_server: S3Server, below: str) -> list[str]:
    s3 = boto3.client(
        "s3",
        endpoint_url=s3_server.variables["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=s3_server.variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3_server.variables["AWS_SECRET_ACCESS_KEY"],
    )
    place = {"Bucket": s3_server.bucket, "Prefix": f"platform/{below}"}
    found = s3.list_objects_v2(**place).get("Contents", []) + s3.list_multipart_uploads(**place).get("Uploads", [])
    return [entry["Key"] for entry in found]


def test_job_runs_with_everything_on_s3(
    client: Client, s3_server: S3Server, project: str, base_model_dir: Path, tmp_path: Path
) -> None:
    dataset = upload(client, project, ROWS)
    url = client.get(f"/v1/projects/{project}/datasets/{dataset}")["dataset_download_url"]
    assert url.startswith(s3_server.variables["AWS_ENDPOINT_URL"])
    answer = httpx.get(url, trust_env=False)
    assert answer.content == jsonl(ROWS)
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''colours.jsonl"
    jobs = f"/v1/projects/{project}/training-jobs"
    body: dict[str, Any] = {
        "base_model": "SmolLM2-135M-Instruct",
        "train_dataset_id": dataset,
        "train_test_split_ratio": 25,
        "test_functions": ["exact_match_shared"],
        "parameters": TINY,
    }
    path = f"{jobs}/{client.post(jobs, body)['id']}"
    job = until(lambda: client.get(path), ended, seconds=300)
    assert job["status"] == "Success", job["error"]
    checkpoint = client.get(f"{path}/checkpoints")[0]
    results = httpx.get(checkpoint["test_results"]["general_test_result"], trust_env=False)
    assert results.text.splitlines()[0].startswith('"input","expected_output"')
    archive = httpx.get(checkpoint["model_download_url"], trust_env=False)
    names = zipfile.ZipFile(io.BytesIO(archive.content)).namelist()
    assert not [name for name in names if "optimizer" in name or "trainer_state" in name]
    zipfile.ZipFile(io.BytesIO(archive.content)).extractall(tmp_path)
    base = AutoModelForCausalLM.from_pretrained(base_model_dir)
    assert PeftModel.from_pretrained(base, tmp_path).peft_config["default"].r == 2
    assert kept(s3_server, "training-jobs/")
    client.call("DELETE", path)
    client.call("DELETE", f"/v1/projects/{project}/datasets/{dataset}")
    assert kept(s3_server, "training-jobs/") + kept(s3_server, "datasets/") + kept(s3_server, "prepared/") == []


def test_interrupted_upload_in_parts_goes_on_at_s3(
    client: Client, s3_server: S3Server, project: str, uploader: None, tmp_path: Path
) -> None:
    file = tmp_path / "large.jsonl"
    file.write_bytes(ROW * 40)
    shown: list[int] = []

    def interrupt(sent: int, total: int) -> None:
        if sent > 12 * MIB:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upload_dataset(client, project, file, on_progress=interrupt)
    made = upload_dataset(client, project, file, on_progress=lambda sent, _total: shown.append(sent))
    assert (shown[0], shown[-1]) == (8 * MIB, 20 * MIB)
    detail = client.get(f"/v1/projects/{project}/datasets/{made['id']}")
    assert httpx.get(detail["dataset_download_url"], trust_env=False).content == file.read_bytes()
    client.call("DELETE", f"/v1/projects/{project}/datasets/{made['id']}")
    assert kept(s3_server, "datasets/") == []


def test_file_that_cannot_be_used_leaves_nothing_at_s3(
    client: Client, s3_server: S3Server, project: str, uploader: None, tmp_path: Path
) -> None:
    file = tmp_path / "large.jsonl"
    file.write_bytes(ROW * 3 + b"{\n")
    with pytest.raises(Exception, match="Line 4"):
        upload_dataset(client, project, file)
    assert kept(s3_server, "datasets/") == []


def test_deleted_project_leaves_nothing_at_s3(client: Client, s3_server: S3Server) -> None:
    project = str(client.post("/v1/projects", {"name": "goes"})["id"])
    inside = f"/v1/projects/{project}"
    begun = client.post(f"{inside}/datasets/uploads", {"file_name": "large.jsonl", "bytes": 20 * MIB})
    assert httpx.put(begun["parts"][0]["url"], content=bytes(8 * MIB), trust_env=False).is_success
    dataset = upload(client, project, ROWS)
    body = {"base_model": "SmolLM2-135M-Instruct", "train_dataset_id": dataset}
    done = client.post(f"{inside}/training-jobs", body | {"parameters": TINY | {"num_train_epochs": 1}})["id"]
    job = until(lambda: client.get(f"{inside}/training-jobs/{done}"), ended, seconds=300)
    assert job["status"] == "Success", job["error"]
    made = client.post(f"{inside}/deployments", {"training_job_id": done, "checkpoint": 1})
    found = until(lambda: client.get(f"{inside}/deployments/{made['id']}"), ended)
    assert found["status"] == "Deployed", found["error"]
    runs = client.post(f"{inside}/training-jobs", body | {"parameters": TINY | {"num_train_epochs": 100}})["id"]
    until(lambda: client.get(f"{inside}/training-jobs/{runs}/checkpoints"), bool, seconds=300)
    assert kept(s3_server, "training-jobs/")
    client.delete(inside)
    for folder in ("training-jobs/", "datasets/", "prepared/"):
        assert kept(s3_server, folder) == []
    assert client.get(f"/v1/engines/{found['engine_id']}")["deployments"] == []
    client.delete(f"/v1/engines/{found['engine_id']}")


def test_up_says_what_is_wrong_with_the_bucket(s3_server: S3Server, tmp_path: Path) -> None:
    environment = os.environ | s3_server.variables | {
        "EMISSARY_HOME": str(tmp_path),
        "EMISSARY_PORT": str(free_port()),
        "EMISSARY_PREFECT_PORT": str(free_port()),
        "EMISSARY_ARTIFACTS": "s3://nobody-made-this/x",
    }  # fmt: skip
    command = [sys.executable, "-m", "emissary.cli", "up"]
    done = subprocess.run(command, env=environment, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    assert "the bucket 'nobody-made-this' does not exist" in " ".join(done.stderr.split())
