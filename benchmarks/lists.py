"""How long lists and details take with 10,000 training jobs and 100,000 checkpoints in the catalogue.

    python benchmarks/lists.py [--requests 200]

A scratch catalogue (embedded PostgreSQL) is filled, and asked by HTTP through one API process as clients do. Prefect is
not started: reads do not call it.
"""

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert, text

from emissary.ids import new_id
from emissary.settings import Settings, settings
from emissary.store.database import catalogue_server, dispose, migrate, transaction
from emissary.store.tables import Checkpoint, Dataset, Deployment, Engine, Project, TrainingJob, User
from emissary.store.users import create_key

JOBS, CHECKPOINTS = 10_000, 10  # checkpoints of each job
PROJECTS, DEPLOYMENTS, PAGE = 200, 1_000, 100
MODEL = "SmolLM2-135M-Instruct"
LOSS = [{"timestamp": 1.7e9 + step, "loss": 2 / (step + 1), "step": step, "epoch": step / 60} for step in range(180)]
HYPER = {"learning_rate": 0.0002, "num_train_epochs": 3, "per_device_train_batch_size": 8, "lora_r": 16}


async def fill() -> tuple[str, str, str, str]:
    """(key, project with all jobs, a job, the job at the list's middle)."""
    async with transaction() as session:
        row, key = await create_key(session, "benchmark", "benchmark", role="admin")
        user = await session.get_one(User, row.user_id)
    begin = datetime.now(UTC) - timedelta(days=365)

    def common(prefix: Any, number: int) -> dict[str, Any]:
        return {"id": new_id(prefix), "created_at": begin + timedelta(minutes=number)}

    async def keep(kind: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        async with transaction() as session:
            for start in range(0, len(rows), 5000):
                await session.execute(insert(kind), rows[start : start + 5000])
        return rows

    owner = {"organization_id": user.organization_id, "created_by": user.id}
    projects = await keep(Project, [common("ms", n) | owner | {"name": f"project-{n}"} for n in range(PROJECTS)])
    project = projects[0]["id"]
    files = {"project_id": project, "upload_by": user.id, "file_name": "a.jsonl", "bytes": 1, "sha256": "0"}
    datasets = await keep(
        Dataset,
        [
            common("ds", n) | files | {"name": f"dataset-{n}", "artifact": "none", "report": {}}
            for n in range(JOBS // 10)
        ],
    )
    job = {
        "project_id": project, "created_by": user.id, "training_technique": "SFT", "task_type": "text-generation",
        "base_model_option": "pre-trained", "base_model": MODEL, "test_functions": ["exact_match_shared"],
        "hyper_parameters": HYPER, "training_loss": LOSS, "status": "Success", "best_checkpoint": 3, "progress": 100,
    }  # fmt: skip
    jobs = await keep(
        TrainingJob,
        [
            common("tr", n) | job | {"name": f"job-{n}", "train_dataset_id": datasets[n // 10]["id"]}
            for n in range(JOBS)
        ],
    )
    await keep(
        Checkpoint,
        [
            {"training_job_id": row["id"], "number": n + 1, "artifact": "none", "scores": {"exact_match_shared": 0.5}}
            for row in jobs
            for n in range(CHECKPOINTS)
        ],
    )
    task = {"base_model": MODEL, "task_type": "text-generation"}
    engines = await keep(
        Engine,
        [
            common("engine", n)
            | owner
            | task
            | {"name": f"e{n}", "resource_management_config": {}, "status": "Inactive"}
            for n in range(DEPLOYMENTS // 5)
        ],
    )
    served = {"project_id": project, "status": "Deactivated", "checkpoint": 3}
    await keep(
        Deployment,
        [
            common("dp", n) | owner | task | served
            | {"name": f"d{n}", "training_job_id": jobs[n]["id"], "engine_id": engines[n // 5]["id"]}
            for n in range(DEPLOYMENTS)
        ],
    )  # fmt: skip
    async with transaction() as session:
        await session.execute(text("ANALYZE"))
    return key, project, jobs[0]["id"], jobs[JOBS // 2]["id"]


def served(home: Path, key: str, measure: Callable[[httpx.Client, psutil.Process], None]) -> None:
    """Run `measure` with a client of an API process on the catalogue."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Nothing listens at Prefect's address: the sweep finds it away, and nothing here waits for it.
    environment = os.environ | {
        "EMISSARY_HOME": str(home),
        "EMISSARY_DATABASE_URL": str(settings().database_url),
        "PREFECT_API_URL": "http://127.0.0.1:9/api",
    }
    command = [sys.executable, "-m", "uvicorn", "emissary.api.app:create_app", "--factory", "--port", str(port)]
    with subprocess.Popen([*command, "--log-level", "critical"], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, headers={"X-API-Key": key}, trust_env=False, timeout=60) as http:
                deadline = time.monotonic() + 120
                while True:
                    try:
                        http.get("/openapi.json").raise_for_status()
                        break
                    except httpx.TransportError:
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.2)
                measure(http, psutil.Process(process.pid))
        finally:
            process.terminate()


def main() -> None:
    """Fill, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200, help="requests per line of the table")
    count = parser.parse_args().requests
    with tempfile.TemporaryDirectory(prefix="emissary-benchmark-") as folder:
        home = Path(folder)
        with catalogue_server(Settings(home=home, database_url=None)) as address:
            migrate(address)
            settings().database_url = address

            async def filled() -> tuple[str, str, str, str]:
                try:
                    return await fill()
                finally:
                    await dispose()

            key, project, job, middle = asyncio.run(filled())
            inside = f"/v1/projects/{project}"
            paths = {
                "jobs, first page": f"{inside}/training-jobs?limit={PAGE}",
                "jobs, page in the middle": f"{inside}/training-jobs?limit={PAGE}&after={middle}",
                "one job": f"{inside}/training-jobs/{job}",
                "its checkpoints": f"{inside}/training-jobs/{job}/checkpoints?limit={PAGE}",
                "projects": f"/v1/projects?limit={PAGE}",
                "datasets": f"{inside}/datasets?limit={PAGE}",
                "deployments": f"{inside}/deployments?limit={PAGE}",
                "engines": f"/v1/engines?limit={PAGE}",
            }
            table = Table(title=f"{JOBS:,} jobs, {JOBS * CHECKPOINTS:,} checkpoints; pages of {PAGE}; milliseconds")
            for column in ("request", "least", "median", "p95", "API's CPU", "KiB"):
                table.add_column(column, justify="left" if column == "request" else "right")

            def measure(http: httpx.Client, api: psutil.Process) -> None:
                for name, path in paths.items():
                    taken = []
                    for number in range(count + 10):
                        if number == 10:  # warm
                            before = api.cpu_times()
                        begin = time.perf_counter()
                        response = http.get(path)
                        taken.append((time.perf_counter() - begin) * 1000)
                        response.raise_for_status()
                    taken, after = sorted(taken[10:]), api.cpu_times()
                    cpu = (after.user + after.system - before.user - before.system) / count * 1000
                    size = len(response.content) / 1024
                    median, p95 = statistics.median(taken), taken[int(len(taken) * 0.95)]
                    table.add_row(name, f"{taken[0]:.1f}", f"{median:.1f}", f"{p95:.1f}", f"{cpu:.1f}", f"{size:.1f}")

            served(home, key, measure)
    Console().print(table)


if __name__ == "__main__":
    main()
