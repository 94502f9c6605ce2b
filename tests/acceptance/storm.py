"""A storm of jobs, pipelines, deployments and calls against a platform whose processes are killed meanwhile.

    python -m tests.acceptance.storm [--minutes 30] [--seed N]

Prints what it does, and the audit at the end; the same seed does the same at the same seconds.
"""

import argparse
import random
import sys
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
from rich.console import Console

from emissary import model_files
from emissary.client import Client
from emissary.settings import Settings
from tests.acceptance.audit import SUPERVISED, Check, audit, audit_stopped, table
from tests.acceptance.own_platform import OwnPlatform, own_platform
from tests.acceptance.small_jobs import CLASSES, GRPO, SFT, Small
from tests.acceptance.storm_plan import EVERYTHING, SUPERVISOR, Step, plan
from tests.conftest import BASE_MODEL
from tests.jobs import jsonl, until

JOBS: dict[str, Small] = {"train": SFT, "train classes": CLASSES, "train on rewards": GRPO}
LIVE = "live"
PIPELINE = "retraining"
GOLDEN = [{"prompt": f"Name a colour that is {which}.", "completion": "red"} for which in ("warm", "bright")]
"""Test rows that no job trains on."""
ANSWER_SECONDS = 240.0
_BASE = {"training_job_id": BASE_MODEL, "checkpoint": 0}
_CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "text-generation": (
        "/v1/chat/completions",
        {"max_tokens": 4, "messages": [{"role": "user", "content": "Say red."}]},
    ),
    "classification": ("/v1/classification", {"input": "a late goal"}),
}


@dataclass
class Record:
    """What the storm did and was answered."""

    accepted: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """Kind (training-jobs, datasets, deployments, pipeline-runs) → id → the Idempotency-Key, which is its name too."""
    asked: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Action (cancel, delete, resume) → ids for which it was sent, answered or not."""
    done: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Action → id → how often it was answered well."""
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """(what, HTTP status) → how often."""
    kills: list[tuple[float, str]] = field(default_factory=list)
    """UNIX time and kind of what was killed or told to end."""
    failures: list[str] = field(default_factory=list)
    """Requests that had no answer in time, answers 500, and what the storm itself failed at."""


