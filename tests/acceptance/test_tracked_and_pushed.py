"""A platform that tells trackers of jobs and pushes their models, through kills, and while trackers or hub are away.

MLflow's store and the runs of Weights & Biases are real; tests/hub_server.py is a fake that stands for the hub.
"""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from emissary.cli import app
from emissary.client import ApiError, Client
from tests.acceptance.own_platform import OwnPlatform, own_platform
from tests.hub_server import TOKEN, FakeHub, fake_hub
from tests.jobs import ROWS, TINY, ended, until, upload

mlflow = pytest.importorskip("mlflow", reason="NOT TESTED: trackers on a platform. `make trackers` installs them.")
pytest.importorskip("wandb", reason="NOT TESTED: trackers on a platform. `make trackers` installs them.")

pytestmark = pytest.mark.acceptance
REPO = "acme/colours"


@dataclass(frozen=True)
class World:
    """The platform, what is around it, and a project with a dataset."""

    platform: OwnPlatform
    hub: FakeHub
    tracking_uri: str
    runs: Path
    client: Client
    project: str
    dataset: str

    def job(self, **changed: Any) -> str:
        body = {
            "name": "colours", "base_model": "SmolLM2-135M-Instruct", "train_dataset_id": self.dataset,
            "train_test_split_ratio": 25, "test_functions": ["exact_match_shared"],
            "parameters": TINY | {"logging_steps": 1, "save_steps": 1}, "push_to_hub": {"repo": REPO},
        }  # fmt: skip
        return str(self.client.post(f"/v1/projects/{self.project}/training-jobs", body | changed)["id"])

    def path(self, job: str) -> str:
        return f"/v1/projects/{self.project}/training-jobs/{job}"

    def events(self, job: str, kind: str) -> list[dict[str, Any]]:
        return [row["details"] for row in self.client.get(f"{self.path(job)}/events") if row["kind"] == kind]


@pytest.fixture(scope="module")
def world(base_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("trackers")
    sources = folder / "sources.json"
    sources.write_text(json.dumps({"models": {"organizations": ["default"], "hub": "acme", "token": TOKEN}}))
    uri = f"sqlite:///{folder}/mlflow.db"
    with (
        fake_hub() as hub,
        own_platform(
            base_model_dir.parent,
            EMISSARY_REPORT_TO="mlflow,wandb",
            EMISSARY_SOURCES=str(sources),
            MLFLOW_TRACKING_URI=uri,
            WANDB_MODE="offline",
            WANDB_DIR=str(folder / "wandb"),
            HF_ENDPOINT=hub.url,
            HF_HUB_DISABLE_XET="1",
            HF_HUB_OFFLINE="0",
        ) as platform,
    ):
        client = platform.client()
        project = str(client.post("/v1/projects", {"name": "tracked"})["id"])
        yield World(platform, hub, uri, folder / "wandb", client, project, upload(client, project, ROWS))


def test_job_that_is_killed_is_one_run_of_each_tracker_and_one_commit(
    world: World, base_model_dir: Path, tmp_path: Path
) -> None:
    job = world.job()
    until(lambda: world.client.get(world.path(job)), lambda found: len(found["training_loss"]) >= 2)
    world.platform.send("run", signal.SIGKILL, 0)
    for part in world.platform.parts():
        if "emissary.tracking" in part.process.cmdline():
            part.process.kill()
    found = until(lambda: world.client.get(world.path(job)), ended)
    assert found["status"] == "Success", found["error"]
    steps = [point["step"] for point in found["training_loss"]]

    client = mlflow.MlflowClient(world.tracking_uri)

    def told() -> Any:
        experiment = client.get_experiment_by_name("emissary")
        return client.search_runs([experiment.experiment_id], f"tags.`emissary.job_id` = '{job}'")

    (run,) = until(told, lambda runs: [run.info.status for run in runs] == ["FINISHED"], 60)
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted(point.step for point in history) == steps
    assert run.data.metrics.keys() >= {"checkpoint/score/exact_match_shared", "checkpoint/loss/test"}
    until(lambda: list(world.runs.glob(f"{job}/wandb/offline-run-*/*.wandb")), lambda files: len(files) == 1, 30)

    (pushed,) = world.events(job, "pushed")
    assert (pushed["repo"], pushed["url"]) == (REPO, f"{world.hub.url}/{REPO}")
    assert found["pushed_to_hub"]["checkpoint"] == found["best_checkpoint"]
    repository = world.hub.repositories[REPO]
    for name, content in repository.files.items():
        (tmp_path / name).write_bytes(content)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base_model_dir), str(tmp_path))
    assert any("lora" in name for name, _ in model.named_parameters())
    again = world.client.post(f"{world.path(job)}/push-to-hub", {"repo": REPO})
    assert (again["commit"], len(repository.commits)) == (pushed["commit"], 1)


