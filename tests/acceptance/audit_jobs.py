"""What the audit asks of training jobs, their events, checkpoints and files."""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

from tests.acceptance.evidence import Evidence, Row
from tests.acceptance.small_jobs import ALL, Small

LAST = {"Success": "succeeded", "Failed": "failed", "TimedOut": "failed", "Cancelled": "cancelled"}
_SERVED = ("Deployed", "Deactivated", "Reactivating", "Terminated", "Failed")
BACKED: dict[str, dict[str, tuple[str, ...]]] = {
    "training_jobs": {
        "COMPLETED": ("Success",), "FAILED": ("Failed",), "FAILED/TimedOut": ("TimedOut",), "CANCELLED": ("Cancelled",),
    },
    "engines": {
        "RUNNING": (), "RUNNING/Active": ("Active",), "COMPLETED": ("Inactive",), "FAILED": ("Inactive",),
        "CANCELLED": ("Inactive",),
    },
    "deployments": {
        "COMPLETED": _SERVED, "FAILED": ("Failed", "Terminated"), "FAILED/TimedOut": ("TimedOut",),
        "CANCELLED": ("Cancelled", "Terminated"),
    },
    "datasets": {"COMPLETED": ("Success",), "FAILED": ("Failed",), "CANCELLED": ("Cancelled",)},
    "pipeline_runs": {"COMPLETED": ("Success",), "FAILED": ("Failed",), "CANCELLED": ("Cancelled",)},
}  # fmt: skip
"""Table → state of a flow run (with its name, where that matters) → what a settled row may be then."""
_KILLS_A_RUN = {"run", "worker", "fork server", "supervisor", "everything"}
_MOST_CRASHES = 3


def _small(row: Row) -> Small:
    """The small job that a row is."""
    grpo = row["training_technique"] == "GRPO"
    return next(
        small for small in ALL
        if ("reward" in small.body) == grpo and small.body.get("task_type", "text-generation") == row["task_type"]
    )  # fmt: skip


def _kinds(evidence: Evidence, row: Row) -> list[str]:
    events = [event for event in evidence.rows["job_events"] if event["training_job_id"] == row["id"]]
    return [event["kind"] for event in sorted(events, key=lambda event: event["id"])]


def _checkpoints(evidence: Evidence, row: Row) -> list[Row]:
    found = [each for each in evidence.rows["checkpoints"] if each["training_job_id"] == row["id"]]
    return sorted(found, key=lambda each: each["number"])


def endings(evidence: Evidence, record: Any) -> tuple[int, list[str]]:
    """Every accepted job, and every one of a pipeline, is in a terminal state that its events and the storm's own deeds
    explain.
    """
    wrong = []
    jobs = record.accepted["training-jobs"] | made_by_runs(evidence, "training_job_id")
    for job, name in jobs.items():
        row = evidence.of("training_jobs", job)
        if row is None:
            if job not in record.asked["delete"]:
                wrong.append(f"{job} ({name}) is lost")
        elif row["status"] not in LAST:
            wrong.append(f"{job} ({name}) is {row['status']}")
        elif problem := _unexplained(evidence, record, row):
            wrong.append(f"{job} ({name}), {row['status']}: {problem}")
    return len(jobs), wrong


def made_by_runs(evidence: Evidence, column: str) -> dict[str, str]:
    """What runs of pipelines made and note in `column` → the run."""
    return {row[column]: row["id"] for row in evidence.rows["pipeline_runs"] if row[column]}


def _unexplained(evidence: Evidence, record: Any, row: Row) -> str | None:
    kinds = _kinds(evidence, row)
    if not kinds or kinds[-1] != LAST[row["status"]]:
        return f"its last event is {kinds[-1:]}"
    terminal, most = sum(kind in LAST.values() for kind in kinds), 1 + _times(record, "resume", row["id"])
    if terminal > most:
        return f"it ended {terminal} times: {', '.join(kinds)}"
    if row["status"] == "Cancelled":
        return None if row["id"] in record.asked["cancel"] else "nobody asked for that"
    if row["status"] == "Failed":
        if not row["error"]:
            return "it has no error"
        return killed_too_seldom(record, row)
    if row["status"] == "TimedOut":
        return "it has no time limit"
    found = _checkpoints(evidence, row)
    if [each["number"] for each in found] != list(range(1, _small(row).checkpoints + 1)):
        return f"its checkpoints are {[each['number'] for each in found]}"
    if untested := [each["number"] for each in found if None in (each["results_artifact"], each["report"])]:
        return f"not tested: {untested}"
    if not _base_results(evidence, row) <= evidence.artifacts.keys():
        return "the base model is not tested"
    if row["best_checkpoint"] is None or row["progress"] != 100:
        return f"best checkpoint {row['best_checkpoint']}, progress {row['progress']}"
    return None


def killed_too_seldom(record: Any, row: Row) -> str | None:
    """What is wrong with a row that gave up after crashes, where too few kills can have hit its runs."""
    begun = row["created_at"].timestamp()
    killed = sum(at > begun and kind in _KILLS_A_RUN for at, kind in record.kills)
    return None if killed >= _MOST_CRASHES else f"only {killed} kills can have hit it: {row['error']}"


def _times(record: Any, action: str, what: str) -> int:
    """How often an action can have been carried out: as answered, or once more where an answer was lost."""
    return record.done[action][what] or int(what in record.asked[action])