class Storm:
    """Clients and killers of one platform."""

    def __init__(self, platform: OwnPlatform, console: Console) -> None:
        self.platform, self.record, self._console = platform, Record(), console
        self._begun = time.monotonic()
        self._key = platform.client().http.headers["X-API-Key"]
        self._up = threading.Lock()  # while everything is down, nothing else is killed
        client = platform.client()
        self.project = str(client.post("/v1/projects", {"name": "storm"})["id"])
        self._resumable = any(path.endswith("/resume") for path in client.get("/openapi.json")["paths"])
        self._datasets: dict[str, list[str]] = {}
        for name, small in JOBS.items():
            self._datasets[name] = [
                self._upload(f"{name.replace(' ', '-')}-{part}", rows)
                for part, rows in (("rows", small.rows), ("test", small.test_rows))
            ]
        deployments = f"/v1/projects/{self.project}/deployments"
        self.live = self._create("deployments", deployments, LIVE, json=_BASE | {"name": LIVE})
        until(lambda: client.get(f"{deployments}/{self.live}"), lambda found: found["status"] == "Deployed")
        self._pipeline = self._make_pipeline(client)

    def run(self, steps: list[Step]) -> None:
        """Do the steps at their seconds; returns when all requests are answered."""
        self._begun = time.monotonic()
        with ThreadPoolExecutor(12) as clients, ThreadPoolExecutor(1) as killer:
            for number, step in enumerate(steps):
                time.sleep(max(0.0, self._begun + step.at - time.monotonic()))
                (killer if step.signal else clients).submit(self._do, step, number)

    def say(self, what: str) -> None:
        """A line of the storm's log."""
        self._console.print(f"{time.monotonic() - self._begun:7.1f} s  {what}", highlight=False, markup=False)

    def _do(self, step: Step, number: int) -> None:
        try:
            if step.signal is None:
                self._act(step, f"{step.action.replace(' ', '-')}-{number}")
            elif step.action == EVERYTHING:
                self.record.kills.append((time.time(), step.action))
                self.platform.kill_everything()
                self._start_again(step)
            elif step.action == SUPERVISOR:
                self.record.kills.append((time.time(), step.action))
                self.platform.send(step.action, step.signal, 0)
                # PostgreSQL lives on; what `emissary up` started dies with it.
                until(lambda: {part.kind for part in self.platform.parts()} & SUPERVISED, lambda kinds: not kinds)
                self._start_again(step)
            else:
                hit = self.platform.send(step.action, step.signal, step.share)
                if hit:
                    self.record.kills.append((time.time(), step.action))
                self.say(f"{step}: {hit or 'there is none'}")
        except Exception as error:
            self.record.failures.append(f"{step} at {step.at:.0f} s: {type(error).__name__}: {error}")
            self.say(f"{step} FAILED: {type(error).__name__}: {error}")

    def _start_again(self, step: Step) -> None:
        self.say(f"{step}; starting again")
        self.platform.start()
        self.say("all is up again")

    def _act(self, step: Step, name: str) -> None:
        chosen = self._choose(step)
        jobs, deployments = (f"/v1/projects/{self.project}/{kind}" for kind in ("training-jobs", "deployments"))
        if step.action in JOBS:
            self.train(step.action, name)
        elif step.action == "retrain":
            self._retrain(name)
        elif step.action == "upload":
            self._upload(name, SFT.rows)
        elif chosen is None or (step.action == "resume" and not self._resumable):
            return
        elif step.action == "deploy":
            self._deploy(jobs, deployments, name, step.share)
        elif step.action == "call":
            self._call(f"{deployments}/{chosen}")
        elif step.action == "delete deployment":
            self._once("delete", chosen, "DELETE", f"{deployments}/{chosen}")
        elif step.action == "delete job":
            self._once("delete", chosen, "DELETE", f"{jobs}/{chosen}")
        else:
            self._once(step.action, chosen, "POST", f"{jobs}/{chosen}/{step.action}")

    def _choose(self, step: Step) -> str | None:
        kind = "deployments" if step.action in ("call", "delete deployment") else "training-jobs"
        known = [each for each in list(self.record.accepted[kind]) if each not in self.record.asked["delete"]]
        if step.action == "cancel":
            known = known[-4:]  # the others have ended
        elif step.action == "resume":
            known = [each for each in known if each in self.record.done["cancel"]]
        elif step.action == "delete deployment":
            known.remove(self.live)  # a pipeline needs it
        return known[int(step.share * len(known))] if known else None

    def train(self, what: str, name: str) -> str | None:
        """Create a job; its id, or None when it was refused."""
        small = JOBS[what]
        train, test = self._datasets[what]
        body = small.body | {"name": name, "train_dataset_id": train, "test_dataset_id": test}
        return self._create("training-jobs", f"/v1/projects/{self.project}/{small.path}", name, json=body)

    def _make_pipeline(self, client: Client) -> str:
        """The path of the runs of a pipeline that deploys whatever it trains."""
        pipeline = {
            "name": PIPELINE,
            "test_dataset_id": self._upload("golden", GOLDEN),
            "train": SFT.body,
            "gate": {"minimum_improvement": -1},
            "deployment_id": self.live,
        }
        path = f"/v1/projects/{self.project}/pipelines"
        return f"{path}/{client.post(path, pipeline)['id']}/runs"

    def _retrain(self, name: str) -> None:
        """Upload a row that is new, and run the pipeline on it and the rows of other jobs, unless it runs already."""
        if any(
            run["status"] in ("Pending", "Running") for run in self._answer("list runs", "GET", self._pipeline).json()
        ):
            return
        new = self._upload(f"{name}-rows", [{"prompt": f"Say {name}.", "completion": name}])
        self._create("pipeline-runs", self._pipeline, name, json={"datasets": [self._datasets["train"][0], new]})

    def _deploy(self, jobs: str, deployments: str, name: str, share: float) -> None:
        """Deploy the first checkpoint of a job that is done; while there is none, the base model."""
        done = [job["id"] for job in self._answer("list jobs", "GET", jobs).json() if job["status"] == "Success"]
        what = {"training_job_id": done[int(share * len(done))], "checkpoint": 1} if done else _BASE
        self._create("deployments", deployments, name, json=what | {"name": name})

    def _upload(self, name: str, rows: list[dict[str, Any]]) -> str:
        files = {"file": (f"{name}.jsonl", jsonl(rows))}
        made = self._create("datasets", f"/v1/projects/{self.project}/datasets", name, files=files)
        assert made is not None
        return made

    def _create(self, kind: str, path: str, name: str, **arguments: Any) -> str | None:
        """Ask until there is an answer, always with the same Idempotency-Key."""
        response = self._answer(f"create {kind}", "POST", path, headers={"Idempotency-Key": name}, **arguments)
        self.say(f"create {kind} {name}: {response.status_code} {'' if response.is_success else response.text}")
        if not response.is_success:
            return None
        made = str(response.json()["id"])
        self.record.accepted[kind][made] = name
        return made

    def _once(self, action: str, what: str, method: str, path: str) -> None:
        self.record.asked[action].add(what)
        response = self._answer(action, method, path)
        self.say(f"{action} {what}: {response.status_code} {'' if response.is_success else response.text}")
        if response.is_success:
            self.record.done[action][what] += 1

    def _call(self, path: str) -> None:
        found = self._answer("read deployment", "GET", path)
        if found.status_code == 404:
            return  # it was deleted meanwhile
        deployment = found.json()
        operation, body = _CALLS[deployment["task_type"]]
        response = self._answer("call", "POST", operation, again=False, json=body | {"model": deployment["name"]})
        self.say(f"call {deployment['name']}: {response.status_code} {'' if response.is_success else response.text}")

    def _answer(self, what: str, method: str, path: str, again: bool = True, **arguments: Any) -> httpx.Response:
        """The answer; asked again while the API is away (no connection, 503)."""
        deadline = time.monotonic() + ANSWER_SECONDS
        with Client(f"http://127.0.0.1:{self.platform.port}", self._key).http as http:
            while True:
                said = "no connection"
                try:
                    response = http.request(method, path, **arguments)
                    self.record.answers[what, response.status_code] += 1
                    if response.status_code == 500:
                        self.record.failures.append(f"{what} was answered 500: {response.text}")
                    if response.status_code < 500 or not again:
                        return response
                    said = response.text
                except httpx.TransportError as error:
                    said = f"{type(error).__name__}: {error}"
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{what}: no answer within {ANSWER_SECONDS:.0f} s ({said})")
                time.sleep(0.5)


