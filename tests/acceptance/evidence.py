"""What there is of a platform: its catalogue's rows, Prefect's flow runs, files, processes, adapters on engines."""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row

from tests.acceptance.own_platform import OwnPlatform, Part

Row = dict[str, Any]
_TABLES = [
    "training_jobs",
    "checkpoints",
    "job_events",
    "datasets",
    "pipeline_runs",
    "deployments",
    "engines",
    "leases",
    "leftovers",
]
_ID_PARAMETERS = ("training_job_id", "deployment_id", "engine_id", "dataset_id", "pipeline_run_id")
MANIFEST = "manifest.json"


@dataclass
class Evidence:
    """All of it, at one moment."""

    rows: dict[str, list[Row]]
    """Table → rows."""
    runs: dict[str, list[Row]]
    """Id of a row → the flow runs that Prefect has for it."""
    strangers: list[Row]
    """Flow runs that name no row."""
    artifacts: dict[str, str]
    """Key → what is wrong with its files; empty where nothing is."""
    checksums: dict[str, dict[str, str]]
    """Key → file → SHA-256, as its manifest says."""
    strays: list[str]
    """Files of the artifact store that are part of no artifact, and drafts."""
    scratch: list[str]
    """Folders of runs' temporary files, as worker/run."""
    parts: list[Part]
    adapters: dict[str, set[str]]
    """Id of an engine that is Active → adapters that its server holds."""
    served: dict[str, str]
    """Id of an engine that is Active → host:pid:start of its run."""

    def of(self, table: str, row_id: str) -> Row | None:
        """The row with this id."""
        return next((row for row in self.rows[table] if row["id"] == row_id), None)


def catalogue(url: str) -> dict[str, list[Row]]:
    """All rows of the tables that the audit looks at."""
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in _TABLES}  # noqa: S608


def flow_runs(prefect: httpx.Client) -> list[Row]:
    """All flow runs that Prefect has."""
    found: list[Row] = []
    while True:
        page = prefect.post("/flow_runs/filter", json={"limit": 200, "offset": len(found), "sort": "ID_DESC"})
        page.raise_for_status()
        found += page.json()
        if len(page.json()) < 200:
            return found


def collect(platform: OwnPlatform) -> Evidence:
    """Look at everything."""
    rows = catalogue(platform.database_url())
    runs: dict[str, list[Row]] = defaultdict(list)
    strangers = []
    for run in sorted(flow_runs(platform.prefect), key=lambda run: run["created"]):
        named = [run["parameters"][name] for name in _ID_PARAMETERS if run["parameters"].get(name)]
        if named:
            runs[named[0]].append(run)
        elif run["state_type"] != "SCHEDULED":
            strangers.append(run)
    artifacts, checksums, strays = _store(platform.home / "artifacts")
    active = [engine for engine in rows["engines"] if engine["status"] == "Active"]
    return Evidence(
        rows,
        runs,
        strangers,
        artifacts,
        checksums,
        strays,
        scratch_folders(platform),
        platform.parts(),
        {engine["id"]: _adapters(engine["endpoint"]) for engine in active},
        {
            engine["id"]: runs[engine["id"]][-1].get("infrastructure_pid") or ""
            for engine in active
            if runs[engine["id"]]
        },
    )


def scratch_folders(platform: OwnPlatform) -> list[str]:
    """Folders of runs' temporary files, as worker/run."""
    root = platform.home / "scratch"
    return [str(path.relative_to(root)) for path in root.glob("*/*")]


def _adapters(endpoint: str | None) -> set[str]:
    try:
        answer = httpx.get(f"{endpoint}/health", trust_env=False, timeout=30).json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return {f"{endpoint} does not answer: {error}"}
    return set(answer["adapters"])


def _store(root: Path) -> tuple[dict[str, str], dict[str, dict[str, str]], list[str]]:
    artifacts, checksums, known = {}, {}, set()
    for path in sorted(root.rglob(MANIFEST)):
        key = str(path.parent.relative_to(root))
        if not any(part.startswith(".") for part in path.relative_to(root).parts):
            artifacts[key], files = damage(path)
            checksums[key] = {name: file["sha256"] for name, file in json.loads(path.read_text())["files"].items()}
            known |= files
    strays = [str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file() and path not in known]
    return artifacts, checksums, strays


def damage(path: Path) -> tuple[str, set[Path]]:
    files = json.loads(path.read_text())["files"]
    known = {path, *(path.parent / name for name in files)}
    for name, file in files.items():
        there = path.parent / name
        if not there.is_file() or hashlib.sha256(there.read_bytes()).hexdigest() != file["sha256"]:
            return f"{name} is missing or damaged", known
    return "", known
