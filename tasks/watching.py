"""Watching a deployment after a promotion, by what its engine counts of the requests that people make."""

import asyncio
import time

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from sqlalchemy.ext.asyncio import AsyncSession

from emissary.schemas.decisions import Decision
from emissary.schemas.pipelines import Promotion, RequestFigures, Watch
from emissary.serving import client as engine_client
from emissary.store import deployments, engines, pipeline_runs, pipelines, promotions
from emissary.store.pipeline_tables import PipelineRun
from emissary.store.tables import GONE, Deployment, Engine
from tasks.attempt import end_if_interrupted, require_lease
from tasks.catalogue import in_catalogue
from tasks.run_state import enter

_LOOK_SECONDS = 2.0


@task(task_run_name="watch", cache_policy=NO_CACHE)
async def watch(run: PipelineRun, decision: Decision) -> tuple[str, bool]:
    """What was seen of the promotion while it was watched, as a sentence, and whether it is to be taken back.

    A run that was killed goes on for the time that is left, and does not judge again what it has judged.
    """
    promotion = await in_catalogue(promotions.of_run, run.id)
    if decision.replaces is None or promotion is None or promotion.watch_until is None:
        return "", False
    if promotion.rolled_back is not None:
        return promotion.rolled_back, True
    if promotion.watched is not None:
        return promotion.watched, False
    wanted = pipelines.config(await in_catalogue(pipelines.get, run.pipeline_id)).watch
    enter("Watching")
    while True:
        end_if_interrupted()
        deployment, engine = await in_catalogue(_served, decision.replaces.deployment_id)
        if deployment.status in GONE or not pipeline_runs.serves(deployment, decision.challenger):
            promotion.watched = f"{deployment.name} is not watched any longer, for it was changed meanwhile."
            break
        # An engine that starts anew counts anew.
        promotion.after = await engine_client.figures(engine, deployment.id) or promotion.after
        if reason := fault(wanted, promotion.before, promotion.after):
            promotion.rolled_back = f"While it was watched {reason}."
            break
        if (left := promotion.watch_until - time.time()) <= 0:
            promotion.watched = seen(wanted, promotion)
            break
        await asyncio.sleep(min(_LOOK_SECONDS, left))
    require_lease()
    await in_catalogue(promotions.keep, run.id, promotion)
    said = promotion.rolled_back or promotion.watched or ""
    get_run_logger().info(said)
    return said, promotion.rolled_back is not None


async def _served(session: AsyncSession, deployment_id: str) -> tuple[Deployment, Engine]:
    deployment = await deployments.get(session, deployment_id)
    return deployment, await engines.get(session, deployment.engine_id)


def fault(watch: Watch, before: RequestFigures | None, after: RequestFigures | None) -> str | None:
    """What speaks against a promotion, in the middle of a sentence; None where nothing does, or too little is known."""
    if after is None or after.requests < watch.min_requests:
        return None
    rate = after.errors / after.requests
    rate_before = before.errors / before.requests if before is not None and before.requests else 0.0
    if rate > watch.max_error_rate and rate > rate_before:
        return (
            f"{after.errors} of {after.requests} requests failed ({rate:.1%}, where {watch.max_error_rate:.1%} may; "
            f"before it were {rate_before:.1%})"
        )
    if watch.max_latency_ratio is None or before is None:
        return None
    if min(before.requests - before.errors, after.requests - after.errors) < watch.min_requests:
        return None
    if not before.median_seconds or after.median_seconds is None:
        return None
    ratio = after.median_seconds / before.median_seconds
    if ratio > watch.max_latency_ratio:
        return (
            f"the median answer took {after.median_seconds:.3g} s, {ratio:.3g} times the {before.median_seconds:.3g} s "
            f"from before, where {watch.max_latency_ratio:g} times may be"
        )
    return None


def seen(watch: Watch, promotion: Promotion) -> str:
    """What the watch ended with that found no fault."""
    after, before = promotion.after, promotion.before
    begun = f"It was watched for {watch.watch_seconds} s"
    if after is None or after.requests == 0:
        return f"{begun}, in which no request came; it is kept."
    if after.requests < watch.min_requests:
        return (
            f"{begun}, and {after.requests} requests are fewer than the {watch.min_requests} to judge by; it is kept."
        )
    took = "" if after.median_seconds is None else f", the median answer took {after.median_seconds:.3g} s"
    compared = "" if before is None or before.median_seconds is None else f" ({before.median_seconds:.3g} s before)"
    return f"{begun}: {after.requests} requests, {after.errors} failed{took}{compared}."