def run(minutes: float, seed: int, console: Console) -> list[Check]:
    """A storm and its audit, both printed to `console`."""
    models = model_files.fetch(BASE_MODEL, Settings()).parent
    assert model_files.fetch(CLASSES.body["base_model"], Settings()).parent == models
    console.print(f"Storm of {minutes:g} minutes with the seed {seed}: make chaos MINUTES={minutes:g} SEED={seed}")
    with own_platform(models, EMISSARY_TRAINING_RUNS="2") as platform:
        storm = Storm(platform, console)
        storm.run(plan(seed, minutes))
        storm.say("the storm is over; waiting till all is settled")
        checks = audit(platform, storm, 240 + minutes * 90)
        platform.stop()
        checks += audit_stopped(platform)
        if any(check.wrong for check in checks):
            for log in sorted((platform.home / "logs").glob("*.log")):
                lines = [line for line in log.read_text(errors="replace").splitlines() if line[:1].strip()]
                console.rule(log.name)
                console.print("\n".join(lines[-40:]), markup=False, highlight=False)
    console.print(table(checks, f"Audit of the storm with the seed {seed}"))
    return checks


def main() -> None:
    """Run a storm as the arguments say; exits with 1 where the audit finds something wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    chosen = parser.parse_args()
    checks = run(chosen.minutes, chosen.seed, Console(width=160))
    sys.exit(any(check.wrong for check in checks))


if __name__ == "__main__":
    main()
