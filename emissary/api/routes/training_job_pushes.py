"""A job's checkpoint pushed to the Hugging Face hub on request."""

from functools import partial

import anyio
import anyio.to_thread

from emissary import hub_push
from emissary.api.auth import OwnedProject
from emissary.api.routing import keyed_router
from emissary.schemas.hub_pushes import PushedToHub, PushToHubNow
from emissary.store import hub_pushes
from emissary.store.database import transaction

router = keyed_router("Training Jobs", "/v1/projects/{project_id}/training-jobs/{training_job_id}")
# Threads of their own: a hub that is slow holds up nobody else.
_THREADS = anyio.CapacityLimiter(2)


@router.post(
    "/push-to-hub", operation_id="pushTrainingJobToHubById", summary="Push a training job's checkpoint to the hub"
)
async def push_to_hub(project: OwnedProject, training_job_id: str, body: PushToHubNow) -> PushedToHub:
    """Pushes a checkpoint with a model card, and answers when it is there. What is there as it is makes no commit."""
    async with transaction() as session:
        what = await hub_pushes.pushable(session, training_job_id, project.id, body.checkpoint)
    pushed = await anyio.to_thread.run_sync(partial(hub_push.push, what, body), limiter=_THREADS)
    async with transaction() as session:
        await hub_pushes.record(session, training_job_id, pushed)
    return pushed
