"""The audit after a storm: whether all that was accepted ended well, and nothing is left that belongs to nobody."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from emissary.processes import is_dead_here
from tests.acceptance import audit_jobs, audit_pipelines
from tests.acceptance.evidence import Evidence, Row, catalogue, collect, flow_runs, scratch_folders
from tests.acceptance.own_platform import OwnPlatform
from tests.jobs import until

SUPERVISED = {"supervisor", "API", "worker", "Prefect server", "fork server", "resource tracker"}
_TEMPORARY = ("runtime-", "torchinductor_")
"""What stays in the temporary folder on purpose: the lock of embedded PostgreSQL, PyTorch's cache."""


@dataclass
class Check:
    """One question of the audit: how much was looked at, and what is wrong."""

    question: str
    looked_at: int
    wrong: list[str] = field(default_factory=list)


def audit(platform: OwnPlatform, storm: Any, seconds: float) -> list[Check]:
    """Wait at most `seconds` until all is settled, have the platform do one more job, then look at everything."""
    begun, deadline = time.monotonic(), time.monotonic() + seconds
    pending = _settle(platform, deadline)
    storm.say(f"settled after {time.monotonic() - begun:.0f} s" if not pending else f"not settled: {pending}")
    probe = storm.train("train", "probe")
    unprobed = _settle(platform, deadline + 120)
    evidence = collect(platform)
    job = evidence.of("training_jobs", probe or "")
    ended = [] if job and job["status"] == "Success" else [f"the job {probe} is {job and job['status']}"]
    return [
        Check("all is settled by the deadline", 1, [*pending, *unprobed]),
        Check("a job runs well after the storm", 1, ended),
        Check("every request had an answer, none 500", sum(storm.record.answers.values()), storm.record.failures),
        *(Check(question, *look(evidence, storm.record)) for question, look in _LOOKS.items()),
    ]


def _settle(platform: OwnPlatform, deadline: float) -> list[str]:
    """What still moves at the deadline."""
    last: list[str] = ["nothing was seen yet"]

    def moving() -> list[str]:
        nonlocal last
        try:
            last = list(_moving(platform))
        except Exception as error:  # a part is down still
            last = [f"{type(error).__name__}: {error}"]
        return last

    try:
        until(moving, lambda found: not found, deadline - time.monotonic())
    except AssertionError:
        return last
    return []


def _moving(platform: OwnPlatform) -> Iterator[str]:
    if not platform.is_healthy():
        yield "/healthz is not 200"
    rows = catalogue(platform.database_url())
    for table, words in (
        ("training_jobs", ("Pending", "Running", "Testing")),
        ("deployments", ("Pending", "Deploying", "Reactivating")),
        ("engines", ("Creating",)),
        ("datasets", ("Pending", "Running")),
        ("pipeline_runs", ("Pending", "Running")),
    ):
        yield from (f"{row['id']} is {row['status']}" for row in rows[table] if row["status"] in words)
    now = datetime.now(UTC)  # what an upload that was killed has stored is dated an hour ahead, and goes then
    yield from (f"{row['id']} is deleted, not all it left" for row in rows["leftovers"] if row["created_at"] < now)
    drafts = platform.home / "artifacts" / ".drafts"
    yield from (f"{path.name} is a draft" for path in (drafts.iterdir() if drafts.is_dir() else ()))
    for run in flow_runs(platform.prefect):
        long = run["parameters"].get("engine_id") and run["state_type"] == "RUNNING"
        if run["state_type"] not in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") and not long:
            yield f"the flow run {run['name']} is {run['state_name']}"
    time.sleep(1)


def audit_stopped(platform: OwnPlatform) -> list[Check]:
    """What is left after the platform was stopped."""
    left = [f"{part.kind} {part.process.pid}" for part in platform.parts()]
    paths = [path.name for path in platform.temporary.iterdir() if not path.name.startswith(_TEMPORARY)]
    paths += scratch_folders(platform)
    return [
        Check("no process is left after the stop", 1, left),
        Check("no file is left in the temporary folder", 1, paths),
    ]


def table(checks: list[Check], title: str) -> Table:
    """The audit as a person reads it."""
    shown = Table(title=title, show_lines=True)
    for column in ("question", "looked at", "wrong"):
        shown.add_column(column, justify="right" if column == "looked at" else "left", overflow="fold")
    for check in checks:
        shown.add_row(check.question, str(check.looked_at), "\n".join(check.wrong[:12]) or "–")
    return shown


def _deployments(evidence: Evidence, record: Any) -> tuple[int, list[str]]:
    wrong = []
    for deployment, name in record.accepted["deployments"].items():
        row = evidence.of("deployments", deployment)
        if row is None:
            wrong.append(f"{deployment} is lost")
            continue
        engine = evidence.of("engines", row["engine_id"])
        serving = engine is not None and engine["status"] == "Active"
        deleted = deployment in record.asked["delete"]
        good = {
            "Deployed": serving,
            "Deactivated": not serving,
            "Failed": bool(row["error"]) and not audit_jobs.killed_too_seldom(record, row),
            "Terminated": deleted,
        }
        if not good.get(row["status"]) or (record.done["delete"][deployment] and row["status"] != "Terminated"):
            wrong.append(
                f"{deployment} ({name}) is {row['status']}, engine {engine and engine['status']}: {row['error']}"
            )
    return len(record.accepted["deployments"]), wrong


