"""Judges as a training run asks them: it has an engine that has ended started, and waits for it."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial

from blocks.sandbox_replies import RowScore
from emissary.errors import NotFound, Unavailable
from emissary.judges import JudgeFunction
from emissary.serving import judging
from emissary.serving.judging import Row
from emissary.store import deployments, engines
from emissary.store.tables import GONE, Engine
from tasks.attempt import raise_if_interrupted
from tasks.catalogue import in_catalogue

PATIENCE_SECONDS = 900.0
"""How long a run waits for a judge's engine; a base model that is fetched for it first may be some gigabytes."""
_LONGEST_WAIT_SECONDS = 2.0


async def score(function: JudgeFunction, rows: Sequence[Row]) -> list[RowScore]:
    """The judge's score of each row, or its error.

    Raises Interrupted when the run is to stop, and Unavailable with what to do where the judge is not to be had.
    """
    ready = partial(_ready, function)
    return await judging.scores(function, rows, ready, patience=PATIENCE_SECONDS)


async def _ready(function: JudgeFunction, seconds: float) -> Engine:
    """The engine of the judge's deployment once it serves it, started when it has ended."""
    deployment_id = function.judge.deployment_id
    deadline, wait, started = time.monotonic() + seconds, 0.2, False
    while True:
        raise_if_interrupted()
        try:
            deployment = await in_catalogue(deployments.get, deployment_id)
        except NotFound:
            raise _gone(function, "deleted") from None
        engine = deployment.engine
        if deployment.status in GONE:
            raise _gone(function, deployment.status)
        if deployment.status == "Deployed" and engine.status == "Active" and engine.endpoint is not None:
            return engine
        if engine.status == "Inactive":
            if started:
                raise Unavailable(
                    f"its engine {engine.id} was started and ended before it could answer. "
                    f"{engine.error or 'Its log in the Prefect UI may tell why.'} Reactivate it, then resume the job."
                )
            # The API's sweep submits its run.
            await in_catalogue(engines.start_again, engine.id)
            started = True
        if time.monotonic() >= deadline:
            raise Unavailable(
                f"its engine {engine.id} is {engine.status} and the deployment {deployment.status} after "
                f"{PATIENCE_SECONDS:.0f} s. See to it that it runs, then resume the job."
            )
        await asyncio.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)


def _gone(function: JudgeFunction, status: str) -> Unavailable:
    return Unavailable(
        f"it is {status}. Give the judge another deployment with PUT /v1/testing-functions/{function.name}, then "
        "resume the job."
    )
