"""The examples of README.md run as they are written, one after the other, against the running platform.

An example is a fenced block whose first line says so: ```sh example or ```python example.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emissary.client import Client
from emissary.settings import PROJECT_ROOT
from emissary.up import Platform

# The first example trains on a twentieth of the demo's data.
pytestmark = pytest.mark.acceptance

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(sh|python) example\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}


@pytest.fixture(scope="module")
def outputs(platform: Platform) -> list[str]:
    """What each example prints; every one must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = os.environ | {"EMISSARY_URL": platform.api_url, "EMISSARY_API_KEY": platform.api_key, "PATH": path}
    found = []
    for language, text in EXAMPLES:
        command = [*COMMANDS[language], text]
        done = subprocess.run(
            command, cwd=PROJECT_ROOT, env=variables, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        found.append(done.stdout)
    return found


def test_examples_with_curl_httpx_and_openai_run(outputs: list[str]) -> None:
    texts = [text for _, text in EXAMPLES]
    for client in ("curl", "httpx", "openai"):
        assert any(client in text for text in texts)
    assert all(output.strip() for output in outputs)


def test_examples_train_deploy_and_ask(outputs: list[str], client: Client) -> None:
    (project,) = [row["id"] for row in client.get("/v1/projects") if row["name"] == "support"]
    detail = client.get(f"/v1/projects/{project}")
    assert [job["status"] for job in detail["training_jobs"]] == ["Success"]
    assert [row["status"] for row in detail["deployments"]] == ["Deployed"]
    walk = outputs[0]
    assert '"exact_match_shared"' in walk
    assert '"finish_reason"' in walk
    assert walk.rstrip().endswith("data: [DONE]")
    assert any("support triage Success 100 %" in output for output in outputs)
