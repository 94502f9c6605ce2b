"""One cell of the kill matrix: a job that is killed at a step, and how its bytes compare with an undisturbed one's."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tests.acceptance.own_platform import OwnPlatform, patient
from tests.acceptance.small_jobs import Small
from tests.jobs import ended, until, upload

TOLD = "worker, told to end"
KILLED = ("run", "worker", "API", "Prefect server", "everything", TOLD)
"""All by kill -9 but the last, which gets SIGTERM."""
_END_SECONDS = 300.0
_TRIES = 3
"""How many jobs may be too quick for a kill at a step."""


@dataclass(frozen=True)
class View:
    """What the API tells of a job at a moment."""

    job: dict[str, Any]
    events: list[dict[str, Any]]
    small: Small

    @property
    def step(self) -> int:
        """The last one that is logged."""
        return int(self.job["training_loss"][-1]["step"]) if self.job["training_loss"] else 0

    def count(self, kind: str) -> int:
        """Events of a kind."""
        return sum(event["kind"] == kind for event in self.events)

    @property
    def saved(self) -> list[int]:
        """The steps after which trainer state is saved."""
        steps, every = self.small.epoch_steps, int(self.small.body["parameters"]["save_steps"])
        last = steps * self.small.epochs
        return sorted({*range(every, last, every), *range(steps, last, steps), last})


STEPS: dict[str, Callable[[View], bool]] = {
    "preparing": lambda view: view.count("started") > 0,
    "before the first saved state": lambda view: view.step > 0,
    "between saved states": lambda view: view.step > view.saved[0] and view.step not in view.saved,
    "at an epoch's end": lambda view: view.count("epoch") + view.count("checkpoint") > 0,
    "testing": lambda view: view.job["status"] == "Testing",
    "picking the best": lambda view: view.count("tested") == view.small.checkpoints,
}


@dataclass
class Cell:
    """What came of one kill."""

    flow: str
    step: str
    killed: str
    killed_at: int
    """The last step that was logged before."""
    resumed: str
    status: str
    same: str
    seconds: float

    def line(self) -> str:
        """It as a person reads it."""
        at = str(self.killed_at or "–")
        return f"{self.flow:16} {self.step:29} {self.killed:20} {at:>3}  {self.resumed:21} {self.status:8} {self.same}"


class Matrix:
    """Runs cells on one platform; what a job's bytes should be is learnt from a job that nobody disturbs."""

    def __init__(self, platform: OwnPlatform) -> None:
        self.platform = platform
        self._client = platform.client()
        self._project = str(self._client.post("/v1/projects", {"name": "kill-matrix"})["id"])
        self._datasets: dict[str, tuple[str, str]] = {}
        self._undisturbed: dict[str, dict[str, str]] = {}

    def run(self, small: Small, step: str, killed: str) -> Cell:
        """Start the job, kill at the step, wait for its end. Raises AssertionError where the jobs were too quick."""
        if small.name not in self._undisturbed:
            self._learn(small)
        for _ in range(_TRIES):
            path = self._start(small)
            view = self._await(path, small, STEPS[step])
            at, begun = time.time(), time.monotonic()
            if not ended(view.job) and self._kill(killed, view.job["flow_run_id"]):
                break
        else:
            raise AssertionError(f"{_TRIES} jobs had ended before {killed} could be killed while {step}")
        job = self._end(path)
        cell = Cell(
            small.name, step, killed, view.step, self._resumed(path, at), job["status"], "", time.monotonic() - begun
        )
        cell.same = self._compare(small, job["id"]) if job["status"] == "Success" else f"{job['error']}"
        return cell

    def _learn(self, small: Small) -> None:
        job = self._end(self._start(small))
        assert job["status"] == "Success", job["error"]
        self._undisturbed[small.name] = self._adapters(small, job["id"])

    def _start(self, small: Small) -> str:
        train, test = self._datasets.get(small.name) or (
            upload(self._client, self._project, small.rows, f"{small.name}-rows"),
            upload(self._client, self._project, small.test_rows, f"{small.name}-test"),
        )
        self._datasets[small.name] = train, test
        body = small.body | {"train_dataset_id": train, "test_dataset_id": test}
        jobs = f"/v1/projects/{self._project}"
        made = self._client.post(f"{jobs}/{small.path}", body)
        return f"{jobs}/training-jobs/{made['id']}"

    def _await(self, path: str, small: Small, reached: Callable[[View], bool]) -> View:
        def look() -> View:
            return View(self._client.get(path), self._client.get(f"{path}/events"), small)

        view: View = until(look, lambda view: reached(view) or ended(view.job), _END_SECONDS, pause=0.02)
        assert view.job["status"] in ("Success", "Running", "Testing", "Pending"), view.job["error"]
        return view

    def _kill(self, killed: str, flow_run_id: str) -> bool:
        """Kill it; False where the run had ended already."""
        if killed == "everything":
            self.platform.kill_everything()
            self.platform.start()
        elif killed == "run":
            identity = self.platform.prefect.get(f"/flow_runs/{flow_run_id}").json()["infrastructure_pid"]
            try:
                os.kill(int(identity.split(":")[1]), signal.SIGKILL)
            except ProcessLookupError:
                return False
        elif killed == TOLD:
            assert self.platform.send("worker", signal.SIGTERM, 0), "there is no worker"
        else:
            assert self.platform.send(killed, signal.SIGKILL, 0), f"there is no {killed}"
        return True

    def _end(self, path: str) -> dict[str, Any]:
        return dict(until(lambda: patient(lambda: self._client.get(path)), ended, _END_SECONDS))

    def _resumed(self, path: str, killed_at: float) -> str:
        """What the run did first after the kill, by its log."""
        until(self.platform.is_healthy, bool, _END_SECONDS)
        kinds = [event["kind"] for event in self._client.get(f"{path}/events")]
        if "resumed" not in kinds:
            return "went on"
        later = [line["message"] for line in self._client.get(f"{path}/logs") if line["timestamp"] > killed_at]
        steps = [int(found[1]) for line in later if (found := re.match(r"step (\d+),", line))]
        if steps:
            # One that is told to end may log a step or two before it does.
            first = next((step for before, step in pairwise(steps) if step <= before), steps[0])
            return f"step {first - 1}"
        tested = [found[1] for line in later if (found := re.match(r"checkpoint (\d+):", line))]
        return f"test of checkpoint {tested[0]}" if tested else "the choice"

    def _folder(self, job: str, number: int | str) -> Path:
        return self.platform.home / "artifacts" / "training-jobs" / job / "checkpoints" / str(number)

    def _checksums(self, job: str, number: int) -> dict[str, str]:
        files = json.loads((self._folder(job, number) / "manifest.json").read_text())["files"]
        return {f"{number}/{name}": file["sha256"] for name, file in files.items()}

    def _adapters(self, small: Small, job: str) -> dict[str, str]:
        found: dict[str, str] = {"": job}
        for number in range(1, small.checkpoints + 1):
            found |= self._checksums(job, number)
        return found

    def _compare(self, small: Small, job: str) -> str:
        wanted = self._undisturbed[small.name]
        found = self._adapters(small, job)
        different = [name for name in wanted if name and wanted[name] != found.get(name)]
        if not different and wanted.keys() == found.keys():
            return "same bytes"
        weights = [name for name in different if name.endswith(".safetensors")]
        return f"other bytes in {', '.join(different)}" + "".join(
            f"; {name} by at most {self._difference(name, wanted[''], job):.2g}" for name in weights
        )

    def _difference(self, name: str, one: str, other: str) -> float:
        number, _, file = name.partition("/")
        left, right = (load_file(self._folder(job, number) / file) for job in (one, other))
        return max(float((left[key].float() - right[key].float()).abs().max()) for key in left)
