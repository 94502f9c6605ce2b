"""What a person sees in a browser: a job's run in Prefect's UI, its pictures and tables, and a report."""

import json
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from emissary.client import Client
from emissary.report.gathering import gather
from emissary.report.page import page as report
from emissary.up import Platform
from tests.acceptance.small_jobs import CLASSES, Small
from tests.jobs import ended, until, upload
from tests.tasks.pooled_run import encoder_dir

pytestmark = pytest.mark.acceptance

# It may not look for updates, of which a machine without internet would have many failed connections.
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1400,4000",
]  # fmt: skip
LOADING_MS = 20_000
"""Virtual time, in which a page loads and its scripts run; it does not go by while a request is under way."""

Look = Callable[[str], str]


@pytest.fixture(scope="module")
def look() -> Look:
    """The elements of a page as HTML, once its scripts have run."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        why = "NOT TESTED: there is no Chromium; `apt-get install chromium` brings it"
        warnings.warn(why, stacklevel=1)
        pytest.skip(why)

    def dom(url: str) -> str:
        with tempfile.TemporaryDirectory(prefix="emissary-browser-", ignore_cleanup_errors=True) as profile:
            command = [chromium, *FLAGS, f"--user-data-dir={profile}", f"--virtual-time-budget={LOADING_MS}"]
            done = subprocess.run(
                [*command, "--dump-dom", url], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
            )
        return done.stdout

    return dom


@pytest.fixture(scope="module")
def job(client: Client) -> dict[str, Any]:
    """A finished job for classification, which has a plot of every kind."""
    encoder_dir()
    return finished(client, str(client.post("/v1/projects", {"name": "browser"})["id"]), CLASSES)


def finished(client: Client, project: str, small: Small) -> dict[str, Any]:
    body = small.body | {
        "name": "seen",
        "test_functions": ["exact_match_shared"],
        "train_dataset_id": upload(client, project, small.rows, "seen-rows"),
        "test_dataset_id": upload(client, project, small.test_rows, "seen-test"),
    }
    made = client.post(f"/v1/projects/{project}/{small.path}", body)
    found = until(lambda: client.get(f"/v1/projects/{project}/training-jobs/{made['id']}"), ended)
    assert found["status"] == "Success", found["error"]
    return dict(found) | {"project": project}


def artifacts(platform: Platform, job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The newest artifact of each kind of the job's run."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [job["flow_run_id"]]}}, "sort": "CREATED_DESC"}
    found = httpx.post(f"{platform.prefect_url}/api/artifacts/filter", json=wanted, trust_env=False).json()
    key = job["id"].lower().replace("_", "-")
    return {artifact["key"].removesuffix(f"-{key}"): artifact for artifact in reversed(found)}


def test_run_is_named_tagged_and_tells_its_steps(look: Look, platform: Platform, job: dict[str, Any]) -> None:
    page = look(f"{platform.prefect_url}/runs/flow-run/{job['flow_run_id']}")
    for shown in (job["id"], job["project"], "Completed", "train_sft", "step 1, epoch"):
        assert shown in page


@pytest.mark.parametrize("picture", ["loss", "confusion-matrix", "roc", "calibration"])
def test_picture_is_drawn(look: Look, platform: Platform, job: dict[str, Any], picture: str) -> None:
    artifact = artifacts(platform, job)[picture]
    page = look(f"{platform.prefect_url}/artifacts/artifact/{artifact['id']}")
    assert '<img src="data:image/png;base64,' in page


def test_tables_and_the_way_to_the_api_are_shown(look: Look, platform: Platform, job: dict[str, Any]) -> None:
    found = artifacts(platform, job)
    for name in ("checkpoints", "answers"):
        page = look(f"{platform.prefect_url}/artifacts/artifact/{found[name]['id']}")
        assert "exact_match_shared" in page
        for row in json.loads(found[name]["data"]):
            assert row.get("expected", "") in page
    page = look(f"{platform.prefect_url}/artifacts/artifact/{found['api']['id']}")
    assert f'href="{platform.api_url}/v1/projects/{job["project"]}/training-jobs/{job["id"]}"' in page


def test_form_of_a_flow_asks_for_its_parameters_by_name(look: Look, platform: Platform) -> None:
    deployment = httpx.get(f"{platform.prefect_url}/api/deployments/name/retrain/retrain", trust_env=False).json()
    page = look(f"{platform.prefect_url}/deployments/deployment/{deployment['id']}/run")
    assert "pipeline_id" in page
    assert "The pipeline, such as" in page


def test_report_is_drawn_and_fetches_nothing(
    look: Look, platform: Platform, job: dict[str, Any], tmp_path: Path
) -> None:
    client = Client(platform.api_url, platform.api_key)
    (tmp_path / "report.html").write_text(report(gather(client, job["project"], job["id"]), 0.0))
    page = look((tmp_path / "report.html").as_uri())
    assert page.count("<img ") > 4
    assert "http://" not in page.replace(platform.api_url, "").replace("http://www.w3.org", "")