def events(evidence: Evidence, record: Any) -> tuple[int, list[str]]:
    """An event of each kind, checkpoint and epoch comes once; the loss curve has each step once, in order."""
    wrong = []
    counted = Counter(
        (event["training_job_id"], event["kind"], event["details"].get("checkpoint") or event["details"].get("epoch"))
        for event in evidence.rows["job_events"]
        if event["kind"] not in ("resumed", "testing", *LAST.values())
    )
    for (job, kind, number), count in counted.items():
        if count > 1 and not _times(record, "resume", job):
            wrong.append(f"{job}: {count} × {kind} {number or ''}")
    for row in evidence.rows["training_jobs"]:
        steps = [point["step"] for point in row["training_loss"]]
        if any(later <= earlier for earlier, later in pairwise(steps)):
            wrong.append(f"{row['id']}: its loss curve has the steps {steps}")
        listed = [each["artifact"] for each in _checkpoints(evidence, row)]
        wrong += [f"{key} is listed, and not whole" for key in listed if evidence.artifacts.get(key) != ""]
    return sum(counted.values()) + len(evidence.rows["checkpoints"]), wrong


def adapters(evidence: Evidence, _record: Any) -> tuple[int, list[str]]:
    """Jobs of the same rows and parameters have the same adapters, byte for byte, however often they were killed."""
    made = made_by_runs(evidence, "training_job_id")
    found: dict[tuple[str, int], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in evidence.rows["training_jobs"]:
        if row["status"] == "Success" and row["id"] not in made:
            for each in _checkpoints(evidence, row):
                checksum = evidence.checksums.get(each["artifact"], {}).get("adapter_model.safetensors", "none")
                found[_small(row).name, each["number"]][checksum].append(row["id"])
    wrong = [
        f"{name}, checkpoint {number}: " + ", others in ".join(" ".join(jobs) for jobs in by_checksum.values())
        for (name, number), by_checksum in found.items()
        if len(by_checksum) > 1
    ]
    return sum(len(jobs) for by_checksum in found.values() for jobs in by_checksum.values()), wrong


def keys(evidence: Evidence, record: Any) -> tuple[int, list[str]]:
    """What was asked for under one Idempotency-Key, its name, is there once."""
    wrong = []
    made = made_by_runs(evidence, "training_job_id") | made_by_runs(evidence, "train_dataset_id")
    total = 0
    for table in ("training_jobs", "datasets", "deployments"):
        counted = Counter(row["name"] for row in evidence.rows[table] if row["id"] not in made)
        total += sum(counted.values())
        wrong += [f"{table}: {count} × {name}" for name, count in counted.items() if count > 1]
        known = made.keys() | record.accepted[table.replace("_", "-")].keys()
        # An answer may have been lost for good only where the storm says so itself.
        if not record.failures:
            wrong += [f"{row['id']} was never answered" for row in evidence.rows[table] if row["id"] not in known]
    return total, wrong


def files(evidence: Evidence, record: Any) -> tuple[int, list[str]]:
    """Every file of the artifact store is part of a whole artifact of a row; trainer state is of live jobs only."""
    wrong = [f"{name} is part of no artifact" for name in evidence.strays]
    event_files: Counter[tuple[str, str]] = Counter()
    for key, damage in evidence.artifacts.items():
        kind, owner, *rest = key.split("/")
        job = evidence.of("training_jobs", owner) if kind == "training-jobs" else None
        if damage:
            wrong.append(f"{key}: {damage}")
        elif kind == "datasets":
            known = evidence.of("datasets", owner) or evidence.of("leftovers", owner)
            wrong += [] if known else [f"{key} is of no dataset"]
        elif kind == "prepared":
            used = any(row["sha256"] == owner for row in evidence.rows["datasets"])
            wrong += [] if used else [f"{key} was made of no dataset's content"]
        elif kind == "pipeline-runs":
            wrong += [] if evidence.of("pipeline_runs", owner) else [f"{key} is of no run of a pipeline"]
        elif job is None:
            wrong.append(f"{key} is of no job")
        elif rest[0] == "tensorboard":
            event_files[owner, job["status"]] += 1
        elif job["status"] == "Success" and key not in _listed(evidence, job):
            wrong.append(f"{key} is not listed, and its job is done")
        elif rest[0] == "results" and rest[-1] == "base":
            wrong += [] if _base_is_tested(job) else [f"{key} is of a base model that has nothing to answer"]
        elif rest[0] in ("checkpoints", "results") and int(rest[-1]) > _small(job).checkpoints:
            wrong.append(f"{key} is one too many")
    for (owner, status), count in event_files.items():
        if count > 1 and status == "Success":
            wrong.append(f"{owner} has {count} event files")
    states = Counter(key.rpartition("/")[0] for key in evidence.artifacts if "/states/" in key)
    wrong += [f"{count} × {prefix}, two are kept" for prefix, count in states.items() if count > 2]
    live = sum(part.kind == "run" for part in evidence.parts)
    if len(evidence.scratch) != live:
        wrong.append(f"{live} runs live, and there are the folders {', '.join(evidence.scratch)}")
    return len(evidence.artifacts), wrong


def _listed(evidence: Evidence, row: Row) -> set[str | None]:
    found = _checkpoints(evidence, row)
    results = {each["results_artifact"] for each in found}
    return {each["artifact"] for each in found} | results | _base_results(evidence, row)


def _base_results(evidence: Evidence, row: Row) -> set[str]:
    """Where the base model's results are, beside those of the checkpoints, if it is tested."""
    results = [each["results_artifact"] for each in _checkpoints(evidence, row)] if _base_is_tested(row) else []
    return {f"{key.rpartition('/')[0]}/base" for key in results if key}


def _base_is_tested(row: Row) -> bool:
    return bool(row["test_functions"]) and row["task_type"] in ("text-generation", "embedding")
