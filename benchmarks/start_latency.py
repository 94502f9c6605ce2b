"""From POST /training-jobs to the first line of the flow, on a platform with nothing else to do.

    python benchmarks/start_latency.py [--tries 50]

Starts the platform in a scratch home, and creates jobs one after the other; each is cancelled as soon as it has begun.
All times are of this machine's clock: the client's before the POST, Prefect's when the run was claimed (Pending) and
when its process was there (Running), the catalogue's when the flow recorded that it began, which is the first thing it
does.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from datetime import datetime
from typing import Any

import httpx
import psycopg
from rich.console import Console
from rich.table import Table

from emissary import model_files
from emissary.client import Client
from emissary.settings import Settings, settings
from emissary.up import Platform, running

MODEL = "SmolLM2-135M-Instruct"
ROWS = [{"prompt": f"Say {word}.", "completion": word} for word in ("red", "green", "blue", "black")]
TARGETS = (1.0, 2.0)
"""Median and maximum, in seconds."""
_SECONDS = 120.0


def wait(what: str, look: Any) -> Any:
    """What `look()` gives once it is not empty."""
    deadline = time.monotonic() + _SECONDS
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {_SECONDS:.0f} s")
        time.sleep(0.02)
    return found


def measure(client: Client, prefect: httpx.Client, database: psycopg.Connection[Any], path: str, body: Any) -> Any:
    """Seconds from the POST of one job to (its answer, claimed, process there, flow begun, run ended after cancel)."""
    begun = time.time()
    job = client.post(path, body)
    answered = time.time()

    def first_line() -> datetime | None:
        query = "SELECT created_at FROM job_events WHERE training_job_id = %s AND kind = 'started'"
        row = database.execute(query, (job["id"],)).fetchone()
        return row and row[0]

    started = wait("the flow's first line", first_line).timestamp()
    run_id = client.get(f"{path}/{job['id']}")["flow_run_id"]
    cancelled = time.time()
    client.post(f"{path}/{job['id']}/cancel")

    def states() -> dict[str, float] | None:
        found = prefect.get("/flow_run_states/", params={"flow_run_id": run_id}).raise_for_status().json()
        times = {state["type"]: datetime.fromisoformat(state["timestamp"]).timestamp() for state in reversed(found)}
        return times if "CANCELLED" in times else None

    seen = wait("the end of a cancelled run", states)
    moments = (answered, seen["PENDING"], seen["RUNNING"], started)
    return [moment - begun for moment in moments] + [seen["CANCELLED"] - cancelled]


def run(platform: Platform, tries: int) -> list[list[float]]:
    """Measure so many times, after one that is not counted."""
    client = Client(platform.api_url, platform.api_key)
    prefect = httpx.Client(base_url=f"{platform.prefect_url}/api", trust_env=False, timeout=60)
    project = client.post("/v1/projects", {"name": "start-latency"})["id"]
    rows = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    dataset = client.call("POST", f"/v1/projects/{project}/datasets", files={"file": ("rows.jsonl", rows)})["id"]
    body = {"base_model": MODEL, "train_dataset_id": dataset, "parameters": {"num_train_epochs": 100}}
    address = settings().database_url
    assert address is not None  # the platform has set it
    with psycopg.connect(address, autocommit=True) as database:
        arguments = (client, prefect, database, f"/v1/projects/{project}/training-jobs", body)
        measure(*arguments)
        return [measure(*arguments) for _ in range(tries)]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=50, help="jobs that are measured")
    tries = parser.parse_args().tries
    models = model_files.fetch(MODEL, Settings()).parent
    with tempfile.TemporaryDirectory(prefix="emissary-benchmark-", ignore_cleanup_errors=True) as home:
        os.environ |= {"EMISSARY_HOME": home, "EMISSARY_MODELS": str(models)}
        settings.cache_clear()
        with running(settings(), print) as platform:
            taken = run(platform, tries)
    names = ("POST answered", "claimed (Pending)", "process there (Running)", "first line of the flow")
    table = Table(
        title=f"{tries} starts; seconds since the POST; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    for column in ("", "least", "median", "p95", "max"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in zip((*names, "cancel until the run has ended"), zip(*taken, strict=True), strict=True):
        ordered = sorted(values)
        shown = (ordered[0], statistics.median(ordered), ordered[int(len(ordered) * 0.95)], ordered[-1])
        table.add_row(name, *(f"{value:.2f}" for value in shown))
    Console().print(table)
    print(f"Targets for the first line: median {TARGETS[0]:g} s, at most {TARGETS[1]:g} s.")


if __name__ == "__main__":
    main()
