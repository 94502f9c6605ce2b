"""`emissary report`: the page that it makes of real jobs."""

import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from emissary.client import Client
from emissary.report.gathering import gather
from emissary.report.page import page
from emissary.settings import PROJECT_ROOT
from emissary.up import Platform
from tests.api.refusals import MODEL
from tests.command_line import emissary, environment, fine
from tests.jobs import ROWS, TINY, ended, profiled, until, upload

PROJECT = "cli-report"
MARKUP = "<script>alert(1)</script><img src=https://nowhere.example/a.png onerror=alert(2)>\"'&amp;"
HOSTILE = [
    {"messages": [{"role": "user", "content": f"{MARKUP} {number}"}, {"role": "assistant", "content": "</style><b>"}]}
    for number in range(3)
]
FETCHING = {"src", "href", "srcset", "action", "formaction", "poster", "data", "background", "ping", "cite"}


class Page(HTMLParser):
    """A page's elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = self.style = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "style":
            self.style += data
        else:
            self.text += data

    def pictures(self) -> list[str | None]:
        return [attributes["alt"] for tag, attributes in self.elements if tag == "img"]


def assert_self_contained(page: Page) -> None:
    """Nothing in the page fetches anything, runs anything or leads anywhere."""
    for tag, attributes in page.elements:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "a", "b"}, tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in FETCHING & set(attributes):
            assert (attributes[name] or "").startswith("data:image/png;base64,"), (tag, name)
    assert not [word for word in ("url(", "@import", "http") if word in page.style]


@pytest.fixture(scope="module")
def project(client: Client) -> str:
    """Path of the project that the jobs are in."""
    return f"/v1/projects/{client.post('/v1/projects', {'name': PROJECT})['id']}"


@pytest.fixture(scope="module")
def job(client: Client, project: str) -> dict[str, Any]:
    """A finished job, tested on rows that are HTML."""
    ids = [upload(client, project.rpartition("/")[2], rows, "<i>rows") for rows in (ROWS, HOSTILE)]
    for dataset in ids:
        profiled(client, f"{project}/datasets/{dataset}")
    body = {
        "name": "<b>bold & \"'",
        "description": MARKUP,
        "base_model": MODEL,
        "train_dataset_id": ids[0],
        "test_dataset_id": ids[1],
        "test_functions": ["test_similarity_shared", "exact_match_shared"],
        "parameters": TINY | {"num_train_epochs": 1},
    }
    path = f"{project}/training-jobs"
    path = f"{path}/{client.post(path, body)['id']}"
    found = until(lambda: client.get(path), ended)
    assert found["status"] == "Success", found["error"]
    return dict(found)


@pytest.fixture(scope="module")
def report(platform: Platform, job: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page that the command makes of it."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    fine(platform, "report", job["id"], "--project", PROJECT, "--out", str(file))
    return Page(file.read_text(encoding="utf-8"))


def test_page_is_one_file_that_shows_data_curves_scores_rows_and_time(
    client: Client, project: str, job: dict[str, Any], report: Page
) -> None:
    assert_self_contained(report)
    assert report.pictures() == ["score histogram", "Training loss", "tokens", "tokens"]
    checkpoints = client.get(f"{project}/training-jobs/{job['id']}/checkpoints")
    for row in checkpoints:
        for score in (row["train_loss"], row["test_loss"], *row["test_results"]["aggregated_test_result"].values()):
            assert f"{float(score):.4g}" in report.text
    shown = (MODEL, "8 rows", "3 rows", "tokens of", "Preparing", "Training", "Testing", "lora_r")
    for text in (*shown, f"--checkpoint {job['best_checkpoint']}", "All, from the worst to the best"):
        assert text in report.text
    warnings = client.get(f"{project}/datasets/{job['train_dataset']['id']}")["profile"]["warnings"]
    assert warnings
    assert all(warning in report.text for warning in warnings)


def test_html_in_names_and_rows_is_shown_as_it_is(job: dict[str, Any], report: Page) -> None:
    for text in (job["name"], MARKUP, *(row["messages"][0]["content"] for row in HOSTILE), "</style><b>"):
        assert text in report.text


def test_scores_stand_beside_the_base_models_where_the_api_gives_them(
    client: Client, project: str, job: dict[str, Any]
) -> None:
    found = gather(client, project.rpartition("/")[2], job["id"])
    assert found.shown is not None
    summary = {
        "mean": 0.875,
        "low": 0.75,
        "high": 0.96875,
        "rows": 3,
        "base": {"mean": 0.125, "low": None, "high": None},
        "difference": None,
        "worst": [],
    }
    results = found.shown["test_results"] | {"test_summary": {"test_similarity_shared": summary}}
    html = page(replace(found, shown=found.shown | {"test_results": results}), time.time())
    cells = [cell.strip() for cell in Page(html).text.partition("and the base model")[2].split("\n") if cell.strip()]
    assert "test similarity shared0.1250.875 0.75 to 0.9688–" in "".join(cells)


def test_file_has_the_jobs_name_by_default_and_one_that_cannot_be_written_is_told(
    platform: Platform, job: dict[str, Any], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "emissary.cli", "report", job["id"], "--project", PROJECT]
    variables = environment(platform) | {"PYTHONPATH": str(PROJECT_ROOT)}
    done = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [f"{job['name']}-report.html"]
    nowhere = emissary(platform, "report", job["id"], "--project", PROJECT, "--out", str(tmp_path / "no" / "r.html"))
    assert nowhere.returncode == 1
    assert "--out" in nowhere.stderr
    assert emissary(platform, "report", "nothing", "--project", PROJECT).returncode == 3


def test_job_that_runs_and_one_that_failed_have_a_page_too(client: Client, project: str) -> None:
    project_id, path = project.rpartition("/")[2], f"{project}/training-jobs"
    body = {
        "base_model": MODEL,
        "train_dataset_id": upload(client, project_id, ROWS),
        "parameters": TINY | {"num_train_epochs": 100},
    }
    late, slow = (client.post(path, body | more)["id"] for more in ({"timeout_seconds": 1}, {}))
    running = Page(page(gather(client, project_id, slow), time.time()))
    client.post(f"{path}/{slow}/cancel")
    assert "The job goes on" in running.text
    found = until(lambda: client.get(f"{path}/{late}"), ended)
    failed = Page(page(gather(client, project_id, late), time.time()))
    assert "The job ended as TimedOut." in failed.text
    assert found["error"] in failed.text
    for shown in (running, failed):
        assert_self_contained(shown)
    assert "There is no checkpoint." in running.text


def test_commands_start_without_what_only_the_report_needs_and_the_report_without_torch() -> None:
    def loaded(module: str) -> set[str]:
        code = f"import sys, {module}; print(*sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
        )
        return set(done.stdout.split())

    assert not {"matplotlib", "jinja2", "pyarrow"} & loaded("emissary.cli")
    assert not {"torch", "transformers", "prefect"} & loaded("emissary.report.page")
