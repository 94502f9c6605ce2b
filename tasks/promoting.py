"""Putting a better checkpoint in the place of the one that a deployment serves, under the same name and id, and back.

The engine loads it first, in place of the old one and without a pause; only when it answers does the catalogue name it.
So an engine that starts anew meanwhile, or a run that breaks off, leaves the old one or the new one, never none.
"""

import asyncio
import time

import httpx
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.errors import EmissaryError, Unavailable
from emissary.schemas.decisions import Decision, Served
from emissary.schemas.pipelines import Promotion
from emissary.serving import client as engine_client
from emissary.store import deployments, engines, pipeline_runs, pipelines, promotions
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import GONE, Checkpoint, Deployment, Engine, TrainingJob
from tasks.attempt import end_if_interrupted, require_lease
from tasks.catalogue import in_catalogue
from tasks.deploying import ask, load, wait_for_another, wait_for_engine
from tasks.serving import artifact_of


@task(task_run_name="promote", cache_policy=NO_CACHE)
async def promote(run: PipelineRun, job: TrainingJob, decision: Decision) -> str:
    """Have the deployment serve the challenger; says what was done.

    Raises EmissaryError where the challenger cannot be loaded: the champion is served as before then.
    """
    if decision.replaces is None:
        return "The pipeline names no deployment, so nothing is deployed."
    promotion = await in_catalogue(promotions.of_run, run.id)
    if promotion is not None and promotion.deployed is not None:
        return promotion.deployed
    deployment = await _settled(run, decision.replaces.deployment_id, job)
    if promotion is None:
        engine = await in_catalogue(engines.get, deployment.engine_id)
        promotion = Promotion(before=await engine_client.figures(engine, deployment.id))
        require_lease()
        await in_catalogue(promotions.keep, run.id, promotion)
    promotion.deployed = await _put_in_place(
        deployment, decision.challenger, decision.replaces, "The new checkpoint passed the gate but"
    )
    if seconds := pipelines.config(await in_catalogue(pipelines.get, run.pipeline_id)).watch.watch_seconds:
        promotion.watch_until = int(time.time()) + seconds
    require_lease()
    await in_catalogue(promotions.keep, run.id, promotion)
    return promotion.deployed


@task(task_run_name="roll-back", cache_policy=NO_CACHE)
async def roll_back(run: PipelineRun, job: TrainingJob, decision: Decision) -> str:
    """Have the deployment serve again what it did before the promotion; says what was done.

    Raises EmissaryError where that cannot be loaded: the challenger is served then.
    """
    assert decision.replaces is not None
    deployment = await _settled(run, decision.replaces.deployment_id, job)
    old = decision.replaces
    said = await _put_in_place(
        deployment, old, decision.challenger, "The promotion is to be taken back, but the old one"
    )
    return f"It was rolled back: {said}"


async def _settled(run: PipelineRun, deployment_id: str, job: TrainingJob) -> Deployment:
    """The deployment, once it does not wait to be deployed for the first time any more."""
    while True:
        end_if_interrupted()
        deployment = await in_catalogue(pipelines.champion, run.project_id, deployment_id, job)
        if deployment.status not in ("Pending", "Deploying"):
            return deployment
        await asyncio.sleep(0.5)


async def _put_in_place(deployment: Deployment, new: Served, old: Served, failing: str) -> str:
    """Have the deployment serve `new` where it serves `old`; says what was done. An error begins with `failing`."""
    artifact = await in_catalogue(_artifact, new)
    shown = f"checkpoint {new.checkpoint} of {new.training_job_id}" if new.checkpoint else "the base model"
    served_by, broke_off = None, dict[str | None, float]()
    while await in_catalogue(_start_engine, deployment.engine_id):
        engine = await wait_for_engine(deployment.id)
        if engine.endpoint == served_by:
            return f"{deployment.name} serves {shown}."
        require_lease()
        try:
            await _exchange(deployment, engine, artifact, new, old, failing)
        except httpx.TransportError as error:
            sentence = (
                f"{failing} could not be put in place: the engine {engine.id} does not answer; look at its log in "
                f"the Prefect UI, then run the pipeline again. {deployment.name!r} serves what it did."
            )
            await wait_for_another(engine, broke_off, sentence, error)
            continue
        # An engine that started anew in between may have read the catalogue before: then it is another one.
        served_by = engine.endpoint
    await in_catalogue(_replace, deployment.id, new, old)
    return f"{deployment.name} will serve {shown} from the next window of its engine's schedule on."


async def _start_engine(session: AsyncSession, engine_id: str) -> bool:
    """Have the engine start where it has ended; False where its schedule does not have it run now."""
    try:
        await engines.start_again(session, engine_id)  # the API's sweep submits its run
    except Unavailable:
        return False
    return True


async def _artifact(session: AsyncSession, served: Served) -> str | None:
    if served.checkpoint == 0:
        return None
    return str((await session.get_one(Checkpoint, (served.training_job_id, served.checkpoint))).artifact)


async def _exchange(
    deployment: Deployment, engine: Engine, artifact: str | None, new: Served, old: Served, failing: str
) -> None:
    """Have the engine serve the artifact under the deployment's id, and the catalogue name it. Where it does not
    answer, or something else is deployed by now, the engine serves again what the catalogue names; raises
    EmissaryError then, httpx.TransportError where the engine is away.
    """
    try:
        await load(deployment.id, engine, artifact)
        await ask(deployment.id, engine)
        await in_catalogue(_replace, deployment.id, new, old)
    except (EmissaryError, httpx.TransportError) as error:
        now = await in_catalogue(deployments.get, deployment.id)
        if now.status in GONE:
            await engine_client.unload(engine, now.id)
            left = f"is {now.status}"
        else:
            await load(now.id, engine, await in_catalogue(artifact_of, now))
            left = f"serves checkpoint {now.checkpoint} of {now.training_job_id or now.base_model}"
        if isinstance(error, httpx.TransportError):
            raise
        reason = str(error).rstrip(".")
        raise EmissaryError(f"{failing} could not be put in place ({reason}); {now.name!r} {left}.") from error
    get_run_logger().info("The engine %s serves %s by %s", engine.id, deployment.id, artifact)


async def _replace(session: AsyncSession, deployment_id: str, new: Served, old: Served) -> None:
    row = await session.get_one(Deployment, deployment_id, with_for_update={"key_share": True})
    pipeline_runs.require_served(row, new if pipeline_runs.serves(row, new) else old)
    row.training_job_id, row.checkpoint = new.training_job_id, new.checkpoint
