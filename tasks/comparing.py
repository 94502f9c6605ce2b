"""Comparing a pipeline's newly trained checkpoint with the one that is deployed, on the same test rows."""

from functools import partial
from typing import Any

import anyio.to_thread
import pyarrow.parquet
from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import EmissaryError
from emissary.schemas.decisions import Contender, Decision, Replaced
from emissary.store import pipeline_runs, pipelines, training_jobs
from emissary.store.artifacts import artifact_store
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import Deployment, TrainingJob
from tasks import gate
from tasks.attempt import require_lease
from tasks.base_model import base_model_files
from tasks.catalogue import in_catalogue
from tasks.checkpoint_testing import Results, aggregate, published_results
from tasks.labelling import link
from tasks.patience import patiently
from tasks.preparing import prepare, training_and_test_rows
from tasks.reporting import report
from tasks.running_out import SMALLER_TESTS, told_what_ran_out
from tasks.serving import artifact_of, load_model
from tasks.testing import test_adapter


@task(task_run_name="compare", cache_policy=NO_CACHE)
async def compare(run: PipelineRun, job: TrainingJob) -> tuple[Decision, str]:
    """The gate's decision, which is on the run from then on, and a sentence of why.

    Raises InvalidInput where the deployment is gone; EmissaryError where the job has no test results.
    """
    decision = await in_catalogue(_decided, run.id)
    if decision is None:
        with told_what_ran_out(f"the comparison of {run.id}", SMALLER_TESTS):
            decision = await _decide(run, job)
        require_lease()
        await in_catalogue(pipeline_runs.decide, run.id, decision)
    reason = gate.sentence(decision.rules, decision.champion is not None)
    report("The decision", partial(_show, run, job, decision, reason))
    return decision, reason


async def _decided(session: AsyncSession, run_id: str) -> Decision | None:
    run = await pipeline_runs.get(session, run_id)
    return None if run.decision is None else Decision.model_validate(run.decision)


async def _decide(run: PipelineRun, job: TrainingJob) -> Decision:
    wanted = pipelines.config(await in_catalogue(pipelines.get, run.pipeline_id))
    checkpoints = {row.number: row for row in await in_catalogue(training_jobs.checkpoints, job.id)}
    best = checkpoints.get(job.best_checkpoint or 0)
    if best is None or best.results_artifact is None:
        raise EmissaryError(f"The training job {job.id} has no tested checkpoint to compare.")
    inputs, challenger = await anyio.to_thread.run_sync(_tested, best.results_artifact, job, best.report)
    champion, deployed, replaces = None, None, None
    if wanted.deployment_id is not None:
        deployment = await in_catalogue(pipelines.champion, run.project_id, wanted.deployment_id, job)
        served = {"training_job_id": deployment.training_job_id, "checkpoint": deployment.checkpoint}
        replaces = Replaced(deployment_id=deployment.id, **served)
        if deployment.checkpoint or job.task_type in ("text-generation", "embedding"):
            key = f"pipeline-runs/{run.id}/champion"
            results = await _score_champion(job, deployment, key)
            theirs, champion = await anyio.to_thread.run_sync(_tested, key, job, results.report)
            if theirs != inputs:
                raise EmissaryError(f"The champion was tested on other rows than {job.id}; run the pipeline again.")
            deployed = Contender(scores=aggregate(champion.scores), **served)
    rules = gate.apply(wanted.gate, job.test_functions[0], challenger, champion)
    return Decision(
        promoted=all(rule.passed for rule in rules),
        rules=rules,
        test_rows=len(inputs),
        challenger=Contender(training_job_id=job.id, checkpoint=best.number, scores=aggregate(challenger.scores)),
        champion=deployed,
        replaces=replaces,
    )


async def _score_champion(job: TrainingJob, deployment: Deployment, key: str) -> Results:
    """What the deployment's checkpoint does on the job's test rows by its functions, published under `key`."""
    results = await anyio.to_thread.run_sync(published_results, key)
    if results is not None:
        return results
    train_key = await prepare(job.train_dataset_id)
    test_key = await prepare(job.test_dataset_id) if job.test_dataset_id else None
    _, rows = await training_and_test_rows(job, train_key, test_key)
    artifact = await in_catalogue(artifact_of, deployment)
    model_dir = await base_model_files(job.base_model)
    model = await anyio.to_thread.run_sync(load_model, model_dir, job.task_type)
    return await test_adapter(job, model, rows, artifact, key)


def _tested(key: str, job: TrainingJob, about: dict[str, Any] | None) -> tuple[list[str], gate.Measured]:
    """The inputs of the test rows, and how a checkpoint did on them, from its results under `key`."""
    # By the folder, for a single file of a local store is not checked.
    table = pyarrow.parquet.read_table(patiently(artifact_store().folder, key) / "results.parquet")
    scores = {name: table[name].to_pylist() for name in job.test_functions}
    classes = (about or {}).get("class_metrics") or {}
    recalls = {name: measured["recall"] for name, measured in classes.items()}
    return table["input"].to_pylist(), gate.Measured(scores, recalls)


async def _show(run: PipelineRun, job: TrainingJob, decision: Decision, reason: str) -> None:
    text = markdown(run, job, decision, reason)
    await acreate_markdown_artifact(key=f"decision-{run.id}".lower(), markdown=text, description="Decision of the gate")


def markdown(run: PipelineRun, job: TrainingJob, decision: Decision, reason: str) -> str:
    """The decision as a person reads it, who finds the run and its training job in the API from there."""
    lines = [f"# {'Promoted' if decision.promoted else 'Not promoted'}", "", reason, ""]
    lines += [f"Run [{run.id}]({link(run)}), training job [{job.id}]({link(job)}), in the API with your key.", ""]
    lines += ["| rule | of | wanted | found | met |", "| --- | --- | --- | --- | --- |"]
    for rule in decision.rules:
        found = "" if rule.found is None else f"{rule.found:.4g}"
        lines.append(
            f"| {rule.rule} | {rule.of or ''} | {rule.wanted:.4g} | {found} | {'yes' if rule.passed else 'no'} |"
        )
    lines += ["", f"Means over {decision.test_rows} test rows:", "", "| function | challenger | champion |"]
    lines.append("| --- | --- | --- |")
    theirs = {} if decision.champion is None else decision.champion.scores
    for name, score in decision.challenger.scores.items():
        lines.append(f"| {name} | {score:.4f} | {f'{theirs[name]:.4f}' if name in theirs else ''} |")
    return "\n".join(lines)
