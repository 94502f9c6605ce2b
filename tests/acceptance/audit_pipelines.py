"""What the audit asks of the runs of pipelines."""

from collections import Counter
from typing import Any

from tests.acceptance.audit_jobs import killed_too_seldom, made_by_runs
from tests.acceptance.evidence import Evidence, Row


def endings(evidence: Evidence, record: Any) -> tuple[int, list[str]]:
    """Every accepted run ended with an outcome that its job explains; no other run, job or merged dataset is there."""
    accepted, rows = record.accepted["pipeline-runs"], evidence.rows["pipeline_runs"]
    wrong = [f"{run} ({name}) is lost" for run, name in accepted.items() if evidence.of("pipeline_runs", run) is None]
    if not record.failures:
        wrong += [f"{row['id']} was never answered" for row in rows if row["id"] not in accepted]
    for row in rows:
        if problem := _unexplained(evidence, record, row):
            wrong.append(f"{row['id']}, {row['status']}: {problem}")
    for column in ("training_job_id", "train_dataset_id"):
        counted = Counter(row[column] for row in rows if row[column])
        wrong += [f"{count} runs have the {column} {made}" for made, count in counted.items() if count > 1]
    merged = made_by_runs(evidence, "train_dataset_id")
    strangers = {job["id"] for job in evidence.rows["training_jobs"]} - record.accepted["training-jobs"].keys()
    wrong += [f"{job} is of no run" for job in strangers - made_by_runs(evidence, "training_job_id").keys()]
    strangers = {row["id"] for row in evidence.rows["datasets"]} - record.accepted["datasets"].keys()
    wrong += [f"{dataset} is of no run" for dataset in strangers - merged.keys()]
    return len(rows), wrong


def _unexplained(evidence: Evidence, record: Any, row: Row) -> str | None:
    job = evidence.of("training_jobs", row["training_job_id"])
    if row["status"] == "Failed":
        if job is not None and job["status"] == "Failed" and job["id"] in row["error"]:
            return None
        return killed_too_seldom(record, row) if "process died" in row["error"] else f"no kill did that: {row['error']}"
    if row["status"] != "Success":
        return "nobody asked for that"
    if row["outcome"] != "Promoted":
        return f"its outcome is {row['outcome']}: {row['reason']}"  # the gate lets everything pass
    if job is None or job["status"] != "Success":
        return f"its training job is {job and job['status']}"
    wanted = (job["id"], job["best_checkpoint"])
    if (found := _challenger(row)) != wanted:
        return f"it promoted {found}, the best is {wanted}"
    return None


def served(evidence: Evidence, record: Any) -> tuple[int, list[str]]:
    """The pipeline's deployment serves what the last of its promotions put there, for each replaced the one before."""
    rows = sorted(evidence.rows["pipeline_runs"], key=lambda row: row["created_at"])
    promoted = [row for row in rows if row["outcome"] == "Promoted"]
    wrong, before = [], (None, 0)
    for row in promoted:
        replaced = row["decision"]["replaces"]
        if (found := (replaced["training_job_id"], replaced["checkpoint"])) != before:
            wrong.append(f"{row['id']} replaced {found}, the one before promoted {before}")
        before = _challenger(row)
        live = evidence.of("deployments", replaced["deployment_id"])
        if row is promoted[-1] and (live is None or (live["training_job_id"], live["checkpoint"]) != before):
            wrong.append(
                f"{before} was promoted last, served is {live and (live['training_job_id'], live['checkpoint'])}"
            )
    return len(promoted), wrong


def _challenger(row: Row) -> tuple[str | None, int]:
    challenger = row["decision"]["challenger"]
    return challenger["training_job_id"], challenger["checkpoint"]