def _runs_and_rows(evidence: Evidence, record: Any) -> tuple[int, list[str]]:
    wrong = [f"the flow run {run['name']} ({run['state_name']}) names no row" for run in evidence.strangers]
    rows = {row["id"]: row for table in audit_jobs.BACKED for row in evidence.rows[table]}
    for row_id, runs in evidence.runs.items():
        row = rows.get(row_id)
        if row is None:
            if row_id not in record.asked["delete"] or any(run["state_type"] == "RUNNING" for run in runs):
                wrong.append(f"{row_id}: {len(runs)} flow runs, no row, last {runs[-1]['state_name']}")
        elif (had := [run["name"] for run in runs]) != (wanted := _names_of_runs(evidence, row)):
            wrong.append(f"{row_id}: its flow runs are {had}, its attempts {wanted}")
        elif str(row["flow_run_id"]) != runs[-1]["id"]:
            wrong.append(f"{row_id}: its flow run is {row['flow_run_id']}, the newest is {runs[-1]['id']}")
    for row_id, row in rows.items():
        if row["flow_run_id"] and not evidence.runs.get(row_id):
            wrong.append(f"{row_id}: Prefect does not know its flow run {row['flow_run_id']}")
    return len(rows) + sum(map(len, evidence.runs.values())), wrong


def _names_of_runs(evidence: Evidence, row: Row) -> list[str]:
    """What the flow runs of a row's attempts are called. An attempt that was cancelled before Prefect, which was away,
    knew of it has none.
    """
    attempts: list[list[str]] = []
    for event in sorted(evidence.rows["job_events"], key=lambda event: event["id"]):
        if event["training_job_id"] == row["id"]:
            attempts += [[]] if event["kind"] == "queued" else []
            attempts[-1].append(event["kind"])
    numbers = range(1, row["attempt"] + 1)
    names = [row["id"] if number == 1 else f"{row['id']}-{number}" for number in numbers]
    had = {run["name"] for run in evidence.runs.get(row["id"], [])}
    told = attempts or [[] for _ in numbers]
    return [name for name, kinds in zip(names, told, strict=True) if name in had or kinds != ["queued", "cancelled"]]


def _states(evidence: Evidence, record: Any) -> tuple[int, list[str]]:
    wrong = []
    compared = 0
    for table_name, words in audit_jobs.BACKED.items():
        for row in evidence.rows[table_name]:
            for run in evidence.runs.get(row["id"], [])[-1:]:
                compared += 1
                state = run["state_type"]
                allowed = words.get(f"{state}/{run['state_name']}", words.get(state, ()))
                if row["status"] not in allowed:
                    wrong.append(f"{row['id']} is {row['status']}, its flow run {state}/{run['state_name']}")
    return compared, wrong


def _processes(evidence: Evidence, record: Any) -> tuple[int, list[str]]:
    counted = Counter(part.kind for part in evidence.parts)
    wrong = [f"{count} × {kind}" for kind, count in counted.items() if kind in SUPERVISED and count != 1]
    wrong += [f"no {kind}" for kind in SUPERVISED - counted.keys()]
    served = {holder.split(":")[1] for holder in evidence.served.values() if holder}
    for part in evidence.parts:
        if part.kind in ("sandbox", "other") or (part.kind == "run" and str(part.process.pid) not in served):
            wrong.append(f"{part.kind} {part.process.pid}")
    if sum(part.kind == "run" for part in evidence.parts) != len(evidence.adapters):
        wrong.append(f"{counted['run']} runs live, {len(evidence.adapters)} engines are Active")
    return len(evidence.parts), wrong


def _adapters(evidence: Evidence, record: Any) -> tuple[int, list[str]]:
    wrong = []
    for engine, held in evidence.adapters.items():
        rows = [row for row in evidence.rows["deployments"] if row["engine_id"] == engine]
        wanted = {row["id"] for row in rows if row["status"] == "Deployed" and row["checkpoint"]}
        if held != wanted:
            wrong.append(f"{engine} holds {sorted(held - wanted)} too many, {sorted(wanted - held)} are missing")
    return sum(map(len, evidence.adapters.values())), wrong


def _leases(evidence: Evidence, record: Any) -> tuple[int, list[str]]:
    # Those of rows that have ended stay: their tokens must not come again.
    rows = {row["id"]: row for table_name in audit_jobs.BACKED for row in evidence.rows[table_name]}
    wrong = []
    for lease in evidence.rows["leases"]:
        row = rows.get(lease["id"])
        if row is None:
            wrong.append(f"{lease['id']} has a lease, and is deleted")
        elif row["status"] == "Active" and is_dead_here(lease["holder"]):
            wrong.append(f"{lease['id']} is Active, its lease is held by {lease['holder']}, which does not live")
    return len(evidence.rows["leases"]), wrong


Look = Callable[[Evidence, Any], tuple[int, list[str]]]
_LOOKS: dict[str, Look] = {
    "every job ended once, as its events say": audit_jobs.endings,
    "every event and checkpoint once": audit_jobs.events,
    "jobs of the same rows have the same adapters": audit_jobs.adapters,
    "every run of a pipeline ended once, with one job": audit_pipelines.endings,
    "what was promoted last is served": audit_pipelines.served,
    "one row per Idempotency-Key": audit_jobs.keys,
    "every deployment is served or says why not": _deployments,
    "a flow run per attempt of a row": _runs_and_rows,
    "catalogue and Prefect agree": _states,
    "no process that nothing accounts for": _processes,
    "no file that belongs to nothing": audit_jobs.files,
    "adapters on engines are their deployments'": _adapters,
    "leases are of rows, and of the living": _leases,
}
