"""The `emissary` command, as a person types it, on the running platform."""

import os
import subprocess
import sys

from emissary.client import Client
from emissary.up import Platform


def emissary(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"EMISSARY_URL": platform.api_url, "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "emissary.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_key_works_from_its_creation_to_its_revocation(platform: Platform) -> None:
    made = emissary(platform, "keys", "create", "laptop", "--user", "ada")
    assert made.returncode == 0, made.stdout + made.stderr
    key_id, key = made.stdout.split()
    assert Client(platform.api_url, key).get("/v1/projects") is not None
    listed = emissary(platform, "keys", "list").stdout
    assert key_id in listed
    assert key not in listed
    assert emissary(platform, "keys", "revoke", key_id).returncode == 0
    refused = Client(platform.api_url, key).http.get("/v1/projects")
    assert refused.status_code == 401


def test_unknown_job_ends_with_its_own_exit_code_and_a_sentence(platform: Platform) -> None:
    shown = emissary(platform, "jobs", "show", "tr-nothing")
    assert shown.returncode == 4
    assert "There is no training job" in shown.stdout


def test_models_are_listed(platform: Platform) -> None:
    assert "SmolLM2-135M-Instruct" in emissary(platform, "models", "list").stdout