def test_hub_that_is_away_fails_no_job_and_the_push_can_be_done_again(world: World) -> None:
    world.hub.broken = True
    job = world.job(push_to_hub={"repo": "acme/later"})
    found = until(lambda: world.client.get(world.path(job)), ended)
    assert (found["status"], found["pushed_to_hub"]) == ("Success", None)
    (warning,) = [each for each in world.events(job, "warning") if each.get("about") == "push_to_hub"]
    assert warning["message"].startswith("The model was not pushed to acme/later, all else is done; push it later.")
    with pytest.raises(ApiError, match="cannot take acme/later now") as raised:
        world.client.post(f"{world.path(job)}/push-to-hub", {"repo": "acme/later"})
    assert raised.value.status == 503
    world.hub.broken = False
    pushed = world.client.post(f"{world.path(job)}/push-to-hub", {"repo": "acme/later", "checkpoint": 1})
    assert world.client.get(world.path(job))["pushed_to_hub"] == pushed
    with pytest.raises(ApiError, match="may not push to 'others'"):
        world.client.post(f"{world.path(job)}/push-to-hub", {"repo": "others/later"})


def test_pipeline_pushes_what_it_promotes_and_nothing_else(world: World) -> None:
    train = {
        "base_model": "SmolLM2-135M-Instruct", "test_functions": ["test_similarity_shared"], "parameters": TINY,
    }  # fmt: skip
    runs = {}
    for name, least in (("promoted", 0.0), ("refused", 1.0)):
        body = {
            "name": name,
            "gather": {"datasets": [world.dataset]},
            "train_test_split_ratio": 25,
            "train": train | {"push_to_hub": {"repo": f"acme/{name}", "private": False}},
            "gate": {"minimum_score": {"test_similarity_shared": least}},
        }
        pipelines = f"/v1/projects/{world.project}/pipelines"
        path = f"{pipelines}/{world.client.post(pipelines, body)['id']}/runs"
        run = world.client.post(path)["id"]
        runs[name] = until(partial(world.client.get, f"{path}/{run}"), ended)
    assert (runs["promoted"]["outcome"], runs["refused"]["outcome"]) == ("Promoted", "NotPromoted"), runs
    assert runs["promoted"]["reason"].endswith(f"It was pushed to {world.hub.url}/acme/promoted.")
    assert not world.hub.repositories["acme/promoted"].private
    assert "README.md" in world.hub.repositories["acme/promoted"].files
    assert "acme/refused" not in world.hub.repositories
    assert "push" not in runs["refused"]["reason"]


def test_command_line_pushes_a_job(world: World) -> None:
    (job, *_) = world.client.get(f"/v1/projects/{world.project}/training-jobs")
    where = {
        "EMISSARY_URL": str(world.client.http.base_url),
        "EMISSARY_API_KEY": world.client.http.headers["X-API-Key"],
    }
    command = ["jobs", "push", job["id"], "acme/by-hand", "--project", world.project, "--checkpoint", "1", "--json"]
    done = CliRunner().invoke(app, command, env=where)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["url"] == f"{world.hub.url}/acme/by-hand"
    assert world.hub.repositories["acme/by-hand"].private
